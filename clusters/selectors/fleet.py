"""The whole fleet in a few numbers: cost, spot share, efficiency, composition, booked savings."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db.models import Avg, Count, DateTimeField, F, Func, Max, Min, Q, QuerySet, Sum, Value
from django.db.models.functions import Coalesce, TruncDay

from clusters.domain.efficiency import Efficiency, efficiency
from clusters.models import Cluster, ClusterSample, Instance, Price, SavingsEntry
from clusters.selectors.guard import ALIVE
from clusters.selectors.measures import SOME_ESTIMATED, ZERO_USD, node_measures

LARGEST_FAMILIES = 5
_BOOKED_DAYS = 14


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that runs now; prices as last observed."""

    usd_per_hour: Decimal
    spot_usd_per_hour: Decimal
    nodes: int
    spot_nodes: int
    estimated: int
    """Nodes whose price is an estimate."""
    unpriced: int
    """Nodes without any price; they are missing from the sum."""
    efficiency: Efficiency | None
    seen_at: datetime | None
    priced_at: datetime | None

    @property
    def on_demand_nodes(self) -> int:
        """Return the nodes that are not spot."""
        return self.nodes - self.spot_nodes


@dataclass(frozen=True, slots=True)
class FamilyShare:
    """One instance family's part of the fleet."""

    name: str
    nodes: int
    usd_per_hour: Decimal
    spot_usd_per_hour: Decimal


@dataclass(frozen=True, slots=True)
class Booked:
    """Savings in the ledger, USD; measured node-hours at recorded prices."""

    total: Decimal
    this_month: Decimal
    today: Decimal
    """Since midnight, UTC."""
    booked_until: datetime | None
    by_day: tuple[Decimal, ...]
    is_estimated: bool = False
    """Some of it was booked at estimated prices."""


@dataclass(frozen=True, slots=True)
class CostPoint:
    """The fleet's cost at one moment."""

    at: datetime
    usd_per_hour: Decimal


class History(StrEnum):
    """How far back a chart of cost looks."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"


_HISTORY = {
    History.DAY: (timedelta(days=1), timedelta(minutes=30)),
    History.WEEK: (timedelta(days=7), timedelta(hours=3)),
    History.MONTH: (timedelta(days=30), timedelta(hours=12)),
}


class _DateBin(Func):
    function = "date_bin"
    output_field = DateTimeField()


def binned(width: timedelta, column: str) -> Func:
    """Return the start of the ``width``-long bin that the instant in ``column`` falls into."""
    return _DateBin(Value(width), F(column), Value(datetime(2000, 1, 1, tzinfo=UTC)))


def fleet(account_id: UUID | None = None) -> Fleet:
    """Return the fleet of the organization, or of one of its AWS accounts (two queries)."""
    row: dict[str, Any] = _instances(account_id).aggregate(**node_measures())
    priced_at = Price.objects.aggregate(newest=Max("observed_at"))["newest"]
    return Fleet(
        usd_per_hour=row["usd_per_hour"],
        spot_usd_per_hour=row["spot_usd_per_hour"],
        nodes=row["node_total"],
        spot_nodes=row["spot_total"],
        estimated=row["estimated_total"],
        unpriced=row["unpriced_total"],
        efficiency=efficiency(
            cpu_useful=row["cpu_useful"],
            cpu=row["cpu_measured"],
            memory_useful=row["memory_useful"],
            memory=row["memory_measured"],
        ),
        seen_at=row["seen_at"],
        priced_at=priced_at,
    )


def composition(account_id: UUID | None = None) -> tuple[FamilyShare, ...]:
    """Return the dearest families first; beyond five they are summed as ``other``."""
    spot = Q(lifecycle=Instance.Lifecycle.SPOT)
    rows = (
        _instances(account_id)
        .values("instance_type")
        .annotate(
            nodes=Count("pk"),
            usd=Coalesce(Sum("price"), ZERO_USD),
            spot_usd=Coalesce(Sum("price", filter=spot), ZERO_USD),
        )
    )
    families: dict[str, list[FamilyShare]] = defaultdict(list)
    for row in rows:
        name = row["instance_type"].partition(".")[0]
        families[name].append(FamilyShare(name, row["nodes"], row["usd"], row["spot_usd"]))
    shares = sorted((_merged(name, parts) for name, parts in families.items()), key=lambda s: -s.usd_per_hour)
    if len(shares) <= LARGEST_FAMILIES + 1:
        return tuple(shares)
    return (*shares[:LARGEST_FAMILIES], _merged("other", shares[LARGEST_FAMILIES:]))


def booked(account_id: UUID | None = None, *, now: datetime) -> Booked:
    """Return what the ledger holds (two queries)."""
    entries = SavingsEntry.objects.all()
    if account_id is not None:
        entries = entries.filter(cluster__account_id=account_id)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    sums = entries.aggregate(
        total=Coalesce(Sum("usd"), ZERO_USD),
        this_month=Coalesce(Sum("usd", filter=Q(hour__gte=today.replace(day=1))), ZERO_USD),
        today=Coalesce(Sum("usd", filter=Q(hour__gte=today)), ZERO_USD),
        until=Max("booked_until"),
        is_estimated=SOME_ESTIMATED,
    )
    days = (
        entries.filter(hour__gte=now - timedelta(days=_BOOKED_DAYS))
        .annotate(day=TruncDay("hour"))
        .values("day")
        .annotate(usd=Sum("usd"))
        .order_by("day")
    )
    return Booked(
        total=sums["total"],
        this_month=sums["this_month"],
        today=sums["today"],
        booked_until=sums["until"],
        by_day=tuple(day["usd"] for day in days),
        is_estimated=sums["is_estimated"],
    )


def cost_history(
    history: History, *, now: datetime, account_id: UUID | None = None, cluster_id: UUID | None = None
) -> tuple[CostPoint, ...]:
    """Return the mean cost of each bin, summed over clusters; bins without samples are absent."""
    reach, width = _HISTORY[history]
    clusters = Cluster.objects.all()
    if cluster_id is not None:
        clusters = clusters.filter(pk=cluster_id)
    elif account_id is not None:
        clusters = clusters.filter(account_id=account_id)
    rows = (
        ClusterSample.objects.filter(cluster__in=clusters, taken_at__gt=now - reach)
        .annotate(bin=binned(width, "taken_at"))
        .values("bin", "cluster_id")
        .annotate(usd=Avg("usd_per_hour"))
        .order_by("bin")
        .values_list("bin", "usd")
    )
    totals: dict[datetime, Decimal] = defaultdict(Decimal)
    for at, usd in rows:
        totals[at] += usd
    return tuple(CostPoint(at=at, usd_per_hour=usd) for at, usd in totals.items())


def oldest_report(account_id: UUID | None = None) -> datetime | None:
    """Return when the least recently heard connected cluster last reported."""
    clusters = Cluster.objects.filter(removed_at__isnull=True, snapshot_at__isnull=False)
    if account_id is not None:
        clusters = clusters.filter(account_id=account_id)
    oldest: datetime | None = clusters.aggregate(oldest=Min("snapshot_at"))["oldest"]
    return oldest


def _instances(account_id: UUID | None) -> QuerySet[Instance]:
    rows = Instance.objects.filter(state__in=ALIVE)
    return rows if account_id is None else rows.filter(account_id=account_id)


def _merged(name: str, parts: Iterable[FamilyShare]) -> FamilyShare:
    parts = list(parts)
    return FamilyShare(
        name=name,
        nodes=sum(part.nodes for part in parts),
        usd_per_hour=sum((part.usd_per_hour for part in parts), Decimal(0)),
        spot_usd_per_hour=sum((part.spot_usd_per_hour for part in parts), Decimal(0)),
    )
