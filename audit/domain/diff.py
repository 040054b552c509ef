"""What changed between two documents, knob by knob."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

HOURS_PER_WEEK = 168
Document = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs; ``field`` is its dotted path, list elements carry their place in brackets."""

    field: str
    old_value: object
    new_value: object
    change_type: str
    """``added``, ``modified`` or ``removed``."""


def changes(before: Document | None, after: Document | None) -> list[Change]:
    """Return the differing fields, sorted by path; a missing document counts as an empty one."""
    old, new = dict(_leaves(before or {})), dict(_leaves(after or {}))
    return [_change(path, old, new) for path in sorted(old.keys() | new.keys()) if _differs(path, old, new)]


def _differs(path: str, old: Document, new: Document) -> bool:
    return (path in old) != (path in new) or old[path] != new[path]


def _change(path: str, old: Document, new: Document) -> Change:
    kind = "modified" if path in old and path in new else "added" if path in new else "removed"
    return Change(path, old.get(path), new.get(path), kind)


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield each value that holds no others; lists of names count by element, a week by its hour."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        yield from ((f"{path}[{item}]", item) for item in value)
    elif isinstance(value, list) and len(value) == HOURS_PER_WEEK:
        yield from ((f"{path}[{_hour(index)}]", item) for index, item in enumerate(value))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    elif path:
        yield path, value


def _hour(index: int) -> str:
    return f"{('Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun')[index // 24]} {index % 24:02}:00"
