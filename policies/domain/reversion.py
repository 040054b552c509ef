"""When a node that had to be bought dear gives way to a cheaper one: late, paced, and only for a gain."""

from datetime import datetime, timedelta
from decimal import Decimal

LEAST_WAIT = timedelta(minutes=30)
"""No fallback is undone earlier, whatever the policy says (the safety floor)."""
PACE = timedelta(minutes=5)
"""Least time between two returns: capacity that only just came back is not trusted with everything."""
LEAST_GAIN = Decimal("0.15")
"""Share of a node's price that a move must save, interruptions charged on both sides: less is not worth it,
and would be taken back at the next small change of prices or risk."""


def may_revert(
    *, since: datetime, last_reversion: datetime | None, now: datetime, wait: timedelta, pace: timedelta
) -> bool:
    """Tell whether a node bought ``since`` as a fallback may be moved now.

    ``wait`` is how long a fallback lasts at least, ``pace`` the least time between two reversions.
    """
    rested = now - since >= max(wait, LEAST_WAIT)
    return rested and (last_reversion is None or now - last_reversion >= pace)


def worth_reverting(*, usd_per_hour: Decimal, replacement_usd_per_hour: Decimal) -> bool:
    """Tell whether the replacement, with its expected interruptions charged, is cheaper by enough to move."""
    return replacement_usd_per_hour <= usd_per_hour * (1 - LEAST_GAIN)
