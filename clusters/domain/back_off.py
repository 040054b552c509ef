"""How long a pool that had no capacity is left alone."""

from datetime import timedelta

FIRST_SECONDS = 180
LONGEST_SECONDS = 1800
FORGOTTEN_AFTER = timedelta(seconds=LONGEST_SECONDS)
"""A pool that was not dry again for this long after its pause ended has no history."""


def next_back_off_seconds(previous: int) -> int:
    """Return 3 minutes at first, then twice the previous pause up to 30 minutes (spec README, decision 9)."""
    return min(LONGEST_SECONDS, previous * 2) if previous else FIRST_SECONDS
