"""One place that knows what time it is, so that tests and demonstrations can move it."""

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache


@dataclass(frozen=True, slots=True)
class _Clock:
    """A straight line through (``wall``, ``origin``): seconds since the epoch, both."""

    wall: float
    origin: float
    rate: float


@cache
def _clock() -> _Clock:
    setting = os.environ.get("SPOTOPT_CLOCK")
    if not setting:
        return _Clock(wall=0.0, origin=0.0, rate=1.0)
    line = json.loads(setting)
    return _Clock(wall=float(line["wall"]), origin=float(line["origin"]), rate=float(line["rate"]))


def utcnow() -> datetime:
    """Return the current instant, aware and in UTC."""
    clock = _clock()
    if clock.rate == 1.0 and clock.wall == clock.origin:
        return datetime.now(UTC)
    return datetime.fromtimestamp(clock.origin + (time.time() - clock.wall) * clock.rate, UTC)


def clock_rate() -> float:
    """Return how many seconds of ``utcnow()`` pass in one second on the wall."""
    return _clock().rate


def wall_seconds(seconds: float) -> float:
    """Return how long to wait on the wall for ``seconds`` of ``utcnow()`` to pass."""
    return seconds / clock_rate()
