"""The starting fleets: what exists in AWS and Kubernetes when a world begins."""

from dataclasses import dataclass, field
from datetime import timedelta

AGE = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Group:
    """A node group; `kind` is asg (self-managed Auto Scaling group) or managed (EKS managed node group)."""

    name: str
    kind: str
    instance_type: str
    count: int
    min: int
    max: int
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[dict[str, str]] = field(default_factory=list)
    lifecycle: str = "on-demand"


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget over the workload's pods: exactly one of the two is set (number or "50%")."""

    min_available: int | str | None = None
    max_unavailable: int | str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the pods really use, as shares of the request: mean, daily swing, and memory."""

    cpu_share: float = 0.35
    cpu_swing: float = 0.15
    memory_share: float = 0.55


@dataclass(frozen=True, slots=True)
class Workload:
    """A controller and its pods; kind is Deployment, StatefulSet, DaemonSet or Pod (bare).

    `spread_hosts` keeps two of its pods off one node; `volume_gib` gives each pod a disk bound to its zone.
    """

    kind: str
    namespace: str
    name: str
    replicas: int
    cpu_millis: int
    memory_mib: int
    budget: Budget | None = None
    usage: Usage = Usage()
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    on_demand_only: bool = False
    tolerations: tuple[dict[str, str], ...] = ()
    spread_zones: bool = False
    spread_hosts: bool = False
    empty_dir: bool = False
    volume_gib: int = 0
    grace_seconds: int = 30
    priority_class: str = ""


@dataclass(frozen=True, slots=True)
class NodePool:
    """One of Karpenter's node pools, over instance families; every field as Karpenter has it."""

    name: str
    families: tuple[str, ...]
    capacity_types: tuple[str, ...] = ("spot", "on-demand")
    weight: int = 0
    cpu_limit: int = 1000
    consolidate_after: str = "30s"


@dataclass(frozen=True, slots=True)
class Cluster:
    """An EKS cluster; `zones` are zone names, groups spread their nodes over them in order.

    `karpenter` are its node pools; None where Karpenter is not installed.
    """

    name: str
    region: str
    k8s_version: str
    environment: str
    zones: tuple[str, ...]
    groups: tuple[Group, ...]
    workloads: tuple[Workload, ...]
    karpenter: tuple[NodePool, ...] | None = None


@dataclass(frozen=True, slots=True)
class BareInstances:
    """EC2 instances that belong to no cluster."""

    region: str
    zones: tuple[str, ...]
    instance_type: str
    count: int
    lifecycle: str = "on-demand"
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """A customer's AWS account."""

    account_id: str
    clusters: tuple[Cluster, ...]
    instances: tuple[BareInstances, ...] = ()


@dataclass(frozen=True, slots=True)
class StartingFleet:
    """Everything that exists at the start, `age` before the first start of the simulator."""

    name: str
    accounts: tuple[Account, ...]
    age: timedelta = AGE
