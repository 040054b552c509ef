"""The dashboard's numbers that need interruption risk or plans."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Count, Min, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from clusters.domain.health import fleet_health
from clusters.models import Cluster
from clusters.selectors.measures import ZERO_USD
from clusters.selectors.metrics import Point, Scope, Spending, SpotPool, spending, spot_pools, timeseries
from mlregistry.services import interruption_risks
from policies.models import Plan


@dataclass(frozen=True, slots=True)
class Kpi:
    """The cards above the dashboard."""

    spending: Spending
    fleet_health: float | None
    """0 to 100; None while utilisation is unmeasured."""
    spot_risk: float | None
    """Mean probability that a spot node is interrupted within a day; None without spot nodes."""


@dataclass(frozen=True, slots=True)
class Potential:
    """What waits for approval, USD per hour; a forecast at the prices of ``as_of``."""

    spot_replacement: Decimal
    bin_packing: Decimal
    clusters_planned: int
    clusters_total: int
    as_of: datetime | None

    @property
    def total(self) -> Decimal:
        """Return the sum of the parts."""
        return self.spot_replacement + self.bin_packing


@dataclass(frozen=True, slots=True)
class Projection:
    """What is spent, what could be saved, and how spending went."""

    usd_per_hour: Decimal
    potential: Potential
    timeline: tuple[Point, ...]


def kpi(scope: Scope, *, now: datetime) -> Kpi:
    """Return the cards (three queries, and two for each region with spot nodes)."""
    spent = spending(scope, now=now)
    risk = _mean_risk(spot_pools(scope))
    health = fleet_health(
        spot_risk=risk or 0.0, cpu_percent=spent.cpu_percent, memory_percent=spent.memory_percent
    )
    return Kpi(spent, health, risk)


def projection(scope: Scope, *, since: datetime, now: datetime) -> Projection:
    """Return the forecast of the newest proposals beside what is spent now and was spent since."""
    return Projection(
        usd_per_hour=spending(scope, now=now).usd_per_hour,
        potential=potential(scope),
        timeline=tuple(timeseries(scope, start=since, end=now + timedelta(seconds=1))),
    )


def potential(scope: Scope) -> Potential:
    """Return the sum of the proposals; a cluster has at most one (two queries)."""
    rows = Plan.objects.filter(status=Plan.Status.PROPOSED, cluster__in=_clusters(scope))
    sums = rows.aggregate(
        spot=Coalesce(Sum("spot_replacement_usd_per_hour"), ZERO_USD),
        packing=Coalesce(Sum("bin_packing_usd_per_hour"), ZERO_USD),
        as_of=Min("quoted_at"),
    )
    counted = _clusters(scope).aggregate(
        total=Count("pk", distinct=True), planned=Count("pk", distinct=True, filter=Q(plans__isnull=False))
    )
    return Potential(sums["spot"], sums["packing"], counted["planned"], counted["total"], sums["as_of"])


def _mean_risk(pools: list[SpotPool]) -> float | None:
    by_region: dict[str, list[SpotPool]] = defaultdict(list)
    for pool in pools:
        by_region[pool.region].append(pool)
    total = 0.0
    for region, members in by_region.items():
        risks = interruption_risks(
            region=region, pools=[(pool.zone_id, pool.instance_type) for pool in members]
        )
        total += sum(risks[pool.zone_id, pool.instance_type] * pool.nodes for pool in members)
    nodes = sum(pool.nodes for pool in pools)
    return total / nodes if nodes else None


def _clusters(scope: Scope) -> QuerySet[Cluster]:
    rows = Cluster.objects.filter(removed_at=None)
    if scope.cluster_id is not None:
        rows = rows.filter(pk=scope.cluster_id)
    return rows if scope.account_id is None else rows.filter(account_id=scope.account_id)
