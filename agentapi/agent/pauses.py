"""How long to wait before the next attempt, so that many who wait do not come back at the same moment."""

import random


def spread(seconds: float, share: float = 0.5) -> float:
    """Return about so many seconds, drawn anew each time: up to ``share`` of them less or more."""
    return seconds * random.uniform(1 - share, 1 + share)  # noqa: S311  # jitter, not a secret
