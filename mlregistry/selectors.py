"""Read what is known about pools, models and experiments."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Count, Exists, Max, OuterRef, Q, QuerySet
from django.db.models.functions import Concat

from clusters.models import Interruption, InterruptionRate, PoolState, Price
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


AGREEING_ORGANIZATIONS = 2
MOST_UNVERIFIED = 20
"""Pools of which one organization's unverified notices may count as a voice, within the half hour."""


@dataclass(frozen=True, slots=True)
class PoolTaken:
    """A spot pool from which AWS took nodes."""

    region: str
    zone_id: str
    instance_type: str
    last_at: datetime


def pools_taken_from(since: datetime) -> list[PoolTaken]:
    """Return the pools whose interruptions since then AWS confirmed, or two organizations noticed alike.

    Reads all organizations and says nothing of any: an organization that names too many pools has no voice.
    """
    rows = Interruption.unscoped.filter(
        kind=Interruption.Kind.INTERRUPTION, noticed_at__gt=since, noticed_at__lte=utcnow()
    ).exclude(zone_id="")
    rows = rows.exclude(status=Interruption.Status.FALSE_ALARM)
    hearsay = rows.filter(is_verified=False).values("organization_id")
    loud = hearsay.annotate(pools=Count(Concat("zone_id", "instance_type"), distinct=True)).filter(
        pools__gt=MOST_UNVERIFIED
    )
    voices = rows.filter(Q(is_verified=True) | ~Q(organization_id__in=loud.values("organization_id")))
    agreed = voices.values("region", "zone_id", "instance_type").annotate(
        last_at=Max("noticed_at"),
        confirmed=Count("pk", filter=Q(is_verified=True)),
        organizations=Count("organization_id", distinct=True),
    )
    agreed = agreed.filter(Q(confirmed__gt=0) | Q(organizations__gte=AGREEING_ORGANIZATIONS))
    return [PoolTaken(row["region"], row["zone_id"], row["instance_type"], row["last_at"]) for row in agreed]


def models() -> QuerySet[MLModel]:
    """Return the registered models with how many experiments each has, newest first."""
    return MLModel.objects.annotate(tests=Count("experiments")).order_by("-created_at", "pk")


def experiments() -> QuerySet[LabExperiment]:
    """Return the experiments with their models, newest first."""
    return LabExperiment.objects.select_related("model").order_by("-created_at", "pk")
