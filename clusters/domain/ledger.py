"""What may be booked as saved: recorded price × observed hours, cut into UTC hours."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

BOOKING_PERIOD = timedelta(days=30)
MAX_WORKLOAD_CHANGE = Decimal("0.20")
_HOUR = timedelta(hours=1)
_CENT_OF_A_MICRO = Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of time inside one UTC hour."""

    hour: datetime
    start: datetime
    end: datetime

    def usd(self, usd_per_hour: Decimal) -> Decimal:
        """Return price × duration, to eight places."""
        seconds = Decimal(str((self.end - self.start).total_seconds()))
        return (usd_per_hour * seconds / 3600).quantize(_CENT_OF_A_MICRO)


def hour_slices(start: datetime, end: datetime) -> Iterator[Slice]:
    """Yield the pieces of ``start``…``end`` that lie in one UTC hour each; none when it is empty."""
    while start < end:
        hour = start.replace(minute=0, second=0, microsecond=0)
        stop = min(end, hour + _HOUR)
        yield Slice(hour=hour, start=start, end=stop)
        start = stop


def bookable_until(*, since: datetime, now: datetime, ended_at: datetime | None) -> datetime:
    """Return the instant up to which a saving that began at ``since`` may be booked."""
    return min(now, since + BOOKING_PERIOD, ended_at or now)


def workload_changed(*, baseline_millis: int, current_millis: int) -> bool:
    """Tell whether the CPU that a cluster requests moved by more than 20 % from the baseline."""
    return abs(current_millis - baseline_millis) > baseline_millis * MAX_WORKLOAD_CHANGE
