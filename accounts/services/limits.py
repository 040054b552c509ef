"""Rate limits that pages and API share, counted in Redis in fixed windows of wall time."""

import re
import time
from dataclasses import dataclass

from django.core.cache import cache
from rest_framework.settings import api_settings

from spotopt.core.crypto import digest
from spotopt.core.errors import TooManyRequests

_RATE = re.compile(r"(\d+)/(second|minute|min|hour|day)")
_PERIOD_SECONDS = {"second": 1, "minute": 60, "min": 60, "hour": 3600, "day": 86_400}
LOCK_AFTER_FAILURES = 10
LOCK_SECONDS = 15 * 60


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``count`` acts of one kind in ``seconds``, for each key."""

    name: str
    count: int
    seconds: int


def limit_named(scope: str) -> Limit:
    """Return the limit that the settings give to a throttle scope, such as ``10/min``."""
    rate = str(api_settings.DEFAULT_THROTTLE_RATES[scope])
    match = _RATE.fullmatch(rate)
    if match is None:
        raise ValueError(f"{scope}: {rate!r} is not a rate.")
    return Limit(scope, int(match.group(1)), _PERIOD_SECONDS[match.group(2)])


def spend(limit: Limit, key: str) -> None:
    """Count one act for the key, or raise TooManyRequests with the seconds until the window ends."""
    now = time.time()
    window = int(now // limit.seconds)
    counter = f"limit:{limit.name}:{window}:{digest(key)}"
    if _increment(counter, limit.seconds) > limit.count:
        raise TooManyRequests(
            "Too many attempts. Wait a moment and try again.",
            retry_after_seconds=int((window + 1) * limit.seconds - now) + 1,
        )


def refuse_while_locked(email: str) -> None:
    """Raise TooManyRequests while an address is locked, whether or not anybody owns it."""
    locked_until = cache.get(_lock_of(email))
    if locked_until is not None:
        raise TooManyRequests(
            "Too many failed sign-ins for this address. Try again in a quarter of an hour.",
            retry_after_seconds=max(1, int(locked_until - time.time())),
        )


def count_failure(email: str) -> bool:
    """Count one failed sign-in; lock the address and return True when it was one too many."""
    if _increment(_failures_of(email), LOCK_SECONDS) < LOCK_AFTER_FAILURES:
        return False
    cache.set(_lock_of(email), time.time() + LOCK_SECONDS, LOCK_SECONDS)
    cache.delete(_failures_of(email))
    return True


def forget_failures(email: str) -> None:
    """Start counting an address's failures from nothing."""
    cache.delete(_failures_of(email))


def _increment(key: str, seconds: int) -> int:
    cache.add(key, 0, seconds)
    try:
        return int(cache.incr(key))
    except ValueError:  # it expired between the two calls
        cache.set(key, 1, seconds)
        return 1


def _failures_of(email: str) -> str:
    return f"sign-in:failures:{digest(email)}"


def _lock_of(email: str) -> str:
    return f"sign-in:lock:{digest(email)}"
