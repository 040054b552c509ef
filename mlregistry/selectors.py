"""Read what is known about pools, models and experiments."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import Count, Exists, OuterRef, QuerySet

from clusters.models import InterruptionRate, PoolState, Price
from mlregistry.models import LabExperiment, MLModel
from spotopt.core.clock import utcnow


def buckets(region: str, instance_types: Iterable[str]) -> dict[str, int]:
    """Return the Spot Advisor's bucket of each type that it knows in the region, for Linux."""
    rows = InterruptionRate.objects.filter(region=region, os="Linux", instance_type__in=instance_types)
    return dict(rows.values_list("instance_type", "bucket"))


@dataclass(frozen=True, slots=True)
class PoolSigns:
    """What speaks for or against a spot pool today."""

    low: Decimal | None
    high: Decimal | None
    """Lowest and highest price of the last day, USD per hour."""
    is_flagged: bool
    """AWS took a node of it back within the last half hour."""


def pool_signs(region: str, zone_ids: Iterable[str]) -> dict[tuple[str, str], PoolSigns]:
    """Return the signs of each priced spot pool of the zones, by (zone id, instance type)."""
    flagged = PoolState.objects.filter(
        zone_id=OuterRef("zone_id"),
        instance_type=OuterRef("instance_type"),
        capacity_type="spot",
        flagged_until__gt=utcnow(),
    )
    rows = Price.objects.filter(region=region, zone_id__in=zone_ids, capacity_type="spot").values_list(
        "zone_id", "instance_type", "low_usd_per_hour", "high_usd_per_hour", Exists(flagged)
    )
    return {(zone, kind): PoolSigns(low, high, is_flagged) for zone, kind, low, high, is_flagged in rows}


def models() -> QuerySet[MLModel]:
    """Return the registered models with how many experiments each has, newest first."""
    return MLModel.objects.annotate(tests=Count("experiments")).order_by("-created_at", "pk")


def experiments() -> QuerySet[LabExperiment]:
    """Return the experiments with their models, newest first."""
    return LabExperiment.objects.select_related("model").order_by("-created_at", "pk")
