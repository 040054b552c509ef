"""What AWS says exists, in plain types: the only things that gateways return."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

CLUSTER_TAG = "kubernetes.io/cluster/"
EKS_CLUSTER_TAGS = ("eks:cluster-name", "aws:eks:cluster-name")
GROUP_TAG = "aws:autoscaling:groupName"
ACTION_TAG = "spotopt:action-id"
NODE_POOL_TAG = "karpenter.sh/nodepool"
SPOTOPT_GROUP = "spotopt"
NODE_LABEL_TAG = "k8s.io/cluster-autoscaler/node-template/label/"
NODE_TAINT_TAG = "k8s.io/cluster-autoscaler/node-template/taint/"

_ENVIRONMENTS = (
    ("prod", re.compile(r"(^|[^a-z])(prod|production|prd|live)([^a-z]|$)")),
    ("staging", re.compile(r"(^|[^a-z])(stag|staging|stage|stg|preprod|uat|qa)([^a-z]|$)")),
    ("dev", re.compile(r"(^|[^a-z])(dev|develop|development|test|testing|sandbox|lab)([^a-z]|$)")),
)


@dataclass(frozen=True, slots=True)
class AwsIdentity:
    """Who AWS says is calling."""

    account_id: str
    arn: str


@dataclass(frozen=True, slots=True)
class LaunchTemplate:
    """A launch template and the version to use: a number, ``$Default`` or ``$Latest``."""

    id: str
    version: str


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """One EC2 instance; ``lifecycle`` and ``state`` are spelled as our tables spell them."""

    instance_id: str
    instance_type: str
    lifecycle: str
    state: str
    az: str
    az_id: str
    launched_at: datetime
    subnet_id: str = ""
    ended_at: datetime | None = None
    """When AWS says it ended; None while it lives, or when AWS does not say."""
    end_reason: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def cluster_name(self) -> str:
        """Return the cluster that its tags name, or an empty string."""
        return cluster_named_by(self.tags)

    @property
    def launch_action_id(self) -> UUID | None:
        """Return the Action of ours that launched it; None for everybody else's instances."""
        try:
            return UUID(self.tags[ACTION_TAG])
        except (KeyError, ValueError):
            return None

    @property
    def group_key(self) -> tuple[str, str]:
        """Return the kind and name of what scales it; two empty strings when nothing does."""
        if group := self.tags.get(GROUP_TAG):
            return "asg", group
        if self.launch_action_id is not None:
            return "spotopt", SPOTOPT_GROUP
        if pool := self.tags.get(NODE_POOL_TAG):
            return "karpenter_nodepool", pool
        return "", ""


@dataclass(frozen=True, slots=True)
class FoundCluster:
    """One EKS cluster as DescribeCluster shows it."""

    name: str
    arn: str
    version: str
    endpoint: str
    vpc_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ScalingGroup:
    """One Auto Scaling group."""

    name: str
    min_size: int
    desired: int
    max_size: int
    launch_template: LaunchTemplate | None
    subnet_ids: tuple[str, ...]
    instance_types: tuple[str, ...]
    is_spot_enabled: bool
    suspended: frozenset[str]
    instance_ids: tuple[str, ...]
    tags: Mapping[str, str]
    leaving_ids: frozenset[str] = frozenset()
    """Members that it is ending, perhaps held by a lifecycle hook."""
    protected_ids: frozenset[str] = frozenset()
    """Members that somebody protects from scale-in."""


@dataclass(frozen=True, slots=True)
class ManagedNodeGroup:
    """One EKS managed node group and the Auto Scaling groups that carry it."""

    cluster_name: str
    name: str
    asg_names: tuple[str, ...]
    instance_types: tuple[str, ...]
    subnet_ids: tuple[str, ...]
    min_size: int
    desired: int
    max_size: int
    is_spot_enabled: bool
    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class FoundNodeGroup:
    """A node group whatever scales it, as our table keeps it."""

    cluster_name: str
    name: str
    kind: str
    asg_name: str = ""
    launch_template: LaunchTemplate | None = None
    subnet_ids: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    min_size: int = 0
    desired: int = 0
    max_size: int = 0
    is_spot_enabled: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RegionInventory:
    """Everything that was read of one region; ``read_at`` is when reading began."""

    region: str
    read_at: datetime
    instances: tuple[FoundInstance, ...]
    clusters: tuple[FoundCluster, ...]
    node_groups: tuple[FoundNodeGroup, ...]


@dataclass(frozen=True, slots=True)
class SpotQuote:
    """The spot price in force in one pool and its range over the past day, in USD per hour."""

    zone_id: str
    zone: str
    instance_type: str
    usd_per_hour: Decimal
    low_usd_per_hour: Decimal
    high_usd_per_hour: Decimal


@dataclass(frozen=True, slots=True)
class FleetOverride:
    """One pool that a fleet may launch in; a lower ``priority`` is preferred for on-demand."""

    instance_type: str
    subnet_id: str
    priority: float = 0.0
    zone_id: str = ""


@dataclass(frozen=True, slots=True)
class FleetRequest:
    """One request for a node; the same words and token bring AWS's first answer again."""

    capacity_type: str
    launch_template: LaunchTemplate
    pools: tuple[FleetOverride, ...]

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "FleetRequest":
        """Return the request that ``dataclasses.asdict`` turned into plain values."""
        pools = tuple(FleetOverride(**pool) for pool in told["pools"])
        return cls(told["capacity_type"], LaunchTemplate(**told["launch_template"]), pools)


@dataclass(frozen=True, slots=True)
class LaunchedInstance:
    """One instance that a fleet request started."""

    instance_id: str
    instance_type: str
    lifecycle: str
    az: str
    az_id: str
    subnet_id: str


@dataclass(frozen=True, slots=True)
class PoolRefusal:
    """Why one pool gave nothing; ``code`` is AWS's, such as InsufficientInstanceCapacity."""

    instance_type: str
    subnet_id: str
    az: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class LaunchResult:
    """What an instant fleet request brought: instances, and a refusal for each pool tried in vain."""

    fleet_id: str
    instances: tuple[LaunchedInstance, ...]
    refusals: tuple[PoolRefusal, ...]


def cluster_named_by(tags: Mapping[str, str]) -> str:
    """Return the EKS cluster that the tags of an instance or group name, or an empty string."""
    for tag in EKS_CLUSTER_TAGS:
        if tags.get(tag):
            return tags[tag]
    owners = (tag.removeprefix(CLUSTER_TAG) for tag in sorted(tags) if tag.startswith(CLUSTER_TAG))
    return next(owners, "")


def environment_of(name: str, tags: Mapping[str, str]) -> str:
    """Guess ``prod``, ``staging``, ``dev`` or ``other`` from an environment tag, else from the name."""
    lowered = {key.lower(): value.lower() for key, value in tags.items()}
    tagged = [lowered[key] for key in ("environment", "env", "stage") if key in lowered]
    for text in (*tagged, name.lower()):
        for environment, pattern in _ENVIRONMENTS:
            if pattern.search(text):
                return environment
    return "other"


def node_groups_of(
    scaling_groups: Iterable[ScalingGroup],
    managed: Iterable[ManagedNodeGroup],
    instances: Iterable[FoundInstance],
) -> tuple[FoundNodeGroup, ...]:
    """Join what EKS, Auto Scaling, Karpenter's tags and our own tags say into one list of node groups."""
    groups = {group.name: group for group in scaling_groups}
    found = [_managed(group, groups) for group in managed]
    carried = {name for group in managed for name in group.asg_names}
    for group in groups.values():
        cluster_name = cluster_named_by(group.tags)
        if cluster_name and group.name not in carried:
            found.append(_self_managed(cluster_name, group))
    pools = {
        (instance.cluster_name, *instance.group_key)
        for instance in instances
        if instance.cluster_name and instance.group_key[0] in ("spotopt", "karpenter_nodepool")
    }
    found.extend(FoundNodeGroup(cluster, name, kind) for cluster, kind, name in sorted(pools))
    return tuple(found)


def _managed(managed: ManagedNodeGroup, groups: Mapping[str, ScalingGroup]) -> FoundNodeGroup:
    """A managed group launches from the template that EKS gave its Auto Scaling group, not from its own."""
    asg_name = managed.asg_names[0] if managed.asg_names else ""
    group = groups.get(asg_name)
    return FoundNodeGroup(
        cluster_name=managed.cluster_name,
        name=managed.name,
        kind="managed_nodegroup",
        asg_name=asg_name,
        launch_template=group.launch_template if group else None,
        subnet_ids=(group.subnet_ids if group else ()) or managed.subnet_ids,
        instance_types=managed.instance_types or (group.instance_types if group else ()),
        min_size=group.min_size if group else managed.min_size,
        desired=group.desired if group else managed.desired,
        max_size=group.max_size if group else managed.max_size,
        is_spot_enabled=managed.is_spot_enabled,
        labels=managed.labels,
        taints=managed.taints,
    )


def _self_managed(cluster_name: str, group: ScalingGroup) -> FoundNodeGroup:
    labels = {
        tag.removeprefix(NODE_LABEL_TAG): value
        for tag, value in group.tags.items()
        if tag.startswith(NODE_LABEL_TAG)
    }
    taints = tuple(
        {"key": tag.removeprefix(NODE_TAINT_TAG), "value": value, "effect": effect}
        for tag, text in group.tags.items()
        if tag.startswith(NODE_TAINT_TAG)
        for value, _, effect in [text.partition(":")]
    )
    return FoundNodeGroup(
        cluster_name=cluster_name,
        name=group.name,
        kind="asg",
        asg_name=group.name,
        launch_template=group.launch_template,
        subnet_ids=group.subnet_ids,
        instance_types=group.instance_types,
        min_size=group.min_size,
        desired=group.desired,
        max_size=group.max_size,
        is_spot_enabled=group.is_spot_enabled,
        labels=labels,
        taints=taints,
    )
