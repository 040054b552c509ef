"""What an agent reports of a cluster: nodes, workloads, placements; complete or as a delta."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from agentapi.protocol.codec import Count, Json, Name, Positive, Sequence, Short


@dataclass(frozen=True, slots=True)
class Taint:
    """A node's taint, as Kubernetes spells it."""

    key: Name
    effect: Short
    value: Name = ""


@dataclass(frozen=True, slots=True)
class Toleration:
    """A pod's toleration; without a key and with ``Exists`` it tolerates everything."""

    key: Name = ""
    operator: Short = "Equal"
    value: Name = ""
    effect: Short = ""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One required node-affinity expression: In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: Name
    operator: Short
    values: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """A hard topology spread (``DoNotSchedule``), and whose pods its selector counts."""

    topology_key: Name
    max_skew: Count
    min_domains: Count = 0
    counts_own: bool = True
    also_counts: tuple[Name, ...] = ()
    """Keys of other workloads."""
    honors_affinity: bool = True
    honors_taints: bool = False


@dataclass(frozen=True, slots=True)
class PodTerm:
    """A required pod (anti-)affinity: a topology key, and the keys of the workloads that it is about."""

    topology_key: Name
    workloads: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Constraints:
    """Where a workload's pods may run and how they may be disturbed; stored as ``Workload.constraints``.

    The stored JSON object has these keys, and a missing key means the default here:

    ``node_selector``       object of label → value that a node must carry
    ``requirements``        list of {key, operator, values}; all must hold
    ``alternatives``        list of such lists, of which one must hold; empty unless there are several terms
    ``tolerations``         list of {key, operator, value, effect}, without the two that every pod is given
    ``spread``              list of {topology_key, max_skew, min_domains, counts_own, also_counts,
                            honors_affinity, honors_taints}
    ``anti_affinity_keys``  topology keys on which two of its pods may not share a domain
    ``pod_affinity``        list of {topology_key, workloads}: beside a pod of one of these workloads
    ``pod_anti_affinity``   list of {topology_key, workloads}: away from other workloads; ports of the node
                            that several want count as well
    ``on_demand``           pods that must be on on-demand capacity: a number (``2``) or a share (``50%``)
    ``pinned_zone``         zone name that all its volumes live in
    ``zonal_volumes``       true when pods hold volumes bound to zones; with an empty ``pinned_zone`` each
                            pod must stay in the zone it runs in
    ``do_not_disrupt``      some pod is annotated do-not-disrupt or safe-to-evict=false
    ``has_local_storage``   emptyDir or hostPath, unless annotated safe-to-evict=true
    ``controlled``          false for bare pods, which nothing would start again
    ``spot_tolerant``       false where a label, annotation, selector or affinity keeps it off spot capacity
    ``grace_seconds``       longest termination grace period of its pods
    ``unmodelled``          rules that these keys cannot express (such as ``namespace_selector`` or
                            ``volume_affinity``): the scheduler may refuse a place that they allow
    """

    node_selector: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[Requirement, ...] = ()
    alternatives: tuple[tuple[Requirement, ...], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    spread: tuple[Spread, ...] = ()
    anti_affinity_keys: tuple[Name, ...] = ()
    pod_affinity: tuple[PodTerm, ...] = ()
    pod_anti_affinity: tuple[PodTerm, ...] = ()
    on_demand: Short = ""
    pinned_zone: Short = ""
    zonal_volumes: bool = False
    do_not_disrupt: bool = False
    has_local_storage: bool = False
    controlled: bool = True
    spot_tolerant: bool = True
    grace_seconds: Count = 30
    unmodelled: tuple[Short, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node; requests count every pod that is bound to it, usage is null when nothing measured it."""

    name: Name
    instance_id: Short
    """From its provider id; empty for a node that is no EC2 instance."""
    ready: bool = False
    unschedulable: bool = False
    cpu_allocatable_millis: Count = 0
    memory_allocatable_mib: Count = 0
    pods_allocatable: Count = 0
    gpu_allocatable: Count = 0
    ephemeral_allocatable_mib: Count = 0
    cpu_requested_millis: Count = 0
    memory_requested_mib: Count = 0
    pod_count: Count = 0
    daemon_cpu_millis: Count = 0
    daemon_memory_mib: Count = 0
    daemon_ephemeral_mib: Count = 0
    daemon_pods: Count = 0
    """Pods of daemon sets and static pods, which live and die with the node."""
    cpu_used_millis: Count | None = None
    memory_used_mib: Count | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadReport:
    """One controller and the shape of its pods (the largest, while a rollout mixes two shapes)."""

    key: Name
    """``namespace/kind/name``; the kind of a bare pod is ``Pod``."""
    namespace: Short
    kind: Short
    name: Name
    replicas: Count = 0
    """Wanted by its controller; for kinds whose wish the agent cannot read, the pods that exist."""
    ready_replicas: Count = 0
    pending_replicas: Count = 0
    """Pods that no node has yet."""
    cpu_request_millis: Count = 0
    memory_request_mib: Count = 0
    gpu_request: Count = 0
    ephemeral_request_mib: Count = 0
    cpu_used_millis: Count | None = None
    memory_used_mib: Count | None = None
    """Mean use of one pod."""
    budget_count: Count = 0
    budget_allows: Count | None = None
    """Pods that its tightest disruption budget lets go now; null when no budget selects it."""
    budget_minimum: Count = 0
    constraints: Constraints = Constraints()


@dataclass(frozen=True, slots=True)
class NodePoolReport:
    """One of Karpenter's NodePools."""

    name: Name
    spec: Json = field(default_factory=dict)
    ours: bool = False
    """Labelled as applied by us."""
    steers: Name = ""
    """Of one of ours, the customer's pool that it stands beside."""
    used: Mapping[str, Short] = field(default_factory=dict)
    """Capacity of its nodes by resource, as its status tells it; ``nodes`` counts them."""
    managers: Mapping[str, tuple[Name, ...]] = field(default_factory=dict)
    """Who else manages which fields of ours: ``disruption``, ``limits``, ``template`` or ``weight``."""


@dataclass(frozen=True, slots=True)
class KarpenterReport:
    """Whether Karpenter runs here, and its node pools by name."""

    status: Short
    """``running``, ``absent``, or ``forbidden`` where the agent may not read its objects."""
    pools: tuple[NodePoolReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the agent saw at ``taken_at``; complete when ``base`` is None, else what changed since."""

    agent_id: Short
    sequence: Sequence
    taken_at: datetime
    base: Sequence | None = None
    pods: Count = 0
    """Pods bound to nodes, in the whole cluster."""
    pending_pods: Count = 0
    nodes: tuple[NodeReport, ...] = ()
    workloads: tuple[WorkloadReport, ...] = ()
    placements: Mapping[str, Mapping[str, Positive]] = field(default_factory=dict)
    """Workload key → node name → pods; an empty inner object means that none of its pods has a node.

    Daemon-set and static pods are not placed: the node's ``daemon_*`` fields count them.
    """
    removed_nodes: tuple[Name, ...] = ()
    removed_workloads: tuple[Name, ...] = ()
    karpenter: KarpenterReport | None = None
    """All of it; in a delta null when it is as before, in a full one when the agent could never read it."""


@dataclass(frozen=True, slots=True)
class SnapshotAnswer:
    """What the server made of a snapshot."""

    acknowledged: Sequence
    resync: bool = False
    unknown_nodes: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """Everything that snapshots carry, by key: what the agent sees, or what the server is known to hold."""

    nodes: Mapping[str, NodeReport] = field(default_factory=dict)
    workloads: Mapping[str, WorkloadReport] = field(default_factory=dict)
    placements: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pods: int = 0
    pending_pods: int = 0
    karpenter: KarpenterReport | None = None

    def full(self, *, agent_id: str, sequence: int, taken_at: datetime) -> Snapshot:
        """Return the complete snapshot of this state."""
        return Snapshot(
            agent_id=agent_id,
            sequence=sequence,
            taken_at=taken_at,
            pods=self.pods,
            pending_pods=self.pending_pods,
            nodes=tuple(self.nodes.values()),
            workloads=tuple(self.workloads.values()),
            placements={key: where for key, where in self.placements.items() if where},
            karpenter=self.karpenter,
        )

    def delta(
        self, held: "State", *, agent_id: str, sequence: int, base: int, taken_at: datetime
    ) -> Snapshot:
        """Return what turns the ``held`` state into this one."""
        placed = self.placements.keys() | held.placements.keys()
        return Snapshot(
            agent_id=agent_id,
            sequence=sequence,
            taken_at=taken_at,
            base=base,
            pods=self.pods,
            pending_pods=self.pending_pods,
            nodes=tuple(node for name, node in self.nodes.items() if held.nodes.get(name) != node),
            workloads=tuple(row for key, row in self.workloads.items() if held.workloads.get(key) != row),
            placements={
                key: self.placements.get(key, {})
                for key in sorted(placed & self.workloads.keys())
                if self.placements.get(key, {}) != held.placements.get(key, {})
            },
            removed_nodes=tuple(sorted(held.nodes.keys() - self.nodes.keys())),
            removed_workloads=tuple(sorted(held.workloads.keys() - self.workloads.keys())),
            karpenter=self.karpenter if self.karpenter != held.karpenter else None,
        )

    def after(self, snapshot: Snapshot) -> "State":
        """Return this state with a snapshot applied: a full one replaces it, a delta changes it."""
        start = State() if snapshot.base is None else self
        gone_nodes, gone_workloads = set(snapshot.removed_nodes), set(snapshot.removed_workloads)
        nodes = {name: node for name, node in start.nodes.items() if name not in gone_nodes}
        workloads = {key: row for key, row in start.workloads.items() if key not in gone_workloads}
        placements = {key: where for key, where in start.placements.items() if key not in gone_workloads}
        nodes.update((node.name, node) for node in snapshot.nodes)
        workloads.update((row.key, row) for row in snapshot.workloads)
        placements.update(snapshot.placements)
        return State(
            nodes=nodes,
            workloads=workloads,
            placements={key: where for key, where in placements.items() if where},
            pods=snapshot.pods,
            pending_pods=snapshot.pending_pods,
            karpenter=snapshot.karpenter or start.karpenter,
        )

    def without_nodes(self, names: frozenset[str]) -> "State":
        """Return this state as if the nodes, and where pods run on them, had never been told."""
        if not names:
            return self
        return replace(
            self,
            nodes={name: node for name, node in self.nodes.items() if name not in names},
            placements={key: where for key, where in self.placements.items() if not names & where.keys()},
        )
