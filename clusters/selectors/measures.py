"""Aggregates over nodes that several screens share, as SQL expressions."""

from decimal import Decimal
from typing import Any

from django.contrib.postgres.aggregates import BoolOr
from django.db.models import Count, DecimalField, F, FloatField, Max, Q, Sum, Value
from django.db.models.functions import Cast, Coalesce, Least

from clusters.domain.efficiency import Efficiency, efficiency
from clusters.selectors.guard import ALIVE

SOME_ESTIMATED = BoolOr("is_estimate", default=False)
"""Whether some ledger entries hold estimated prices."""
ZERO_USD = Value(Decimal(0), output_field=DecimalField(max_digits=14, decimal_places=6))


def node_measures(prefix: str = "") -> dict[str, Any]:
    """Return the annotations that count, price and rate the living nodes behind ``prefix``."""
    alive = Q(**{f"{prefix}state__in": ALIVE})
    spot = alive & Q(**{f"{prefix}lifecycle": "spot"})
    measured = alive & Q(**{f"{prefix}cpu_util__isnull": False, f"{prefix}memory_util__isnull": False})
    return {
        "usd_per_hour": Coalesce(Sum(f"{prefix}price", filter=alive), ZERO_USD),
        "spot_usd_per_hour": Coalesce(Sum(f"{prefix}price", filter=spot), ZERO_USD),
        "node_total": Count(f"{prefix}pk", filter=alive),
        "spot_total": Count(f"{prefix}pk", filter=spot),
        "estimated_total": Count(f"{prefix}pk", filter=alive & Q(**{f"{prefix}price_is_estimate": True})),
        "unpriced_total": Count(f"{prefix}pk", filter=alive & Q(**{f"{prefix}price__isnull": True})),
        "cpu_total": Sum(f"{prefix}cpu_allocatable_millis", filter=alive),
        "memory_total": Sum(f"{prefix}memory_allocatable_mib", filter=alive),
        "cpu_asked": Sum(f"{prefix}cpu_requested_millis", filter=alive),
        "memory_asked": Sum(f"{prefix}memory_requested_mib", filter=alive),
        "cpu_measured": Sum(f"{prefix}cpu_allocatable_millis", filter=measured),
        "memory_measured": Sum(f"{prefix}memory_allocatable_mib", filter=measured),
        "cpu_useful": Sum(_useful(prefix, "cpu", "millis"), filter=measured),
        "memory_useful": Sum(_useful(prefix, "memory", "mib"), filter=measured),
        "seen_at": Max(f"{prefix}last_seen_at", filter=alive),
    }


def _useful(prefix: str, resource: str, unit: str) -> Least:
    used = (
        F(f"{prefix}{resource}_util") * Cast(f"{prefix}{resource}_allocatable_{unit}", FloatField()) / 100.0
    )
    return Least(Cast(f"{prefix}{resource}_requested_{unit}", FloatField()), used, output_field=FloatField())


def efficiency_of(row: Any) -> Efficiency | None:
    """Return the efficiency of an annotated row."""
    return efficiency(
        cpu_useful=row.cpu_useful,
        cpu=row.cpu_measured,
        memory_useful=row.memory_useful,
        memory=row.memory_measured,
    )
