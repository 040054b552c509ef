"""The numbers of the dashboard's API; what nobody measured is None, never zero."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Avg, Count, Max, Min, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from clusters.domain.efficiency import Efficiency, efficiency
from clusters.models import ClusterSample, Instance, SavingsEntry
from clusters.selectors.fleet import binned
from clusters.selectors.guard import ALIVE
from clusters.selectors.measures import SOME_ESTIMATED, ZERO_USD, node_measures

LARGEST_FAMILIES = 8
BOOKED_OVER = timedelta(days=30)
POINTS = 120
"""Aim for this many points in a series."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of the organization is meant: all of it, one AWS account, or one cluster."""

    account_id: UUID | None = None
    cluster_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Spending:
    """What runs now and what it costs, USD per hour at the prices last observed."""

    usd_per_hour: Decimal
    is_estimated: bool
    """Some price is an estimate or unknown."""
    booked_usd: Decimal
    """Ledger of the trailing 30 days, USD."""
    nodes: int
    spot_nodes: int
    efficiency: Efficiency | None
    cpu_percent: float | None
    memory_percent: float | None
    as_of: datetime | None
    """When the newest of the counted nodes was last seen."""


@dataclass(frozen=True, slots=True)
class Savings:
    """What the ledger booked, USD, and the period it covers; None before the first entry."""

    booked_usd: Decimal
    booked_since: datetime | None
    booked_until: datetime | None
    is_estimated: bool
    """Some of it was booked at estimated prices."""


@dataclass(frozen=True, slots=True)
class SpotPool:
    """Spot nodes of one pool that run now."""

    region: str
    zone_id: str
    instance_type: str
    nodes: int


@dataclass(frozen=True, slots=True)
class Composition:
    """Shares of the running nodes in percent; each map sums to 100, or is empty without nodes."""

    by_family: dict[str, float]
    by_lifecycle: dict[str, float]
    by_region: dict[str, float]
    nodes: int
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Point:
    """A mean over one bin of time."""

    at: datetime
    usd_per_hour: Decimal
    nodes: float
    cpu_percent: float | None


def spending(scope: Scope, *, now: datetime) -> Spending:
    """Return what runs and what it costs (two queries)."""
    row: dict[str, Any] = _nodes(scope).aggregate(
        **node_measures(), cpu=Avg("cpu_util"), memory=Avg("memory_util")
    )
    entries = _narrowed(SavingsEntry.objects.filter(hour__gt=now - BOOKED_OVER), scope)
    booked = entries.aggregate(usd=Coalesce(Sum("usd"), ZERO_USD), is_estimated=SOME_ESTIMATED)
    return Spending(
        usd_per_hour=row["usd_per_hour"],
        is_estimated=bool(row["estimated_total"] or row["unpriced_total"] or booked["is_estimated"]),
        booked_usd=booked["usd"],
        nodes=row["node_total"],
        spot_nodes=row["spot_total"],
        efficiency=efficiency(
            cpu_useful=row["cpu_useful"],
            cpu=row["cpu_measured"],
            memory_useful=row["memory_useful"],
            memory=row["memory_measured"],
        ),
        cpu_percent=row["cpu"],
        memory_percent=row["memory"],
        as_of=row["seen_at"],
    )


def savings(scope: Scope) -> Savings:
    """Return everything the ledger ever booked (one query)."""
    sums = _narrowed(SavingsEntry.objects.all(), scope).aggregate(
        usd=Coalesce(Sum("usd"), ZERO_USD),
        since=Min("booked_from"),
        until=Max("booked_until"),
        is_estimated=SOME_ESTIMATED,
    )
    return Savings(sums["usd"], sums["since"], sums["until"], sums["is_estimated"])


def spot_pools(scope: Scope) -> list[SpotPool]:
    """Return the pools that the running spot nodes come from (one query)."""
    rows = _nodes(scope).filter(lifecycle=Instance.Lifecycle.SPOT)
    pools = rows.values_list("region", "az_id", "instance_type").annotate(nodes=Count("pk")).order_by()
    return [SpotPool(*pool) for pool in pools]


def composition(scope: Scope) -> Composition:
    """Return the fleet by family, lifecycle and region; beyond eight families the rest is ``other``."""
    families, lifecycles, regions = Counter[str](), Counter[str](), Counter[str]()
    rows = _nodes(scope).values_list("instance_type", "lifecycle", "region").annotate(Count("pk")).order_by()
    for instance_type, lifecycle, region, count in rows:
        families[instance_type.partition(".")[0]] += count
        lifecycles[lifecycle] += count
        regions[region] += count
    largest = Counter(dict(families.most_common(LARGEST_FAMILIES)))
    if rest := families.total() - largest.total():
        largest["other"] = rest
    newest = _nodes(scope).order_by("-last_seen_at").values_list("last_seen_at", flat=True)
    return Composition(
        by_family=percentages(largest),
        by_lifecycle=percentages(lifecycles),
        by_region=percentages(regions),
        nodes=families.total(),
        as_of=newest.exclude(last_seen_at=None).first(),
    )


def timeseries(scope: Scope, *, start: datetime, end: datetime) -> list[Point]:
    """Return the mean cost, size and CPU use of each bin, summed over clusters; empty bins are absent."""
    width = max(timedelta(minutes=5), (end - start) / POINTS)
    samples = _narrowed(ClusterSample.objects.filter(taken_at__gte=start, taken_at__lt=end), scope)
    measured = Q(cpu_used_millis__isnull=False)
    rows = (
        samples.annotate(bin=binned(width, "taken_at"))
        .values("bin", "cluster_id")
        .annotate(
            usd=Avg("usd_per_hour"),
            size=Avg("nodes"),
            used=Avg("cpu_used_millis", filter=measured),
            capacity=Avg("cpu_capacity_millis", filter=measured),
        )
        .order_by("bin")
    )
    bins: dict[datetime, list[dict[str, Any]]] = {}
    for row in rows:
        bins.setdefault(row["bin"], []).append(row)
    return [_point(at, parts) for at, parts in bins.items()]


def percentages(counts: Counter[str]) -> dict[str, float]:
    """Return shares with one decimal, largest first, that sum to exactly 100; empty for no counts."""
    total = counts.total()
    if not total:
        return {}
    exact = [(name, count * 1000 / total) for name, count in counts.most_common()]
    tenths = {name: int(share) for name, share in exact}
    missing = 1000 - sum(tenths.values())
    for name, _ in sorted(exact, key=lambda item: int(item[1]) - item[1])[:missing]:
        tenths[name] += 1
    return {name: share / 10 for name, share in tenths.items()}


def _point(at: datetime, parts: Sequence[dict[str, Any]]) -> Point:
    measured = [part for part in parts if part["capacity"]]
    capacity = sum(part["capacity"] for part in measured)
    return Point(
        at=at,
        usd_per_hour=sum((part["usd"] for part in parts), Decimal(0)),
        nodes=sum(part["size"] for part in parts),
        cpu_percent=100 * sum(part["used"] for part in measured) / capacity if capacity else None,
    )


def _nodes(scope: Scope) -> QuerySet[Instance]:
    rows = Instance.objects.filter(state__in=ALIVE)
    if scope.cluster_id is not None:
        rows = rows.filter(cluster_id=scope.cluster_id)
    return rows if scope.account_id is None else rows.filter(account_id=scope.account_id)


def _narrowed(rows: QuerySet[Any], scope: Scope) -> QuerySet[Any]:
    if scope.cluster_id is not None:
        rows = rows.filter(cluster_id=scope.cluster_id)
    return rows if scope.account_id is None else rows.filter(cluster__account_id=scope.account_id)
