"""One cluster: the head that all its tabs share, and its overview."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Case, Count, Exists, F, IntegerField, OuterRef, Q, Sum, Value, When
from django.db.models.functions import Coalesce

from clusters.domain.contact import Contact, contact, is_stale
from clusters.domain.efficiency import Efficiency
from clusters.models import Action, Cluster, ClusterEvent, Instance, NodeGroup, SavingsEntry
from clusters.selectors.guard import ALIVE
from clusters.selectors.measures import SOME_ESTIMATED, ZERO_USD, efficiency_of, node_measures
from spotopt.core.errors import NotFound

LARGEST_GRID = 300
"""Nodes drawn one by one; beyond, the grid would not be read."""


@dataclass(frozen=True, slots=True)
class ClusterHead:
    """What stands above every tab of a cluster."""

    id: UUID
    name: str
    region: str
    environment: str
    k8s_version: str
    account_alias: str
    arn: str
    contact: Contact
    last_heartbeat_at: datetime | None
    agent_version: str
    snapshot_at: datetime | None
    last_synced_at: datetime | None
    is_stale: bool
    is_paused: bool
    pause_reason: str
    pods: int
    pending_pods: int
    usd_per_hour: Decimal
    spot_usd_per_hour: Decimal
    nodes: int
    spot_nodes: int
    estimated: int
    unpriced: int
    efficiency: Efficiency | None
    cpu_millis: int | None
    cpu_asked_millis: int | None
    memory_mib: int | None
    memory_asked_mib: int | None
    usd_booked: Decimal
    is_booked_estimated: bool
    """Some of it was booked at estimated prices."""
    karpenter: str
    """Whether Karpenter runs, as ``Cluster.Karpenter`` has it."""


@dataclass(frozen=True, slots=True)
class GridNode:
    """One square of the node grid."""

    id: UUID
    name: str
    instance_type: str
    az: str
    lifecycle: str
    size: str
    """``s``, ``m``, ``l`` or ``xl`` by allocatable CPU."""
    cpu_percent: float
    """Requested CPU over allocatable, 0 to 100."""
    is_off: bool
    """Not ready, or cordoned."""

    @property
    def height(self) -> int:
        """Return how high its square of 94 units is filled."""
        return round(0.94 * self.cpu_percent)

    @property
    def y(self) -> int:
        """Return where the filled part begins, from the top."""
        return 97 - self.height


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One node group and what runs in it."""

    id: UUID
    name: str
    kind: str
    minimum: int
    desired: int
    maximum: int
    lowered_from: int | None
    keeps_minimum: bool
    is_restoring: bool
    nodes: int
    spot_nodes: int
    usd_per_hour: Decimal


def cluster_head(cluster_id: UUID, *, now: datetime) -> ClusterHead:
    """Return the head of one cluster (two queries), or raise NotFound."""
    rows = Cluster.objects.filter(pk=cluster_id, removed_at__isnull=True).select_related("account")
    row: Any = rows.annotate(**node_measures("instances__")).first()
    if row is None:
        raise NotFound("There is no such cluster.")
    booked = SavingsEntry.objects.filter(cluster_id=cluster_id).aggregate(
        usd=Coalesce(Sum("usd"), ZERO_USD), is_estimated=SOME_ESTIMATED
    )
    return ClusterHead(
        id=row.pk,
        name=row.name,
        region=row.region,
        environment=row.get_environment_display(),
        k8s_version=row.k8s_version,
        account_alias=row.account.alias,
        arn=row.arn,
        contact=contact(row.last_heartbeat_at, now),
        last_heartbeat_at=row.last_heartbeat_at,
        agent_version=row.agent_version,
        snapshot_at=row.snapshot_at,
        last_synced_at=row.last_synced_at,
        is_stale=is_stale(row.snapshot_at, now),
        is_paused=row.maintenance_mode,
        pause_reason=row.maintenance_reason,
        pods=row.pod_count,
        pending_pods=row.pending_pods,
        usd_per_hour=row.usd_per_hour,
        spot_usd_per_hour=row.spot_usd_per_hour,
        nodes=row.node_total,
        spot_nodes=row.spot_total,
        estimated=row.estimated_total,
        unpriced=row.unpriced_total,
        efficiency=efficiency_of(row),
        cpu_millis=row.cpu_total,
        cpu_asked_millis=row.cpu_asked,
        memory_mib=row.memory_total,
        memory_asked_mib=row.memory_asked,
        usd_booked=booked["usd"],
        is_booked_estimated=booked["is_estimated"],
        karpenter=row.karpenter,
    )


def node_grid(cluster_id: UUID) -> tuple[GridNode, ...]:
    """Return the cluster's largest nodes first, at most ``LARGEST_GRID`` (one query)."""
    size = Coalesce("cpu_allocatable_millis", Value(0))
    rows = (
        Instance.objects.filter(cluster_id=cluster_id, state__in=ALIVE)
        .annotate(cpu=size)
        .annotate(order=Case(When(lifecycle="on_demand", then=0), default=1, output_field=IntegerField()))
        .order_by("-cpu", "order", "instance_type", "node_name")[:LARGEST_GRID]
    )
    return tuple(
        GridNode(
            id=row.pk,
            name=row.node_name or row.instance_id,
            instance_type=row.instance_type,
            az=row.az,
            lifecycle=row.lifecycle,
            size=_size(row.cpu_allocatable_millis),
            cpu_percent=_share(row.cpu_requested_millis, row.cpu_allocatable_millis),
            is_off=not row.is_ready or row.is_cordoned,
        )
        for row in rows
    )


def node_groups(cluster_id: UUID) -> tuple[GroupRow, ...]:
    """Return the groups by name (one query)."""
    alive = Q(instances__state__in=ALIVE)
    restoring = Action.objects.filter(
        cluster_id=cluster_id,
        kind=Action.Kind.RESTORE_MINIMUM,
        target=OuterRef("name"),
        status__in=[Action.Status.PENDING, Action.Status.RUNNING],
    )
    rows = (
        NodeGroup.objects.filter(cluster_id=cluster_id)
        .annotate(
            node_total=Count("instances", filter=alive),
            spot_total=Count("instances", filter=alive & Q(instances__lifecycle="spot")),
            usd=Coalesce(Sum("instances__price", filter=alive), ZERO_USD),
            is_restoring=Exists(restoring),
        )
        .order_by("name")
    )
    return tuple(
        GroupRow(
            id=row.pk,
            name=row.name,
            kind=row.get_kind_display(),
            minimum=row.min_size,
            desired=row.desired_capacity,
            maximum=row.max_size,
            lowered_from=row.original_min_size,
            keeps_minimum=row.keeps_minimum,
            is_restoring=row.is_restoring,
            nodes=row.node_total,
            spot_nodes=row.spot_total,
            usd_per_hour=row.usd,
        )
        for row in rows
    )


def recent_events(cluster_id: UUID, *, limit: int = 8) -> list[ClusterEvent]:
    """Return what happened last in the cluster, newest first."""
    return list(ClusterEvent.objects.filter(cluster_id=cluster_id).order_by("-occurred_at")[:limit])


def recent_actions(cluster_id: UUID, *, limit: int = 100) -> list[Action]:
    """Return the cluster's actions, open ones first, then the newest."""
    is_open = Case(When(status__in=["pending", "running"], then=0), default=1, output_field=IntegerField())
    rows = Action.objects.filter(cluster_id=cluster_id).annotate(closed=is_open)
    return list(rows.order_by("closed", F("created_at").desc())[:limit])


def _size(cpu_millis: int | None) -> str:
    steps = ((2_000, "s"), (8_000, "m"), (16_000, "l"))
    if cpu_millis is None:
        return "m"
    return next((name for ceiling, name in steps if cpu_millis <= ceiling), "xl")


def _share(part: int | None, whole: int | None) -> float:
    return min(100.0, 100 * part / whole) if part is not None and whole else 0.0
