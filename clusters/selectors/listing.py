"""The list of clusters: one line each, filtered, sorted and paged in the database."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Avg, Q, QuerySet, Sum

from clusters.domain.contact import Contact, contact
from clusters.domain.efficiency import Efficiency
from clusters.models import Cluster, ClusterSample, SavingsEntry
from clusters.selectors.fleet import binned
from clusters.selectors.measures import SOME_ESTIMATED, efficiency_of, node_measures
from clusters.selectors.paging import Page, page_by_key

PAGE_SIZE = 50
SORTS = {
    "name": "name",
    "cost": "usd_per_hour",
    "nodes": "node_total",
    "spot": "spot_total",
    "pods": "pod_count",
    "region": "region",
}


@dataclass(frozen=True, slots=True)
class ClusterFilter:
    """What the list is narrowed to; empty means all."""

    search: str = ""
    region: str = ""
    environment: str = ""
    agent: str = ""
    """``connected``, ``lost`` or ``never``."""
    account_id: UUID | None = None
    sort: str = "-cost"
    after: str = ""


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster in the list."""

    id: UUID
    name: str
    region: str
    environment: str
    status: str
    k8s_version: str
    contact: Contact
    last_heartbeat_at: datetime | None
    is_paused: bool
    nodes: int
    spot_nodes: int
    pods: int
    pending_pods: int
    usd_per_hour: Decimal
    is_estimate: bool
    efficiency: Efficiency | None
    usd_booked: Decimal
    is_booked_estimated: bool
    trend: tuple[Decimal, ...]
    """Cost of each of the last 24 hours, USD per hour."""


def cluster_page(wanted: ClusterFilter, *, now: datetime) -> Page[ClusterRow]:
    """Return one page of clusters (four queries, whatever its length)."""
    rows = _filtered(wanted, now)
    total = rows.count()
    found, sort, cursor = page_by_key(
        rows.annotate(**node_measures("instances__")),
        sort=wanted.sort,
        columns=SORTS,
        after=wanted.after,
        size=PAGE_SIZE,
    )
    return Page(rows=_rows(found, now), sort=sort, next_cursor=cursor, total=total)


def cluster_regions() -> tuple[str, ...]:
    """Return the regions that have clusters, by name."""
    rows = Cluster.objects.filter(removed_at__isnull=True).values_list("region", flat=True)
    return tuple(rows.distinct().order_by("region"))


def clusters_matching(text: str, *, limit: int) -> list[Cluster]:
    """Return the clusters whose name or region contains the text, by name."""
    rows = Cluster.objects.filter(removed_at__isnull=True)
    return list(rows.filter(Q(name__icontains=text) | Q(region__icontains=text)).order_by("name")[:limit])


def _filtered(wanted: ClusterFilter, now: datetime) -> QuerySet[Cluster]:
    rows = Cluster.objects.filter(removed_at__isnull=True)
    if wanted.account_id:
        rows = rows.filter(account_id=wanted.account_id)
    if wanted.search:
        text = wanted.search
        rows = rows.filter(Q(name__icontains=text) | Q(region__icontains=text) | Q(arn__icontains=text))
    if wanted.region:
        rows = rows.filter(region=wanted.region)
    if wanted.environment:
        rows = rows.filter(environment=wanted.environment)
    return _by_contact(rows, wanted.agent, now)


def _by_contact(rows: QuerySet[Cluster], agent: str, now: datetime) -> QuerySet[Cluster]:
    recent = Q(last_heartbeat_at__gt=now - timedelta(seconds=60))
    if agent == Contact.CONNECTED:
        return rows.filter(recent)
    if agent == Contact.LOST:
        return rows.filter(last_heartbeat_at__isnull=False).exclude(recent)
    return rows.filter(last_heartbeat_at__isnull=True) if agent == Contact.NEVER else rows


def _rows(found: Iterable[Any], now: datetime) -> tuple[ClusterRow, ...]:
    found = list(found)
    keys = [cluster.pk for cluster in found]
    trends, booked = _trends(keys, now), _booked(keys)
    return tuple(
        ClusterRow(
            id=cluster.pk,
            name=cluster.name,
            region=cluster.region,
            environment=cluster.get_environment_display(),
            status=cluster.status,
            k8s_version=cluster.k8s_version,
            contact=contact(cluster.last_heartbeat_at, now),
            last_heartbeat_at=cluster.last_heartbeat_at,
            is_paused=cluster.maintenance_mode,
            nodes=cluster.node_total,
            spot_nodes=cluster.spot_total,
            pods=cluster.pod_count,
            pending_pods=cluster.pending_pods,
            usd_per_hour=cluster.usd_per_hour,
            is_estimate=bool(cluster.estimated_total or cluster.unpriced_total),
            efficiency=efficiency_of(cluster),
            usd_booked=booked.get(cluster.pk, NOTHING)[0],
            is_booked_estimated=booked.get(cluster.pk, NOTHING)[1],
            trend=tuple(trends.get(cluster.pk, ())),
        )
        for cluster in found
    )


def _trends(keys: list[UUID], now: datetime) -> dict[UUID, list[Decimal]]:
    rows = (
        ClusterSample.objects.filter(cluster_id__in=keys, taken_at__gt=now - timedelta(days=1))
        .annotate(bin=binned(timedelta(hours=1), "taken_at"))
        .values("cluster_id", "bin")
        .annotate(usd=Avg("usd_per_hour"))
        .order_by("bin")
    )
    trends: dict[UUID, list[Decimal]] = defaultdict(list)
    for row in rows:
        trends[row["cluster_id"]].append(row["usd"])
    return trends


NOTHING = (Decimal(0), False)


def _booked(keys: list[UUID]) -> dict[UUID, tuple[Decimal, bool]]:
    """Return what is booked for each cluster in USD, and whether some of it is at estimated prices."""
    entries = SavingsEntry.objects.filter(cluster_id__in=keys).values_list("cluster_id")
    sums = entries.annotate(sum=Sum("usd"), is_estimated=SOME_ESTIMATED)
    return {key: (usd, is_estimated) for key, usd, is_estimated in sums}
