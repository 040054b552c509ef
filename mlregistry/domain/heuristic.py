"""Interruption risk without a trained model: how likely AWS takes a spot node back within the next day.

EC2 Spot Advisor publishes, for each type in a region, the share of instances that were interrupted within
the *trailing month*, in five buckets. The product's horizon is a day, so that share is converted on the
assumption of a constant hazard: if a share m is interrupted in a month of 730 hours, then
``1 − (1 − m)^(24 / 730)`` is interrupted in 24. On top come two things that the month does not show:
how widely the pool's price ranged during the last day, and whether AWS took a node of it back just now.
"""

from decimal import Decimal

HOURS_PER_MONTH = 730
HORIZON_HOURS = 24
MONTHLY_SHARE = (0.025, 0.075, 0.125, 0.175, 0.25)
"""Midpoints of the advisor's buckets <5 %, 5–10 %, 10–15 %, 15–20 %; 0.25 stands for the open >20 %."""
UNKNOWN_MONTHLY_SHARE = 0.20
PRICE_RANGE_WEIGHT = 0.2
FLAG_PENALTY = 0.3
HIGHEST = 0.99
VERSION = "fallback-heuristic-v1"
CAUTION_FROM = 0.2
AVOID_ABOVE = 0.5


def interruption_risk(*, bucket: int | None, price_range: float = 0.0, is_flagged: bool = False) -> float:
    """Return the probability, 0 to 0.99, that a node of the pool is interrupted within 24 hours.

    ``bucket`` is the advisor's, 0 to 4, or None where it says nothing; ``price_range`` is the last day's
    relative range, 0 to 1; ``is_flagged`` tells that AWS took a node of the pool back recently.
    """
    monthly = UNKNOWN_MONTHLY_SHARE if bucket is None else MONTHLY_SHARE[bucket]
    risk = daily(monthly) + PRICE_RANGE_WEIGHT * min(1.0, max(0.0, price_range))
    return min(HIGHEST, risk + FLAG_PENALTY * is_flagged)


def daily(monthly_share: float) -> float:
    """Return the share interrupted in 24 hours, given the share interrupted in a month of 730 hours."""
    return 1 - float((1 - monthly_share) ** (HORIZON_HOURS / HOURS_PER_MONTH))


def relative_range(low: Decimal | None, high: Decimal | None) -> float:
    """Return (high − low) / high, 0 to 1; 0 when no day of prices was observed."""
    if low is None or high is None or high <= 0:
        return 0.0
    return float((high - low) / high)


def label(risk: float) -> str:
    """Return ``SAFE`` under 0.2, ``CAUTION`` to 0.5 inclusive, ``AVOID`` above."""
    if risk < CAUTION_FROM:
        return "SAFE"
    return "CAUTION" if risk <= AVOID_ABOVE else "AVOID"
