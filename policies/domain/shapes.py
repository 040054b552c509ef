"""What the optimizer sees: nodes, workloads, placements and the pools it may buy from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class CapacityType(StrEnum):
    """How an instance is bought."""

    SPOT = "spot"
    ON_DEMAND = "on_demand"


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each resource that the scheduler counts."""

    cpu_millis: int = 0
    memory_mib: int = 0
    pods: int = 0
    gpu: int = 0
    ephemeral_mib: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        """Return the sum, resource by resource."""
        return Resources(
            self.cpu_millis + other.cpu_millis,
            self.memory_mib + other.memory_mib,
            self.pods + other.pods,
            self.gpu + other.gpu,
            self.ephemeral_mib + other.ephemeral_mib,
        )

    def __sub__(self, other: "Resources") -> "Resources":
        """Return the difference, resource by resource; it may be negative."""
        return self + other.times(-1)

    def times(self, count: int) -> "Resources":
        """Return ``count`` times this amount."""
        return Resources(
            self.cpu_millis * count,
            self.memory_mib * count,
            self.pods * count,
            self.gpu * count,
            self.ephemeral_mib * count,
        )

    def fits_in(self, room: "Resources") -> bool:
        """Tell whether ``room`` holds this amount of every resource."""
        return (
            self.cpu_millis <= room.cpu_millis
            and self.memory_mib <= room.memory_mib
            and self.pods <= room.pods
            and self.gpu <= room.gpu
            and self.ephemeral_mib <= room.ephemeral_mib
        )


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's refusal of pods that do not tolerate it; effect as Kubernetes spells it."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Toleration:
    """A pod's acceptance of taints; an empty key with ``Exists`` tolerates everything."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Tell whether this toleration matches ``taint`` (Kubernetes ``core/v1`` semantics)."""
        if self.effect and self.effect != taint.effect:
            return False
        if not self.key:
            return self.operator == "Exists"
        return self.key == taint.key and (self.operator == "Exists" or self.value == taint.value)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One node-affinity term: ``key operator values`` with the operators of Kubernetes."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpreadRule:
    """A hard topology-spread constraint (``DoNotSchedule``): no domain may get far ahead of the emptiest.

    Domains are those of the nodes that the pod's node selector and affinity allow, whatever their taints
    (the policies ``Honor`` and ``Ignore`` that Kubernetes has by default).
    """

    topology_key: str
    max_skew: int
    min_domains: int = 0
    """With fewer domains than this the emptiest counts as having no pods."""
    also_counts: tuple[str, ...] = ()
    """Other workloads whose pods the rule's selector counts."""
    counts_own: bool = True
    """False when the selector passes over the workload's own pods."""
    honors_affinity: bool = True
    honors_taints: bool = False
    """True when nodes with taints that the pod does not tolerate are no domain."""


@dataclass(frozen=True, slots=True)
class PodTerm:
    """A required pod (anti-)affinity term: a topology key, and the workloads whose pods it looks for."""

    topology_key: str
    workload_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """One controller and the shape of its pods."""

    id: str
    namespace: str
    kind: str
    name: str
    replicas: int
    request: Resources
    node_selector: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[Requirement, ...] = ()
    """Node-affinity expressions that must all hold."""
    alternatives: tuple[tuple[Requirement, ...], ...] = ()
    """Node-affinity terms of which one must hold beside ``requirements``; empty when there is no choice."""
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[SpreadRule, ...] = ()
    anti_affinity_keys: tuple[str, ...] = ()
    """Topology keys on which two pods of this workload may not share a domain."""
    pod_affinity: tuple[PodTerm, ...] = ()
    """In the domain of each term a pod of one of its workloads must run; the workload itself may be one."""
    pod_anti_affinity: tuple[PodTerm, ...] = ()
    """No other workload of a term may run in the domain, nor this one where such a workload runs."""
    on_demand_minimum: int = 0
    """Pods of it that have to be on on-demand capacity; the others may be on spot."""
    pinned_zone: str = ""
    """Zone that its volumes live in; empty when it may run anywhere."""
    budget_allows: int | None = None
    """Pods that its disruption budget lets go right now; None when no budget selects it."""
    budget_count: int = 0
    """How many disruption budgets select its pods; the eviction API refuses more than one."""
    minimum_healthy: int = 0
    unmodelled: tuple[str, ...] = ()
    """Scheduling rules that none of these fields can say, such as ``pod_affinity``."""
    do_not_disrupt: bool = False
    has_local_storage: bool = False
    controlled: bool = True
    """False for bare pods, which nothing would recreate."""
    spot_tolerant: bool = True
    """False where the workload or the policy keeps it on on-demand capacity."""


@dataclass(frozen=True, slots=True)
class Node:
    """One running node and what it may still take."""

    id: str
    """Kubernetes node name."""
    instance_id: str
    instance_type: str
    zone: str
    zone_id: str
    capacity_type: CapacityType
    usd_per_hour: Decimal
    allocatable: Resources
    daemon_overhead: Resources
    """Requests of the daemon-set pods that run on it."""
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    launched_at: datetime
    ready: bool
    cordoned: bool
    group: str
    """Name of its Auto Scaling or Spotopt group; empty when unknown."""
    group_kind: str
    cpu_used_millis: int | None = None
    memory_used_mib: int | None = None
    protected_reason: str = ""
    """Why policy forbids touching it; empty when it may go."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How many pods of one workload run on one node."""

    workload_id: str
    node_id: str
    count: int


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """A cluster at one instant, as the agent and the cloud reported it."""

    cluster_id: str
    cluster_name: str
    region: str
    taken_at: datetime
    nodes: tuple[Node, ...]
    workloads: tuple[Workload, ...]
    placements: tuple[Placement, ...]
    pending: Mapping[str, int] = field(default_factory=dict)
    """Unscheduled pods by workload id."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One pool to buy from (instance type, zone, capacity type) and what a node of it gives."""

    instance_type: str
    family: str
    arch: str
    zone: str
    zone_id: str
    capacity_type: CapacityType
    usd_per_hour: Decimal
    interruption_risk: float
    """Probability of an interruption in the next 24 hours, 0 to 1; 0 for on-demand."""
    allocatable: Resources
    daemon_overhead: Resources
    labels: Mapping[str, str]
    burstable: bool = False
    back_off_until: datetime | None = None
    """Set while the pool is out of capacity."""
    prepaid: int = 0
    """Nodes of it that are paid for already: reserved instances and savings plans that nothing uses."""

    @property
    def pool(self) -> str:
        """Return the pool's stable name, ``zone_id:instance_type:capacity_type``."""
        return f"{self.zone_id}:{self.instance_type}:{self.capacity_type}"
