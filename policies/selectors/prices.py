"""What a plan's constraints cost, and how near the plan is to the least possible, for its page."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

_LOST_AFTER = timedelta(minutes=10)
"""A pricing that has said nothing for so long has lost its worker."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One constraint, and the best plan found without it; USD per hour."""

    words: str
    usd_per_hour: Decimal
    """What the constraint costs."""
    usd_per_hour_without: Decimal


@dataclass(frozen=True, slots=True)
class ConstraintPrices:
    """How far the pricing of a plan's constraints has come, and what it found, dearest first."""

    state: str
    """``waiting``, ``running``, ``done``, ``ended`` (stopped early) or ``lost`` (its worker died)."""
    at: datetime | None
    tried: int
    candidates: int
    usd_per_hour_with: Decimal | None
    """The best plan found with every constraint in force."""
    rows: tuple[PriceRow, ...]


def constraint_prices_of(document: Mapping[str, Any], *, now: datetime) -> ConstraintPrices:
    """Return what is stored with a plan, ready for its page."""
    if not document:
        return ConstraintPrices("waiting", None, 0, 0, None, ())
    at = datetime.fromisoformat(document["at"])
    is_lost = document["status"] == "running" and now - at > _LOST_AFTER
    rows = document["prices"]
    return ConstraintPrices(
        state="lost" if is_lost else document["status"],
        at=at,
        tried=document["tried"],
        candidates=document["candidates"],
        usd_per_hour_with=Decimal(rows[0]["usd_per_hour_with"]) if rows else None,
        rows=tuple(_row(row) for row in rows),
    )


def gap_percent(usd_per_hour: Decimal, lower_bound: Decimal) -> float | None:
    """Return by how much a cost is above the lower bound, in percent of the bound; None without a bound."""
    return float((usd_per_hour / lower_bound - 1) * 100) if lower_bound > 0 else None


def _row(row: Mapping[str, str]) -> PriceRow:
    without = Decimal(row["usd_per_hour_without"])
    return PriceRow(row["words"], Decimal(row["usd_per_hour_with"]) - without, without)
