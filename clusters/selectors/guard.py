"""What the guardrails look at, read fresh from the newest reports."""

from collections.abc import Collection
from uuid import UUID

from django.db.models import Q, QuerySet, Sum

from accounts import platform
from clusters.domain.actions import DISRUPTIVE, OPEN
from clusters.domain.facts import ClusterFacts, NodeFacts
from clusters.models import Action, Cluster, Instance, Interruption
from spotopt.core.clock import utcnow

ALIVE = (Instance.State.PENDING, Instance.State.RUNNING)


def cluster_facts(
    cluster_id: UUID, *, excluding_action: UUID | None = None, with_nodes: bool = True
) -> ClusterFacts:
    """Return the facts about a cluster, leaving one action's own effect out of the disrupted set.

    ``with_nodes=False`` reads the switches and AWS's notices alone: enough for acts that disrupt nothing.
    """
    cluster = Cluster.objects.get(pk=cluster_id)
    nodes = _nodes(cluster_id) if with_nodes else {}
    return ClusterFacts(
        now=utcnow(),
        safe_mode=platform.get_safe_mode(),
        is_paused=cluster.maintenance_mode,
        snapshot_at=cluster.snapshot_at,
        nodes=nodes,
        disrupted=_disrupted(cluster_id, nodes, excluding_action) if nodes else frozenset(),
        taken=frozenset(taken_nodes(cluster_id).values_list("instance__instance_id", flat=True)),
    )


def switches_of(cluster_ids: Collection[UUID]) -> dict[UUID, ClusterFacts]:
    """Return what ``cluster_facts`` says without nodes of many clusters, of any organizations, by id."""
    now, safe_mode = utcnow(), platform.get_safe_mode()
    taken: dict[UUID, set[str]] = {}
    notices = Interruption.unscoped.filter(_IS_TAKEN, cluster_id__in=cluster_ids)
    for cluster_id, instance_id in notices.values_list("cluster_id", "instance__instance_id"):
        taken.setdefault(cluster_id, set()).add(instance_id)
    return {
        cluster.pk: ClusterFacts(
            now=now,
            safe_mode=safe_mode,
            is_paused=cluster.maintenance_mode,
            snapshot_at=cluster.snapshot_at,
            taken=frozenset(taken.get(cluster.pk, ())),
        )
        for cluster in Cluster.unscoped.filter(pk__in=cluster_ids).only("maintenance_mode", "snapshot_at")
    }


_IS_TAKEN = Q(kind=Interruption.Kind.INTERRUPTION, status=Interruption.Status.OPEN)


def taken_nodes(cluster_id: UUID) -> QuerySet[Interruption]:
    """Return the open notices of nodes that AWS takes back: until they are over no pod may come there."""
    return Interruption.objects.filter(_IS_TAKEN, cluster_id=cluster_id)


def _disrupted(
    cluster_id: UUID, nodes: dict[str, NodeFacts], excluding_action: UUID | None
) -> frozenset[str]:
    targets = (
        Action.objects.filter(cluster_id=cluster_id, status__in=OPEN, kind__in=DISRUPTIVE)
        .exclude(Q(pk=excluding_action) if excluding_action else Q(pk__in=[]))
        .values_list("params__instance_id", flat=True)
    )
    cordoned = {node.instance_id for node in nodes.values() if node.is_cordoned}
    return frozenset(cordoned | (set(targets) & nodes.keys()))


def _nodes(cluster_id: UUID) -> dict[str, NodeFacts]:
    rows = (
        Instance.objects.filter(cluster_id=cluster_id, state__in=ALIVE)
        .exclude(node_name="")
        .select_related("node_group")
        .annotate(movable=Sum("placements__count", filter=~Q(placements__workload__kind="DaemonSet")))
    )
    return {
        row.instance_id: NodeFacts(
            name=row.node_name,
            instance_id=row.instance_id,
            group=row.node_group.name if row.node_group else "",
            launched_at=row.launched_at,
            is_ready=row.is_ready,
            is_cordoned=row.is_cordoned,
            pods=row.movable or 0,
        )
        for row in rows
    }
