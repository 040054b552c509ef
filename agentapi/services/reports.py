"""Take in what agents see: snapshots, events and notices of interruptions."""

from datetime import timedelta
from uuid import UUID

from django.db import transaction

from agentapi import protocol
from agentapi.services import presence
from audit.services import Subject, record
from clusters.domain.interruptions import Kind, Notice
from clusters.domain.reports import (
    InventoryReport,
    KarpenterState,
    NodePoolState,
    NodeState,
    WorkloadState,
)
from clusters.models import ClusterEvent
from clusters.services import interruptions, inventory
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import InvalidInput
from spotopt.core.live import announce

MAX_EVENTS = 100
REFUSED = "command_refused"
"""The event by which an agent tells that it did not trust a command."""
_CLOCK_TOLERANCE = timedelta(minutes=5)


def store_snapshot(*, cluster_id: UUID, snapshot: protocol.Snapshot) -> protocol.SnapshotAnswer:
    """Apply a snapshot to the inventory; raise Conflict when the agent is not its cluster's."""
    presence.require_leader(cluster_id=cluster_id, agent_id=snapshot.agent_id)
    applied = inventory.apply_report(cluster_id=cluster_id, report=_report(snapshot))
    return protocol.SnapshotAnswer(
        acknowledged=applied.acknowledged,
        resync=applied.needs_resync,
        unknown_nodes=tuple(sorted(applied.unknown_nodes)),
    )


@transaction.atomic
def store_events(*, organization_id: UUID, cluster_id: UUID, events: protocol.Events, actor: Actor) -> int:
    """Store events that are new and return how many were; the same event twice is stored once.

    A command that the agent refused goes on the record: somebody may have forged it.
    """
    presence.require_leader(cluster_id=cluster_id, agent_id=events.agent_id)
    if len(events.events) > MAX_EVENTS:
        problem = f"must hold at most {MAX_EVENTS} events"
        raise InvalidInput("Too many events in one request.", errors={"events": [problem]})
    latest = utcnow() + _CLOCK_TOLERANCE
    rows = [
        ClusterEvent(
            organization_id=organization_id,
            cluster_id=cluster_id,
            event_id=event.event_id,
            event_type=event.event_type,
            severity=event.severity,
            payload=dict(event.payload),
            occurred_at=min(event.occurred_at, latest),
        )
        for event in events.events
    ]
    before = ClusterEvent.objects.filter(cluster_id=cluster_id, event_id__in=[row.event_id for row in rows])
    known = set(before.values_list("event_id", flat=True))
    ClusterEvent.objects.bulk_create(rows, ignore_conflicts=True)
    announce(organization_id=organization_id, topic="cluster", cluster_id=str(cluster_id))
    fresh = {row.event_id: row for row in rows if row.event_id not in known}
    for row in fresh.values():
        if row.event_type == REFUSED:
            _record_refusal(row, actor)
    return len(fresh)


def _record_refusal(event: ClusterEvent, actor: Actor) -> None:
    said = {name: str(event.payload.get(name, ""))[:100] for name in ("action_id", "action_type", "code")}
    cluster = event.cluster
    record(
        actor=actor,
        event="agentapi.command.refused",
        sentence=f"The agent of {cluster.name} refused a command: {said['code']} ({said['action_type']})",
        subject=Subject("agent", str(cluster.pk), cluster.name),
        outcome="denied",
        account_id=cluster.account_id,
        cluster_id=cluster.pk,
        after=said,
    )


def store_notices(*, cluster_id: UUID, told: protocol.Interruptions) -> protocol.InterruptionsAnswer:
    """React to notices that AWS takes nodes back; raise InvalidInput for more than 100 or of another kind."""
    presence.require_leader(cluster_id=cluster_id, agent_id=told.agent_id)
    if len(told.notices) > MAX_EVENTS or any(notice.kind not in set(Kind) for notice in told.notices):
        problem = f"must be at most {MAX_EVENTS}, each of the kind {' or '.join(Kind)}"
        raise InvalidInput("These notices cannot be read.", errors={"notices": [problem]})
    now = utcnow()
    notices = [
        Notice(Kind(notice.kind), notice.instance_id, min(notice.at, now), notice.deadline)
        for notice in told.notices
    ]
    receptions = interruptions.notices_from_agent(cluster_id=cluster_id, notices=notices)
    return protocol.InterruptionsAnswer(tuple(reception.value for reception in receptions))


def _report(snapshot: protocol.Snapshot) -> InventoryReport:
    return InventoryReport(
        sequence=snapshot.sequence,
        base=snapshot.base,
        pods=snapshot.pods,
        pending_pods=snapshot.pending_pods,
        nodes=tuple(_node(node) for node in snapshot.nodes),
        workloads=tuple(_workload(workload) for workload in snapshot.workloads),
        placements=snapshot.placements,
        removed_nodes=frozenset(snapshot.removed_nodes),
        removed_workloads=frozenset(snapshot.removed_workloads),
        karpenter=_karpenter(snapshot.karpenter) if snapshot.karpenter else None,
    )


def _karpenter(karpenter: protocol.KarpenterReport) -> KarpenterState:
    by_name = {pool.name: pool for pool in karpenter.pools}  # a name is told once
    return KarpenterState(
        status=karpenter.status,
        pools=tuple(
            NodePoolState(
                name=pool.name,
                spec=pool.spec,
                is_ours=pool.ours,
                steers=pool.steers,
                used=pool.used,
                managers=pool.managers,
            )
            for pool in by_name.values()
        ),
    )


def _node(node: protocol.NodeReport) -> NodeState:
    return NodeState(
        name=node.name,
        instance_id=node.instance_id,
        is_ready=node.ready,
        is_cordoned=node.unschedulable,
        cpu_allocatable_millis=node.cpu_allocatable_millis,
        memory_allocatable_mib=node.memory_allocatable_mib,
        pods_allocatable=node.pods_allocatable,
        cpu_requested_millis=node.cpu_requested_millis,
        memory_requested_mib=node.memory_requested_mib,
        pod_count=node.pod_count,
        daemon_cpu_millis=node.daemon_cpu_millis,
        daemon_memory_mib=node.daemon_memory_mib,
        daemon_pods=node.daemon_pods,
        gpu_allocatable=node.gpu_allocatable,
        ephemeral_allocatable_mib=node.ephemeral_allocatable_mib,
        daemon_ephemeral_mib=node.daemon_ephemeral_mib,
        cpu_used_millis=node.cpu_used_millis,
        memory_used_mib=node.memory_used_mib,
        labels=node.labels,
        taints=tuple({"key": t.key, "value": t.value, "effect": t.effect} for t in node.taints),
    )


def _workload(workload: protocol.WorkloadReport) -> WorkloadState:
    return WorkloadState(
        key=workload.key,
        namespace=workload.namespace,
        kind=workload.kind,
        name=workload.name,
        replicas=workload.replicas,
        ready_replicas=workload.ready_replicas,
        pending_replicas=workload.pending_replicas,
        cpu_request_millis=workload.cpu_request_millis,
        memory_request_mib=workload.memory_request_mib,
        gpu_request=workload.gpu_request,
        ephemeral_request_mib=workload.ephemeral_request_mib,
        cpu_used_millis=workload.cpu_used_millis,
        memory_used_mib=workload.memory_used_mib,
        budget_count=workload.budget_count,
        budget_allows=workload.budget_allows,
        budget_minimum=workload.budget_minimum,
        constraints=protocol.dump(workload.constraints),
    )
