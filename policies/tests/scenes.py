"""Small clusters whose one valid plan replaces one node, for spoiling that plan in one way at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from policies.domain.checker import check
from policies.domain.plan import Breakdown, Launch, PlanProposal, Refusal, Removal, Wave
from policies.domain.policy import Rules
from policies.domain.shapes import (
    CapacityType,
    ClusterSnapshot,
    Node,
    Offer,
    Resources,
    Taint,
    Toleration,
    Workload,
)
from policies.tests.fleets import DAEMONS, NOW, ZONES, node, offer, rules, snapshot, workload

KEEP_OUT = Taint("filled", "yes", "NoSchedule")
"""On the nodes that stay, so that new nodes are the only choice of the pods that move."""
INSIDER = Toleration("filled", "Exists")
LEAVING = "leaving"
DISK_MIB = 50_000
SPARE_MIB = 150
"""Memory that the nodes that stay have left."""
LENIENT: Mapping[str, Any] = {
    "az_spread": False,
    "headroom_cpu_percent": 0,
    "headroom_memory_percent": 0,
    "max_disrupted_percent": 50,
    "max_risk": 1.0,
    "min_saving_percent": 0,
    "min_saving_per_disruption": 0.0,
    "pool_share_percent": 100,
    "spot_percentage": 100,
}


def pool(
    instance_type: str = "m5.xlarge", zone: int = 0, capacity_type: str = "spot", **changes: Any
) -> Offer:
    """A pool with disks, and its family as a label."""
    plain = offer(instance_type, ZONES[zone], CapacityType(capacity_type))
    room = replace(plain.allocatable, ephemeral_mib=DISK_MIB)
    return replace(plain, **{"allocatable": room, "labels": {"family": plain.family}, **changes})


def staying(number: int, **changes: Any) -> Node:
    """A node that its taint and want of memory keep for its own pods."""
    labels = {"kubernetes.io/arch": "amd64", "karpenter.sh/capacity-type": "on-demand"}
    plain = node(f"stay-{number}", zone=ZONES[number % 2], taints=(KEEP_OUT,), group="", labels=labels)
    filled = replace(plain.daemon_overhead, memory_mib=plain.allocatable.memory_mib - SPARE_MIB)
    return replace(plain, **{"daemon_overhead": filled, **changes})


@dataclass(frozen=True, slots=True)
class Scene:
    """A cluster of four nodes of which one leaves, the pools on offer, the rules, and the waves of a plan."""

    subject: Workload
    """Runs on the leaving node."""
    offers: tuple[Offer, ...]
    waves: tuple[Wave, ...] = ()
    others: tuple[Workload, ...] = ()
    on_others: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Pods by (workload, node), the leaving node's subject pods aside."""
    nodes: tuple[Node, ...] = tuple(staying(number) for number in range(3))
    leaving: Node = field(default_factory=lambda: node(LEAVING, "m5.8xlarge", group=""))
    rules: Rules = field(default_factory=lambda: rules(**LENIENT))
    pods_leaving: int = 1
    pending: Mapping[str, int] = field(default_factory=dict)
    spoilt: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the finished proposal that are made wrong."""

    @property
    def cluster(self) -> ClusterSnapshot:
        pods = {(self.subject.id, LEAVING): self.pods_leaving, **self.on_others}
        placed = {place: count for place, count in pods.items() if count}
        return snapshot((*self.nodes, self.leaving), (self.subject, *self.others), placed, self.pending)

    @property
    def proposal(self) -> PlanProposal:
        """The waves with every total, price and reason as it must be, but for what is spoilt."""
        cluster = self.cluster
        launches = [launch for wave in self.waves for launch in wave.launches]
        removed = {removal.node_id for wave in self.waves for removal in wave.removals}
        stay = [each for each in cluster.nodes if each.id not in removed]
        before = sum((each.usd_per_hour for each in cluster.nodes), Decimal(0))
        after = sum((each.usd_per_hour for each in (*stay, *launches)), Decimal(0))
        plan = PlanProposal(
            cluster_id=cluster.cluster_id,
            quoted_at=NOW,
            waves=self.waves,
            refusals=tuple(Refusal("node", each.id, "worth_keeping", "") for each in stay),
            usd_per_hour_before=before,
            usd_per_hour_after=after,
            lower_bound_usd_per_hour=Decimal(0),
            breakdown=Breakdown(Decimal(0), before - after),
            risk=self._risk(stay, launches),
            nodes_before=len(cluster.nodes),
            nodes_after=len(stay) + len(launches),
            pods_moved=sum(removal.pods_moved for wave in self.waves for removal in wave.removals),
        )
        return replace(plan, **self.spoilt)

    def _risk(self, stay: Sequence[Node], launches: Sequence[Launch]) -> float:
        after: list[Node | Launch] = [*stay, *launches]
        risks = {(o.instance_type, o.zone, o.capacity_type): o.interruption_risk for o in self.offers}
        priced = [
            (float(each.usd_per_hour), risks.get((each.instance_type, each.zone, each.capacity_type), 0.0))
            for each in after
        ]
        total = sum(price for price, _ in priced)
        return sum(price * risk for price, risk in priced) / total if total else 0.0

    def codes(self) -> set[str]:
        """The codes of what the checker says about the plan."""
        found = check(snapshot=self.cluster, proposal=self.proposal, offers=self.offers, rules=self.rules)
        return {violation.partition(":")[0] for violation in found}

    def removal(self, of: Node | None = None) -> Removal:
        """The removal of a node, the leaving one by default."""
        gone = of or self.leaving
        moved = sum(each.count for each in self.cluster.placements if each.node_id == gone.id)
        code = "replaced_by_cheaper" if moved else "empty"
        return Removal(gone.id, gone.instance_id, gone.usd_per_hour, code, "", moved)

    def buying(self, *bought: Offer, also_removing: Sequence[Node] = ()) -> "Scene":
        """The scene with a plan of one wave: buy these, remove the leaving node and the others named."""
        removals = (self.removal(), *(self.removal(each) for each in also_removing))
        return replace(self, waves=(Wave(launched(*bought), removals),))


def launched(*bought: Offer, first: int = 1) -> tuple[Launch, ...]:
    """One launch for each pool."""
    return tuple(
        Launch(
            f"n{number}", each.instance_type, each.zone, each.zone_id, each.capacity_type, each.usd_per_hour,
            each.interruption_risk,
        )
        for number, each in enumerate(bought, start=first)
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """A valid plan, a copy of it that breaks one rule, and the codes with which it must be rejected."""

    name: str
    covers: str
    """The field that states the constraint, as ``Class.field``, or the kind of step."""
    valid: Scene
    spoilt: Scene
    codes: frozenset[str]


def mutant(name: str, covers: str, valid: Scene, spoilt: Scene, codes: str) -> Mutant:
    """A mutant with its codes in one text."""
    return Mutant(name, covers, valid, spoilt, frozenset(codes.split()))


def subject(replicas: int = 1, cpu: int = 1000, **changes: Any) -> Workload:
    """The workload that moves."""
    return workload("subject", replicas, cpu, **changes)


def insider(name: str = "insider", **changes: Any) -> Workload:
    """A workload that may share the nodes that stay."""
    return workload(name, 1, 100, 60, **{"tolerations": (INSIDER,), **changes})


def tiny(**amounts: int) -> Resources:
    """The request of a pod that needs little but what is named."""
    return replace(Resources(100, 300, 1), **amounts)


def roomy(*, cpu: int = 3_500, slots: int = 58, gpu: int = 0, disk_mib: int = DISK_MIB) -> Resources:
    """What a pool's node may allocate, daemon sets included."""
    return Resources(cpu, 14_000, slots, gpu, disk_mib) + replace(DAEMONS, pods=0)
