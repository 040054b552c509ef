"""Turn rows into what the optimizer sees: a frozen snapshot of a cluster, and the pools on offer."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from clusters.domain.market import Quote
from clusters.models import Cluster, Instance, InstanceType, NodeGroup, Placement, PoolState, Price
from clusters.models import Workload as WorkloadRow
from clusters.selectors.guard import ALIVE
from mlregistry.services import interruption_risks
from policies.domain.document import parse
from policies.domain.shapes import (
    CapacityType,
    ClusterSnapshot,
    Node,
    Offer,
    PodTerm,
    Requirement,
    Resources,
    SpreadRule,
    Taint,
    Toleration,
    Workload,
)
from policies.domain.shapes import Placement as PlacedPods
from policies.models import ClusterPolicy
from spotopt.core.clock import clock_rate, utcnow
from spotopt.core.errors import Conflict

DAEMON_SET = "DaemonSet"


def cluster_snapshot(cluster_id: UUID) -> ClusterSnapshot:
    """Return the cluster as the newest scan and the newest agent report have it (four queries).

    Where there are nodes of Karpenter's, a fifth tells whether they are left to it.

    Raises Conflict when the agent has never reported what runs.
    """
    cluster = Cluster.objects.get(pk=cluster_id)
    if cluster.snapshot_at is None:
        raise Conflict("The agent has not reported yet; install it and wait for its first report.")
    instances = list(
        Instance.objects.filter(cluster_id=cluster_id, state__in=ALIVE)
        .exclude(node_name="")
        .select_related("node_group")
        .order_by("node_name")
    )
    floors = _held_by_minimum(instances) | _held_by_karpenter(cluster_id, instances)
    rows = {
        row.pk: row
        for row in WorkloadRow.objects.filter(cluster_id=cluster_id).exclude(kind=DAEMON_SET).order_by("key")
    }
    nodes = {instance.pk: instance for instance in instances}
    placed = [
        (rows[row.workload_id], nodes[row.instance_id], row.count)
        for row in Placement.objects.filter(workload__cluster_id=cluster_id).order_by("pk")
        if row.workload_id in rows and row.instance_id in nodes
    ]
    return ClusterSnapshot(
        cluster_id=str(cluster_id),
        cluster_name=cluster.name,
        region=cluster.region,
        taken_at=cluster.snapshot_at,
        nodes=tuple(_node(instance, floors) for instance in instances if _measured(instance)),
        workloads=tuple(_workloads(rows.values(), placed)),
        placements=tuple(
            PlacedPods(workload_id=_part(row, node.az), node_id=node.node_name, count=count)
            for row, node, count in placed
        ),
        pending={row.key: row.pending_replicas for row in rows.values() if row.pending_replicas},
    )


def _is_split(row: WorkloadRow) -> bool:
    """Tell whether the pods hold disks in different zones, so that each must stay in the zone it runs in."""
    return bool(row.constraints.get("zonal_volumes")) and not row.constraints.get("pinned_zone")


def _part(row: WorkloadRow, zone: str) -> str:
    return f"{row.key}@{zone}" if _is_split(row) else row.key


def _workloads(
    rows: Collection[WorkloadRow], placed: Iterable[tuple[WorkloadRow, Instance, int]]
) -> Iterator[Workload]:
    """Yield one workload for each row, and one for each zone where its disks bind the pods to zones."""
    by_zone: dict[UUID, Counter[str]] = defaultdict(Counter)
    for row, node, count in placed:
        by_zone[row.pk][node.az] += count
    whole = [row for row in rows if not _is_split(row)]
    split = {row.key: sorted(by_zone[row.pk].items()) for row in rows if _is_split(row)}
    parts = {key: [f"{key}@{zone}" for zone, _ in zones] for key, zones in split.items()}
    for row in whole:
        yield _resolved(_workload(row), parts)
    for row in (row for row in rows if _is_split(row)):
        described = _resolved(_workload(row), parts)
        for zone, count in split[row.key]:
            yield _one_part(described, _part(row, zone), zone, count, parts[row.key])
        if row.pending_replicas:
            yield _one_part(described, row.key, "", row.pending_replicas, parts[row.key])


def _resolved(workload: Workload, parts: Mapping[str, Sequence[str]]) -> Workload:
    """Return the workload with the keys of divided workloads in its rules replaced by those of the parts."""

    def ids(keys: Iterable[str]) -> tuple[str, ...]:
        return tuple(part for key in keys for part in (key, *parts.get(key, ())))

    return replace(
        workload,
        spread=tuple(replace(rule, also_counts=ids(rule.also_counts)) for rule in workload.spread),
        pod_affinity=tuple(PodTerm(t.topology_key, ids(t.workload_ids)) for t in workload.pod_affinity),
        pod_anti_affinity=tuple(
            PodTerm(t.topology_key, ids(t.workload_ids)) for t in workload.pod_anti_affinity
        ),
    )


def _one_part(whole: Workload, part: str, zone: str, count: int, parts: Sequence[str]) -> Workload:
    """Return the pods of a workload that stay in one zone; its rules about its own pods count all parts."""
    others = tuple(other for other in parts if other != part)
    apart = tuple(PodTerm(key, others) for key in whole.anti_affinity_keys)
    spread = tuple(
        replace(rule, also_counts=(*rule.also_counts, *(others if rule.counts_own else ())))
        for rule in whole.spread
    )
    return replace(
        whole,
        id=part,
        replicas=count,
        pinned_zone=zone,
        spread=spread,
        pod_anti_affinity=(*whole.pod_anti_affinity, *apart),
        on_demand_minimum=min(count, whole.on_demand_minimum),
    )


def _measured(instance: Instance) -> bool:
    """Tell whether size and price are known; a node without them is neither kept nor removed by a plan."""
    return instance.cpu_allocatable_millis is not None and instance.price is not None


def _held_by_minimum(instances: Iterable[Instance]) -> dict[UUID, str]:
    """Return why nodes must stay that fill a minimum which somebody had restored; the dearest are free."""
    groups: dict[NodeGroup, list[Instance]] = defaultdict(list)
    for instance in instances:
        if instance.node_group is not None and instance.node_group.keeps_minimum:
            groups[instance.node_group].append(instance)
    held = {}
    for group, members in groups.items():
        members.sort(key=lambda member: (member.price or Decimal(0), member.node_name))
        reason = f"{group.name} must keep {group.min_size} nodes; somebody had that minimum restored."
        held.update({member.pk: reason for member in members[: group.min_size]})
    return held


def _held_by_karpenter(cluster_id: UUID, instances: Iterable[Instance]) -> dict[UUID, str]:
    """Return why Karpenter's nodes must stay while it is steered: two hands would pull at them."""
    kind = NodeGroup.Kind.KARPENTER
    members = [each for each in instances if each.node_group is not None and each.node_group.kind == kind]
    policy = ClusterPolicy.objects.filter(cluster_id=cluster_id, is_active=True).first() if members else None
    if policy is None or not parse(policy.config).karpenter.enabled:
        return {}
    return {each.pk: "Karpenter looks after its nodes itself, and is steered." for each in members}


def node_of(instance: Instance) -> Node | None:
    """Return a node as it was last seen, living or not; None when its size or price is not known."""
    return _node(instance, {}) if _measured(instance) else None


def _node(row: Instance, held: Mapping[UUID, str]) -> Node:
    return Node(
        id=row.node_name,
        instance_id=row.instance_id,
        instance_type=row.instance_type,
        zone=row.az,
        zone_id=row.az_id,
        capacity_type=CapacityType(row.lifecycle),
        usd_per_hour=row.price or Decimal(0),
        allocatable=Resources(
            cpu_millis=row.cpu_allocatable_millis or 0,
            memory_mib=row.memory_allocatable_mib or 0,
            pods=row.pods_allocatable or 0,
            gpu=row.gpu_allocatable,
            ephemeral_mib=row.ephemeral_allocatable_mib,
        ),
        daemon_overhead=Resources(
            row.daemon_cpu_millis, row.daemon_memory_mib, row.daemon_pods, 0, row.daemon_ephemeral_mib
        ),
        labels=row.labels,
        taints=tuple(Taint(t["key"], t.get("value") or "", t["effect"]) for t in row.taints),
        launched_at=row.launched_at,
        ready=row.is_ready,
        cordoned=row.is_cordoned,
        group=row.node_group.name if row.node_group else "",
        group_kind=row.node_group.kind if row.node_group else "",
        cpu_used_millis=_share(row.cpu_util, row.cpu_allocatable_millis),
        memory_used_mib=_share(row.memory_util, row.memory_allocatable_mib),
        protected_reason=held.get(row.pk, ""),
    )


def _share(percent: float | None, whole: int | None) -> int | None:
    return None if percent is None or whole is None else round(whole * percent / 100)


def _workload(row: WorkloadRow) -> Workload:
    rules: Mapping[str, Any] = row.constraints
    spread: Sequence[Mapping[str, Any]] = rules.get("spread", ())
    return Workload(
        id=row.key,
        namespace=row.namespace,
        kind=row.kind,
        name=row.name,
        replicas=row.replicas,
        request=Resources(
            row.cpu_request_millis, row.memory_request_mib, 1, row.gpu_request, row.ephemeral_request_mib
        ),
        node_selector=rules.get("node_selector", {}),
        requirements=_requirements(rules.get("requirements", ())),
        alternatives=tuple(_requirements(term) for term in rules.get("alternatives", ())),
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", "Equal"), t.get("value", ""), t.get("effect", ""))
            for t in rules.get("tolerations", ())
        ),
        spread=tuple(SpreadRule(**{**s, "also_counts": tuple(s.get("also_counts", ()))}) for s in spread),
        anti_affinity_keys=tuple(rules.get("anti_affinity_keys", ())),
        pod_affinity=_terms(rules.get("pod_affinity", ())),
        pod_anti_affinity=_terms(rules.get("pod_anti_affinity", ())),
        on_demand_minimum=_on_demand_minimum(rules.get("on_demand", ""), row.replicas),
        pinned_zone=rules.get("pinned_zone", ""),
        budget_allows=row.budget_allows,
        budget_count=row.budget_count,
        minimum_healthy=row.budget_minimum,
        unmodelled=tuple(rules.get("unmodelled", ())),
        do_not_disrupt=rules.get("do_not_disrupt", False),
        has_local_storage=rules.get("has_local_storage", False),
        controlled=rules.get("controlled", True),
        spot_tolerant=rules.get("spot_tolerant", True),
    )


def _requirements(expressions: Iterable[Mapping[str, Any]]) -> tuple[Requirement, ...]:
    return tuple(Requirement(e["key"], e["operator"], tuple(e.get("values", ()))) for e in expressions)


def _terms(terms: Iterable[Mapping[str, Any]]) -> tuple[PodTerm, ...]:
    return tuple(PodTerm(term["topology_key"], tuple(term["workloads"])) for term in terms)


def _on_demand_minimum(amount: str, replicas: int) -> int:
    """Return how many of the pods ``2`` or ``50%`` are, the share rounded up."""
    if amount.endswith("%"):
        return -(-replicas * int(amount.removesuffix("%")) // 100)
    return min(replicas, int(amount or 0))


def offers(snapshot: ClusterSnapshot) -> tuple[Offer, ...]:
    """Return every priced pool in the zones that the cluster already uses (four queries)."""
    zones = {node.zone_id: node.zone for node in snapshot.nodes}
    types = {row.name: row for row in InstanceType.objects.filter(is_bare_metal=False)}
    prices = list(
        Price.objects.filter(region=snapshot.region, zone_id__in=[*zones, ""]).order_by(
            "instance_type", "zone_id"
        )
    )
    spot_pools = [(p.zone_id, p.instance_type) for p in prices if p.zone_id and p.instance_type in types]
    risks = interruption_risks(region=snapshot.region, pools=spot_pools)
    back_off = {
        (row.zone_id, row.instance_type, row.capacity_type): row.back_off_until
        for row in PoolState.objects.filter(zone_id__in=zones, back_off_until__isnull=False)
    }
    daemons = _daemon_overhead(snapshot)
    disk_mib = _disk_mib(snapshot)
    found = []
    for price in prices:
        shape = types.get(price.instance_type)
        if shape is None:
            continue
        for zone_id in [price.zone_id] if price.zone_id else sorted(zones):
            offer = _offer(shape, price, zones[zone_id], zone_id, daemons)
            key = (zone_id, price.instance_type, offer.capacity_type.value)
            risk = risks.get((zone_id, price.instance_type), 1.0) if price.zone_id else 0.0
            room = replace(offer.allocatable, ephemeral_mib=disk_mib)
            offer = replace(offer, allocatable=room, interruption_risk=risk)
            found.append(replace(offer, back_off_until=back_off.get(key)))
    return tuple(found)


def _daemon_overhead(snapshot: ClusterSnapshot) -> Resources:
    """Return what daemon sets take on most nodes: what a new node will lose to them."""
    counted = Counter(node.daemon_overhead for node in snapshot.nodes)
    return counted.most_common(1)[0][0] if counted else Resources()


def _disk_mib(snapshot: ClusterSnapshot) -> int:
    """Return the ephemeral storage of the smallest disk in use: new nodes get a disk like one of these."""
    return min((node.allocatable.ephemeral_mib for node in snapshot.nodes if node.ready), default=0)


def _offer(shape: InstanceType, price: Price, zone: str, zone_id: str, daemons: Resources) -> Offer:
    capacity_type = CapacityType(price.capacity_type)
    arch = {"x86_64": "amd64", "arm64": "arm64"}.get(shape.arch, shape.arch)
    return Offer(
        instance_type=shape.name,
        family=shape.family,
        arch=shape.arch,
        zone=zone,
        zone_id=zone_id,
        capacity_type=capacity_type,
        usd_per_hour=_planning_usd(price),
        interruption_risk=0.0,
        allocatable=Resources(
            shape.cpu_allocatable_millis, shape.memory_allocatable_mib, shape.max_pods, shape.gpu_count
        ),
        daemon_overhead=daemons,
        labels={
            "node.kubernetes.io/instance-type": shape.name,
            "topology.kubernetes.io/zone": zone,
            "topology.kubernetes.io/region": price.region,
            "kubernetes.io/arch": arch,
            "kubernetes.io/os": "linux",
            "eks.amazonaws.com/capacityType": "SPOT" if capacity_type is CapacityType.SPOT else "ON_DEMAND",
        },
        burstable=shape.is_burstable,
    )


def _planning_usd(price: Price) -> Decimal:
    quote = Quote(price.usd_per_hour, price.source, price.observed_at)
    is_spot = price.capacity_type == CapacityType.SPOT
    return quote.planning_usd(utcnow(), clock_rate=clock_rate()) if is_spot else price.usd_per_hour


def quotes(snapshot_region: str, pools: Mapping[str, tuple[str, str, str]]) -> dict[str, Decimal]:
    """Return the price to plan with by name for pools given as (zone id, instance type, capacity type)."""
    wanted = defaultdict(list)
    for name, (zone_id, instance_type, capacity_type) in pools.items():
        wanted[(zone_id if capacity_type == CapacityType.SPOT else "", instance_type, capacity_type)].append(
            name
        )
    rows = Price.objects.filter(region=snapshot_region, instance_type__in={key[1] for key in wanted})
    return {
        name: _planning_usd(row)
        for row in rows
        for name in wanted.get((row.zone_id, row.instance_type, row.capacity_type), ())
    }
