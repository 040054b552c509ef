"""How numbers, money and instants read on a page; the same words everywhere."""

from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

HOURS_PER_MONTH = 730
"""The month of every monthly figure, in hours."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_WHOLE_PERCENT_FROM = 10
_LEAST_PERCENT_SHOWN = 0.05


def usd(value: Decimal, places: int = 2) -> str:
    """Return ``$1,234.56``; a negative amount reads ``−$1,234.56``."""
    rounded = value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)
    return f"{'−' if rounded < 0 else ''}${abs(rounded):,.{places}f}"


def percent(value: float | Decimal) -> str:
    """Return whole percent, or one decimal place under 10 %; ``<0.1 %`` for what would read as nothing."""
    if 0 < value < _LEAST_PERCENT_SHOWN:
        return "<0.1 %"
    places = 0 if abs(float(value)) >= _WHOLE_PERCENT_FROM or value == 0 else 1
    return f"{value:.{places}f} %".replace("-", "−")


def duration(span: timedelta) -> str:
    """Return a length of time in its two largest units that matter, such as ``2 h 5 min``."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    if seconds < _DAY:
        minutes = seconds % _HOUR // _MINUTE
        return f"{seconds // _HOUR} h" + (f" {minutes} min" if minutes else "")
    hours = seconds % _DAY // _HOUR
    return f"{seconds // _DAY} d" + (f" {hours} h" if hours else "")


def age(moment: datetime, now: datetime) -> str:
    """Return how long ago ``moment`` was: ``12 s ago``, ``in 3 min`` or ``just now``."""
    span = now - moment
    if abs(span) < timedelta(seconds=1):
        return "just now"
    return f"{duration(span)} ago" if span > timedelta(0) else f"in {duration(-span)}"


def absolute(moment: datetime) -> str:
    """Return the instant to the second, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
