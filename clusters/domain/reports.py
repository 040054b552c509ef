"""What an agent says about its cluster, in the words of the inventory."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NodeState:
    """One Kubernetes node; requests count every pod bound to it, usage is None when nothing measured it."""

    name: str
    instance_id: str
    is_ready: bool
    is_cordoned: bool
    cpu_allocatable_millis: int
    memory_allocatable_mib: int
    pods_allocatable: int
    cpu_requested_millis: int
    memory_requested_mib: int
    pod_count: int
    daemon_cpu_millis: int
    daemon_memory_mib: int
    daemon_pods: int
    cpu_used_millis: int | None
    memory_used_mib: int | None
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]
    gpu_allocatable: int = 0
    ephemeral_allocatable_mib: int = 0
    daemon_ephemeral_mib: int = 0


@dataclass(frozen=True, slots=True)
class WorkloadState:
    """One controller and the shape of its pods."""

    key: str
    namespace: str
    kind: str
    name: str
    replicas: int
    ready_replicas: int
    pending_replicas: int
    cpu_request_millis: int
    memory_request_mib: int
    gpu_request: int
    cpu_used_millis: int | None
    memory_used_mib: int | None
    budget_count: int
    budget_allows: int | None
    budget_minimum: int
    constraints: Mapping[str, object]
    ephemeral_request_mib: int = 0


@dataclass(frozen=True, slots=True)
class NodePoolState:
    """One of Karpenter's NodePools."""

    name: str
    spec: Mapping[str, object]
    is_ours: bool
    steers: str
    used: Mapping[str, str]
    managers: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class KarpenterState:
    """Whether Karpenter runs (``running``, ``absent`` or ``forbidden``), and all of its node pools."""

    status: str
    pools: tuple[NodePoolState, ...] = ()


@dataclass(frozen=True, slots=True)
class InventoryReport:
    """A whole cluster when ``base`` is None, else what changed since the report with that sequence."""

    sequence: int
    base: int | None
    pods: int
    pending_pods: int
    nodes: tuple[NodeState, ...] = ()
    workloads: tuple[WorkloadState, ...] = ()
    placements: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Workload key → node name → pods."""
    removed_nodes: frozenset[str] = frozenset()
    removed_workloads: frozenset[str] = frozenset()
    karpenter: KarpenterState | None = None
    """None when it is as before, or in a full report when the agent cannot tell."""

    @property
    def is_full(self) -> bool:
        """Tell whether what the report does not mention is gone."""
        return self.base is None


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a report."""

    acknowledged: int
    """Sequence at which the inventory stands now."""
    needs_resync: bool = False
    unknown_nodes: frozenset[str] = frozenset()
    """Nodes that no instance of the inventory is yet; nothing about them was stored."""
