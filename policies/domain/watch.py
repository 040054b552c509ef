"""How a long search says how far it has come, and learns that nobody waits for it any more."""

from collections.abc import Callable

Watch = Callable[[str, float], None]
"""Takes what comes next and the share that is done, 0 to 1; raises to end the search there."""


def unwatched(step: str, share: float) -> None:
    """Watch nothing."""


def part_of(watch: Watch, start: float, end: float, prefix: str = "") -> Watch:
    """Return a watch for one part of a longer search, from share ``start`` to share ``end``."""

    def watch_part(step: str, share: float) -> None:
        watch(f"{prefix}{step}", start + (end - start) * share)

    return watch_part
