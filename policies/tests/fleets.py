"""Builds catalogues, clusters and rules for the tests of the engine."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from policies.domain.policy import Rules, TemplateRules
from policies.domain.shapes import CapacityType, ClusterSnapshot, Node, Offer, Placement, Resources, Workload

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
DAEMONS = Resources(cpu_millis=300, memory_mib=400, pods=5)
SIZES = {"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32}
FAMILIES = {"c5": (2, 0.0425), "m5": (4, 0.048), "r5": (8, 0.063), "m6i": (4, 0.048), "c6i": (2, 0.0425)}
"""Family: GiB and USD per hour for each vCPU."""


def allocatable(vcpus: int, gib: int) -> Resources:
    return Resources(
        vcpus * 1000 - 70 - vcpus * 5, int(gib * 1024 * 0.92) - 400, min(234, 29 * vcpus // 2), 0
    )


def offer(
    instance_type: str = "m5.xlarge",
    zone: str = ZONES[0],
    capacity_type: CapacityType = CapacityType.SPOT,
    **changes: Any,
) -> Offer:
    family, _, size = instance_type.partition(".")
    per_vcpu, usd = FAMILIES[family]
    vcpus = SIZES[size]
    price = Decimal(str(round(usd * vcpus, 6)))
    if capacity_type is CapacityType.SPOT:
        rate = (
            Decimal("0.35") + Decimal(ZONES.index(zone)) / 50 + Decimal(sorted(FAMILIES).index(family)) / 100
        )
        price = (price * rate).quantize(Decimal("0.000001"))
    values: dict[str, Any] = {
        "instance_type": instance_type,
        "family": family,
        "arch": "x86_64",
        "zone": zone,
        "zone_id": f"use1-az{ZONES.index(zone) + 1}",
        "capacity_type": capacity_type,
        "usd_per_hour": price,
        "interruption_risk": 0.1 if capacity_type is CapacityType.SPOT else 0.0,
        "allocatable": allocatable(vcpus, per_vcpu * vcpus),
        "daemon_overhead": DAEMONS,
        "labels": {},
    }
    return Offer(**values | changes)


def catalogue() -> list[Offer]:
    return [
        offer(f"{family}.{size}", zone, capacity_type)
        for family in FAMILIES
        for size in SIZES
        for zone in ZONES
        for capacity_type in CapacityType
    ]


def rules(**changes: Any) -> Rules:
    template = changes.pop("template", TemplateRules(families=frozenset(FAMILIES)))
    return Rules(template=template, **changes)


def node(
    name: str,
    instance_type: str = "m5.2xlarge",
    zone: str = ZONES[0],
    capacity_type: CapacityType = CapacityType.ON_DEMAND,
    **changes: Any,
) -> Node:
    bought = offer(instance_type, zone, capacity_type)
    values: dict[str, Any] = {
        "id": name,
        "instance_id": f"i-{name}",
        "instance_type": instance_type,
        "zone": zone,
        "zone_id": bought.zone_id,
        "capacity_type": capacity_type,
        "usd_per_hour": bought.usd_per_hour,
        "allocatable": bought.allocatable,
        "daemon_overhead": DAEMONS,
        "labels": {"node.kubernetes.io/instance-type": instance_type, "kubernetes.io/arch": "amd64"},
        "taints": (),
        "launched_at": NOW - timedelta(days=30),
        "ready": True,
        "cordoned": False,
        "group": "workers",
        "group_kind": "asg",
    }
    return Node(**values | changes)


def workload(name: str, replicas: int = 2, cpu: int = 500, memory: int = 1024, **changes: Any) -> Workload:
    values: dict[str, Any] = {
        "id": name,
        "namespace": "shop",
        "kind": "Deployment",
        "name": name,
        "replicas": replicas,
        "request": Resources(cpu, memory, 1),
    }
    return Workload(**values | changes)


def snapshot(
    nodes: Sequence[Node],
    workloads: Sequence[Workload],
    pods: Mapping[tuple[str, str], int],
    pending: Mapping[str, int] | None = None,
) -> ClusterSnapshot:
    """``pods`` counts by (workload, node)."""
    return ClusterSnapshot(
        cluster_id="c-1",
        cluster_name="acme",
        region="us-east-1",
        taken_at=NOW,
        nodes=tuple(nodes),
        workloads=tuple(workloads),
        placements=tuple(Placement(w, n, count) for (w, n), count in pods.items()),
        pending=pending or {},
    )


def spread_out(nodes: Sequence[Node], workloads: Sequence[Workload], seed: int = 0) -> ClusterSnapshot:
    """Place every replica on the emptiest node that holds it; what finds no room is pending."""
    chance = random.Random(seed)
    free = {n.id: n.allocatable - n.daemon_overhead for n in nodes}
    pods: dict[tuple[str, str], int] = {}
    pending: dict[str, int] = {}
    for item in workloads:
        for _ in range(item.replicas):
            able = [n for n in nodes if item.request.fits_in(free[n.id]) and _suits(item, n, pods)]
            if not able:
                pending[item.id] = pending.get(item.id, 0) + 1
                continue
            best = max(able, key=lambda n: (free[n.id].cpu_millis, chance.random()))
            free[best.id] -= item.request
            pods[item.id, best.id] = pods.get((item.id, best.id), 0) + 1
    return snapshot(nodes, workloads, pods, pending)


def _suits(item: Workload, place: Node, pods: Mapping[tuple[str, str], int]) -> bool:
    if item.pinned_zone not in ("", place.zone):
        return False
    if not item.spot_tolerant and place.capacity_type is CapacityType.SPOT:
        return False
    return not (item.anti_affinity_keys and pods.get((item.id, place.id)))


def demo(
    node_count: int = 58, seed: int = 1, requested: float = 0.4, shape_count: int = 60
) -> ClusterSnapshot:
    """An on-demand fleet of mixed sizes of which about ``requested`` of the CPU is asked for."""
    chance = random.Random(seed)
    types = ["m5.2xlarge", "m5.xlarge", "c5.2xlarge", "r5.xlarge", "m5.4xlarge", "c5.4xlarge", "r5.2xlarge"]
    nodes = [node(f"ip-{i}", types[i % len(types)], ZONES[i % 3]) for i in range(node_count)]
    budget = requested * sum(n.allocatable.cpu_millis for n in nodes)
    workloads: list[Workload] = []
    while budget > 0:
        index = len(workloads)
        replicas = chance.randint(2, 12) if index < shape_count else chance.randint(20, 40)
        cpu = chance.choice([100, 150, 200, 250, 400, 500, 800, 1000, 1500])
        memory = int(cpu * chance.choice([1, 2, 2, 3, 4]))
        workloads.append(workload(f"w{index}", replicas, cpu, memory, **_traits(index, replicas)))
        budget -= cpu * replicas
    return spread_out(nodes, workloads, seed)


def _traits(index: int, replicas: int) -> dict[str, Any]:
    if index == 3:
        return {"do_not_disrupt": True}
    if index == 5:
        return {"budget_allows": 0, "budget_count": 1, "minimum_healthy": replicas}
    if index % 10 == 7:
        return {"spot_tolerant": False}
    if index % 4 == 2:
        return {"budget_allows": 1, "budget_count": 1, "minimum_healthy": replicas - 1}
    return {}
