"""What is inside a cluster: its nodes and its workloads, as tables that are paged by key."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import DecimalField, F, FloatField, Q, QuerySet, Sum, Value
from django.db.models.functions import Cast, Coalesce, NullIf

from clusters.models import Instance, Placement, Workload
from clusters.selectors.guard import ALIVE
from clusters.selectors.measures import ZERO_USD
from clusters.selectors.paging import Page, page_by_key
from spotopt.core.errors import NotFound

PAGE_SIZE = 50
_EXACT = DecimalField(max_digits=20, decimal_places=6)
_ZERO = Value(Decimal(0), output_field=_EXACT)
NODE_SORTS = {
    "name": "node_name",
    "type": "instance_type",
    "price": "usd",
    "cpu": "cpu_share",
    "pods": "pod_count",
    "age": "launched_at",
    "zone": "az",
}
WORKLOAD_SORTS = {
    "name": "key",
    "replicas": "replicas",
    "cpu": "cpu_request_millis",
    "memory": "memory_request_mib",
    "cost": "cost",
}


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node."""

    id: UUID
    name: str
    instance_id: str
    instance_type: str
    lifecycle: str
    az: str
    group: str
    usd_per_hour: Decimal | None
    price_is_estimate: bool
    cpu_millis: int | None
    cpu_asked_millis: int | None
    cpu_util: float | None
    memory_mib: int | None
    memory_asked_mib: int | None
    memory_util: float | None
    pods: int
    launched_at: datetime
    is_ready: bool
    is_cordoned: bool
    state: str


@dataclass(frozen=True, slots=True)
class WorkloadRow:
    """One controller and its pods."""

    namespace: str
    kind: str
    name: str
    replicas: int
    ready: int
    pending: int
    cpu_request_millis: int
    cpu_used_millis: int | None
    memory_request_mib: int
    memory_used_mib: int | None
    usd_per_hour: Decimal
    """Estimate: its share of its nodes' prices, half by CPU and half by memory requested."""
    budget_allows: int | None
    reported_at: datetime


@dataclass(frozen=True, slots=True)
class PlacedPods:
    """How many pods of a workload run on a node."""

    namespace: str
    kind: str
    name: str
    count: int


def node_page(
    cluster_id: UUID, *, sort: str, after: str, search: str = "", lifecycle: str = ""
) -> Page[NodeRow]:
    """Return one page of the cluster's nodes (two queries)."""
    rows = Instance.objects.filter(cluster_id=cluster_id, state__in=ALIVE).select_related("node_group")
    if lifecycle:
        rows = rows.filter(lifecycle=lifecycle)
    if search:
        named = Q(node_name__icontains=search) | Q(instance_id__icontains=search)
        rows = rows.filter(named | Q(instance_type__icontains=search) | Q(az__icontains=search))
    total = rows.count()
    found, sort, cursor = page_by_key(
        rows.annotate(usd=Coalesce("price", ZERO_USD), cpu_share=_cpu_share()),
        sort=sort,
        columns=NODE_SORTS,
        after=after,
        size=PAGE_SIZE,
    )
    return Page(rows=tuple(_node_row(row) for row in found), sort=sort, next_cursor=cursor, total=total)


def node_row(cluster_id: UUID, instance_id: UUID) -> NodeRow:
    """Return one node of the cluster, or raise NotFound."""
    rows = Instance.objects.filter(cluster_id=cluster_id, pk=instance_id).select_related("node_group")
    row = rows.first()
    if row is None:
        raise NotFound("There is no such node.")
    return _node_row(row)


def pods_on(instance_id: UUID) -> list[PlacedPods]:
    """Return what runs on a node, most pods first."""
    rows = Placement.objects.filter(instance_id=instance_id).select_related("workload")
    return [
        PlacedPods(row.workload.namespace, row.workload.kind, row.workload.name, row.count)
        for row in rows.order_by("-count", "workload__key")
    ]


def workload_page(cluster_id: UUID, *, sort: str, after: str, search: str = "") -> Page[WorkloadRow]:
    """Return one page of the cluster's workloads (two queries)."""
    rows = Workload.objects.filter(cluster_id=cluster_id)
    if search:
        rows = rows.filter(Q(key__icontains=search))
    total = rows.count()
    found, sort, cursor = page_by_key(
        _with_cost(rows), sort=sort, columns=WORKLOAD_SORTS, after=after, size=PAGE_SIZE
    )
    return Page(rows=tuple(_workload_row(row) for row in found), sort=sort, next_cursor=cursor, total=total)


def nodes_matching(text: str, *, limit: int) -> list[Instance]:
    """Return living nodes whose name or instance id contains the text."""
    named = Q(node_name__icontains=text) | Q(instance_id__icontains=text)
    rows = Instance.objects.filter(named, state__in=ALIVE, cluster__isnull=False).select_related("cluster")
    return list(rows.order_by("node_name")[:limit])


def _cpu_share() -> Coalesce:
    asked = Cast("cpu_requested_millis", FloatField())
    return Coalesce(asked / NullIf(Cast("cpu_allocatable_millis", FloatField()), Value(0.0)), Value(-1.0))


def _with_cost(rows: QuerySet[Workload]) -> QuerySet[Workload]:
    def share(asked: str, whole: str) -> Any:
        whole_of_node = NullIf(Cast(F(f"placements__instance__{whole}"), _EXACT), _ZERO)
        return Cast(F(asked), _EXACT) * Cast(F("placements__count"), _EXACT) / whole_of_node

    by_cpu = share("cpu_request_millis", "cpu_allocatable_millis")
    by_memory = share("memory_request_mib", "memory_allocatable_mib")
    cost = Sum((by_cpu + by_memory) / Value(Decimal(2)) * F("placements__instance__price"))
    return rows.annotate(cost=Cast(Coalesce(cost, _ZERO, output_field=_EXACT), _EXACT))


def _node_row(row: Instance) -> NodeRow:
    return NodeRow(
        id=row.pk,
        name=row.node_name or row.instance_id,
        instance_id=row.instance_id,
        instance_type=row.instance_type,
        lifecycle=row.lifecycle,
        az=row.az,
        group=row.node_group.name if row.node_group else "",
        usd_per_hour=row.price,
        price_is_estimate=row.price_is_estimate,
        cpu_millis=row.cpu_allocatable_millis,
        cpu_asked_millis=row.cpu_requested_millis,
        cpu_util=row.cpu_util,
        memory_mib=row.memory_allocatable_mib,
        memory_asked_mib=row.memory_requested_mib,
        memory_util=row.memory_util,
        pods=row.pod_count,
        launched_at=row.launched_at,
        is_ready=row.is_ready,
        is_cordoned=row.is_cordoned,
        state=row.state,
    )


def _workload_row(row: Any) -> WorkloadRow:
    return WorkloadRow(
        namespace=row.namespace,
        kind=row.kind,
        name=row.name,
        replicas=row.replicas,
        ready=row.ready_replicas,
        pending=row.pending_replicas,
        cpu_request_millis=row.cpu_request_millis,
        cpu_used_millis=row.cpu_used_millis,
        memory_request_mib=row.memory_request_mib,
        memory_used_mib=row.memory_used_mib,
        usd_per_hour=row.cost,
        budget_allows=row.budget_allows,
        reported_at=row.reported_at,
    )
