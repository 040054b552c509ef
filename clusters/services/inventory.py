"""Keep what runs in a cluster as its agent reports it: nodes, workloads and where their pods are."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Model

from clusters.domain.reports import Applied, InventoryReport, KarpenterState, NodeState, WorkloadState
from clusters.models import Cluster, DiscoveryRun, Instance, NodePool, Placement, Workload
from spotopt.core.clock import utcnow
from spotopt.core.errors import InvalidInput, NotFound
from spotopt.core.live import announce
from spotopt.core.queue import enqueue

SCAN_PAUSE = timedelta(seconds=30)
"""Unknown nodes ask for a scan at most this often."""

_NODE_FIELDS = (
    "cluster", "node_name", "is_ready", "is_cordoned", "cpu_allocatable_millis", "memory_allocatable_mib",
    "pods_allocatable", "cpu_requested_millis", "memory_requested_mib", "pod_count", "daemon_cpu_millis",
    "daemon_memory_mib", "daemon_pods", "gpu_allocatable", "ephemeral_allocatable_mib",
    "daemon_ephemeral_mib", "cpu_util", "memory_util", "labels", "taints", "node_seen_at", "updated_at",
)  # fmt: skip
_COPIED_NODE_FIELDS = (
    "is_ready", "is_cordoned", "cpu_allocatable_millis", "memory_allocatable_mib", "pods_allocatable",
    "cpu_requested_millis", "memory_requested_mib", "pod_count", "daemon_cpu_millis", "daemon_memory_mib",
    "daemon_pods", "gpu_allocatable", "ephemeral_allocatable_mib", "daemon_ephemeral_mib",
)  # fmt: skip
_WORKLOAD_FIELDS = (
    "replicas", "ready_replicas", "pending_replicas", "cpu_request_millis", "memory_request_mib",
    "gpu_request", "ephemeral_request_mib", "cpu_used_millis", "memory_used_mib", "budget_count",
    "budget_allows", "budget_minimum", "constraints",
)  # fmt: skip
_POOL_FIELDS = ("spec", "is_ours", "steers", "used", "managers", "reported_at", "updated_at")
_GONE = {"node_name": "", "is_ready": False, "is_cordoned": False, "pod_count": 0, "cpu_requested_millis": 0,
         "memory_requested_mib": 0, "cpu_util": None, "memory_util": None}  # fmt: skip
_BATCH = 2000


@transaction.atomic
def apply_report(*, cluster_id: UUID, report: InventoryReport) -> Applied:
    """Store a report and return where the inventory stands; a delta on another base changes nothing.

    The same report twice is stored once. Nodes that no instance is yet are left out and named in the answer.
    """
    cluster = _locked(cluster_id)
    if report.sequence == cluster.snapshot_sequence:
        return Applied(report.sequence, unknown_nodes=frozenset(cluster.unknown_nodes))
    if report.base is not None and report.base != cluster.snapshot_sequence:
        return Applied(cluster.snapshot_sequence, needs_resync=True)
    now = utcnow()
    unknown = _store_nodes(cluster, report, now)
    ids = _store_workloads(cluster, report, now)
    unknown |= _store_placements(cluster, report, ids)
    if report.karpenter is not None or (report.is_full and cluster.karpenter):
        _store_karpenter(cluster, report.karpenter or KarpenterState(Cluster.Karpenter.UNKNOWN), now)
    _store_counters(cluster, report, unknown, now)
    announce(organization_id=cluster.organization_id, topic="cluster", cluster_id=str(cluster.pk))
    return Applied(report.sequence, unknown_nodes=frozenset(unknown))


def record_heartbeat(*, cluster_id: UUID, agent_version: str) -> None:
    """Remember that the cluster's agent lives."""
    Cluster.objects.filter(pk=cluster_id).update(last_heartbeat_at=utcnow(), agent_version=agent_version[:40])


def _locked(cluster_id: UUID) -> Cluster:
    cluster = Cluster.objects.select_for_update(of=("self",), no_key=True).filter(pk=cluster_id).first()
    if cluster is None:
        raise NotFound("There is no such cluster.")
    return cluster


def _store_nodes(cluster: Cluster, report: InventoryReport, now: datetime) -> set[str]:
    """Write the reported nodes onto their instances; return the names of those that have none."""
    states = {state.instance_id: state for state in report.nodes if state.instance_id}
    rows = list(Instance.objects.filter(instance_id__in=states, account_id=cluster.account_id))
    rows = [row for row in rows if row.cluster_id in (None, cluster.pk)]
    for row in rows:
        _describe(row, cluster, states[row.instance_id], now)
    _upsert(Instance, rows, ["id"], _NODE_FIELDS)
    gone = (
        Instance.objects.filter(cluster_id=cluster.pk).exclude(node_name="").exclude(instance_id__in=states)
    )
    if not report.is_full:  # a name may also have passed to another instance
        gone = gone.filter(node_name__in={state.name for state in report.nodes} | report.removed_nodes)
    gone.update(**_GONE, updated_at=now)
    found = {row.instance_id for row in rows}
    return {state.name for state in report.nodes if state.instance_id not in found}


def _describe(row: Instance, cluster: Cluster, state: NodeState, now: datetime) -> None:
    for name in _COPIED_NODE_FIELDS:
        setattr(row, name, getattr(state, name))
    row.cluster, row.node_name = cluster, state.name
    row.labels, row.taints = dict(state.labels), [dict(taint) for taint in state.taints]
    row.cpu_util = _percent(state.cpu_used_millis, state.cpu_allocatable_millis)
    row.memory_util = _percent(state.memory_used_mib, state.memory_allocatable_mib)
    row.node_seen_at = row.updated_at = now


def _percent(part: int | None, whole: int) -> float | None:
    return None if part is None or whole == 0 else round(100 * part / whole, 2)


def _store_workloads(cluster: Cluster, report: InventoryReport, now: datetime) -> dict[str, UUID]:
    """Write the reported workloads and drop those that went; return row ids by key, placed ones included."""
    keys = {state.key for state in report.workloads}
    rows = Workload.objects.filter(cluster_id=cluster.pk)
    if report.is_full:
        rows.exclude(key__in=keys).delete()
    elif report.removed_workloads:
        rows.filter(key__in=report.removed_workloads).delete()
    wanted = keys | report.placements.keys()
    ids: dict[str, UUID] = dict(rows.filter(key__in=wanted).values_list("key", "pk"))
    fresh = [_workload(cluster, state, ids.get(state.key), now) for state in report.workloads]
    _upsert(Workload, fresh, ["id"], (*_WORKLOAD_FIELDS, "reported_at", "updated_at"))
    return ids | {row.key: row.pk for row in fresh}


def _workload(cluster: Cluster, state: WorkloadState, pk: UUID | None, now: datetime) -> Workload:
    row = Workload(
        organization_id=cluster.organization_id,
        cluster=cluster,
        key=state.key,
        namespace=state.namespace,
        kind=state.kind,
        name=state.name,
        reported_at=now,
        **{name: getattr(state, name) for name in _WORKLOAD_FIELDS},
    )
    row.pk = pk or row.pk
    return row


def _store_placements(cluster: Cluster, report: InventoryReport, ids: Mapping[str, UUID]) -> set[str]:
    """Write where pods run; return the names of nodes with pods that have no instance."""
    instances: dict[str, UUID] = dict(
        Instance.objects.filter(cluster_id=cluster.pk).exclude(node_name="").values_list("node_name", "pk")
    )
    wanted = {
        (ids[key], instances[node]): count
        for key, where in report.placements.items()
        for node, count in where.items()
        if key in ids and node in instances
    }
    held = Placement.objects.filter(workload__cluster_id=cluster.pk)
    if not report.is_full:
        told = [ids[key] for key in report.placements if key in ids]
        held = held.filter(workload_id__in=told)
    present = {(row.workload_id, row.instance_id): row for row in held}
    gone = [row.pk for place, row in present.items() if place not in wanted]
    if gone:
        Placement.objects.filter(pk__in=gone).delete()
    changed = [
        Placement(
            organization_id=cluster.organization_id, workload_id=place[0], instance_id=place[1], count=count
        )
        for place, count in wanted.items()
        if place not in present or present[place].count != count
    ]
    _upsert(Placement, changed, ["workload", "instance"], ("count",))
    return {node for where in report.placements.values() for node in where if node not in instances}


def _store_karpenter(cluster: Cluster, karpenter: KarpenterState, now: datetime) -> None:
    """Write what there is of Karpenter in the place of what was reported before."""
    if karpenter.status not in Cluster.Karpenter:
        problem = f"must be one of {', '.join(filter(None, Cluster.Karpenter))}"
        raise InvalidInput("The report cannot be read.", errors={"karpenter.status": [problem]})
    cluster.karpenter = karpenter.status
    pools = NodePool.objects.filter(cluster_id=cluster.pk)
    pools.exclude(name__in=[pool.name for pool in karpenter.pools]).delete()
    rows = [
        NodePool(
            organization_id=cluster.organization_id,
            cluster=cluster,
            reported_at=now,
            **{each.name: getattr(pool, each.name) for each in fields(pool)},
        )
        for pool in karpenter.pools
    ]
    _upsert(NodePool, rows, ["cluster", "name"], _POOL_FIELDS)


def _store_counters(cluster: Cluster, report: InventoryReport, unknown: set[str], now: datetime) -> None:
    cluster.snapshot_sequence, cluster.snapshot_at = report.sequence, now
    cluster.pod_count, cluster.pending_pods = report.pods, report.pending_pods
    cluster.agent_installed, cluster.unknown_nodes = True, sorted(unknown)
    if cluster.status in (Cluster.Status.DISCOVERED, Cluster.Status.PENDING, Cluster.Status.INACTIVE):
        cluster.status = Cluster.Status.ACTIVE
    if unknown and (
        cluster.unknown_nodes_scan_at is None or now - cluster.unknown_nodes_scan_at >= SCAN_PAUSE
    ):
        cluster.unknown_nodes_scan_at = now
        _ask_for_scan(cluster)
    cluster.save(
        update_fields=[
            "snapshot_sequence",
            "snapshot_at",
            "pod_count",
            "pending_pods",
            "agent_installed",
            "unknown_nodes",
            "unknown_nodes_scan_at",
            "status",
            "karpenter",
            "updated_at",
        ]
    )


def _ask_for_scan(cluster: Cluster) -> None:
    """Queue a scan of the account, unless one is queued or running."""
    run, is_new = DiscoveryRun.objects.get_or_create(
        account_id=cluster.account_id,
        status__in=[DiscoveryRun.Status.QUEUED, DiscoveryRun.Status.SCANNING],
        defaults={
            "organization_id": cluster.organization_id,
            "account_id": cluster.account_id,
            "status": DiscoveryRun.Status.QUEUED,
            "trigger": DiscoveryRun.Trigger.SCHEDULE,
        },
    )
    if is_new:
        enqueue(
            "clusters.scan_account",
            organization_id=cluster.organization_id,
            account_id=cluster.account_id,
            run_id=run.pk,
        )


def _upsert(model: type[Model], rows: Iterable[Model], key: list[str], names: tuple[str, ...]) -> None:
    rows = list(rows)
    if rows:
        model.objects.bulk_create(  # type: ignore[attr-defined]  # any of our models
            rows, update_conflicts=True, unique_fields=key, update_fields=list(names), batch_size=_BATCH
        )
