"""A week of 168 hours, Monday 00:00 first, in wall time: 1 is awake, 0 asleep."""

from collections.abc import Sequence
from decimal import Decimal
from zoneinfo import available_timezones

HOURS_PER_WEEK = 168
HOURS_PER_MONTH = 730


def matrix_error(matrix: Sequence[object]) -> str | None:
    """Return what is wrong with a week, or None."""
    if len(matrix) != HOURS_PER_WEEK:
        return f"must have {HOURS_PER_WEEK} hours; it has {len(matrix)}."
    wrong = next(
        (place for place, hour in enumerate(matrix) if type(hour) is not int or hour not in (0, 1)), None
    )
    return None if wrong is None else f"must hold 0 or 1; hour {wrong} does not."


def timezone_error(name: str) -> str | None:
    """Return what is wrong with an IANA zone's name, or None."""
    return None if name in available_timezones() else f"{name} is not a time zone, such as Europe/Paris."


def projected_usd_per_month(matrix: Sequence[int], usd_per_hour: Decimal) -> Decimal:
    """Return a forecast: what the cluster costs now × the hours of a month of 730 that it would sleep."""
    asleep = sum(hour == 0 for hour in matrix)
    return usd_per_hour * asleep * HOURS_PER_MONTH / HOURS_PER_WEEK
