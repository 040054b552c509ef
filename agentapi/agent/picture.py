"""Aggregate what the agent knows into the state that snapshots carry."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentapi.agent.facts import BudgetFact, ControllerFact, NodeFact, Owner, PodFact, VolumeFact
from agentapi.agent.labels import selects
from agentapi.agent.neighbours import Member, Neighbourhood, Ties
from agentapi.agent.shapes import Request
from agentapi.agent.view import Use, View
from agentapi.protocol import Constraints, NodeReport, State, WorkloadReport

USAGE_STEP = 0.10
"""Use that moved by less than this share is reported as before, so that deltas stay small."""
_DAEMON = "DaemonSet"


@dataclass(slots=True)
class _Group:
    """The pods of one controller."""

    namespace: str
    owner: Owner
    controller: ControllerFact | None = None
    pods: list[PodFact] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.owner.kind}/{self.owner.name}"

    @property
    def example(self) -> PodFact | ControllerFact | None:
        """Return what tells the shape of its pods; each daemon pod is tied to its node by name."""
        return self.pods[0] if self.pods and self.owner.kind != _DAEMON else self.controller

    @property
    def labels(self) -> Mapping[str, str]:
        return self.pods[0].labels if self.pods else self.controller.labels if self.controller else {}


@dataclass(slots=True)
class _Load:
    """What is bound to one node."""

    bound: Request = field(default_factory=Request)
    pods: int = 0
    daemons: Request = field(default_factory=Request)
    daemon_pods: int = 0


def draw(view: View, before: State) -> State:
    """Return the cluster's state now; ``before`` steadies figures of use that hardly moved."""
    pods = [pod for pod in view.pods.items.values() if not pod.is_over]
    groups = _groups(view, pods)
    budgets: dict[str, list[BudgetFact]] = defaultdict(list)
    for budget in view.budgets.items.values():
        budgets[budget.namespace].append(budget)
    constraints = _constraints(view, groups)
    workloads = [_workload(view, g, budgets[g.namespace], constraints[g.key], before) for g in groups]
    loads = _loads(pods)
    names = {node.name for node in view.nodes.items.values()}
    nodes = [_node(node, loads.get(node.name, _Load()), view, before) for node in view.nodes.items.values()]
    return State(
        nodes={node.name: node for node in sorted(nodes, key=lambda node: node.name)},
        workloads={workload.key: workload for workload in sorted(workloads, key=lambda row: row.key)},
        placements=dict(_placements(groups, names)),
        pods=sum(bool(pod.node) for pod in pods),
        pending_pods=sum(_is_pending(pod) for pod in pods),
        karpenter=view.karpenter,
    )


def _groups(view: View, pods: Iterable[PodFact]) -> list[_Group]:
    groups: dict[tuple[str, Owner], _Group] = {}
    collections = (
        ("Deployment", view.deployments),
        ("StatefulSet", view.stateful_sets),
        (_DAEMON, view.daemon_sets),
    )
    for kind, reflector in collections:
        for (namespace, name), controller in reflector.items.items():
            owner = Owner(kind, name)
            groups[namespace, owner] = _Group(namespace, owner, controller)
    for (namespace, name), controller in view.replica_sets.items.items():
        if controller.owner is None:
            owner = Owner("ReplicaSet", name)
            groups[namespace, owner] = _Group(namespace, owner, controller)
    for pod in pods:
        if not pod.is_mirror:
            owner = view.workload_of(pod)
            groups.setdefault((pod.namespace, owner), _Group(pod.namespace, owner)).pods.append(pod)
    return [
        group for group in groups.values() if group.pods or (group.controller and group.controller.replicas)
    ]


def _workload(
    view: View, group: _Group, budgets: Sequence[BudgetFact], constraints: Constraints, before: State
) -> WorkloadReport:
    living = [pod for pod in group.pods if not pod.terminating]
    request = _request(group)
    held = before.workloads.get(group.key)
    cpu, memory = _mean_use(view, living)
    mine = [budget for budget in budgets if selects(budget.selector, group.labels)]
    return WorkloadReport(
        key=group.key,
        namespace=group.namespace,
        kind=group.owner.kind,
        name=group.owner.name,
        replicas=group.controller.replicas if group.controller else len(living),
        ready_replicas=sum(pod.ready for pod in living),
        pending_replicas=sum(_is_pending(pod) for pod in living),
        cpu_request_millis=request.cpu_millis,
        memory_request_mib=request.memory_mib,
        gpu_request=request.gpu,
        ephemeral_request_mib=request.ephemeral_mib,
        cpu_used_millis=_steady(cpu, held.cpu_used_millis if held else None),
        memory_used_mib=_steady(memory, held.memory_used_mib if held else None),
        budget_count=len(mine),
        budget_allows=min((budget.allows for budget in mine), default=None),
        budget_minimum=max((budget.minimum for budget in mine), default=0),
        constraints=constraints,
    )


def _request(group: _Group) -> Request:
    if not group.pods:
        return group.controller.request if group.controller else Request()
    largest = Request()
    for pod in group.pods:
        largest = largest.largest(pod.request)
    return largest


def _constraints(view: View, groups: Sequence[_Group]) -> dict[str, Constraints]:
    """Return each group's constraints by its key."""
    examples = [group.example for group in groups]
    ties = [example.ties if example else Ties() for example in examples]
    members = [
        Member(group.key, group.namespace, group.labels, tie, is_daemon=group.owner.kind == _DAEMON)
        for group, tie in zip(groups, ties, strict=True)
    ]
    around = Neighbourhood(members)
    return {
        group.key: around.constrained(index, _own_constraints(view, group))
        for index, group in enumerate(groups)
    }


def _own_constraints(view: View, group: _Group) -> Constraints:
    example = group.example
    if example is None:
        return Constraints()
    if not isinstance(example, PodFact):
        return example.constraints
    constraints = replace(
        example.constraints,
        do_not_disrupt=any(pod.constraints.do_not_disrupt for pod in group.pods),
        has_local_storage=any(pod.constraints.has_local_storage for pod in group.pods),
        spot_tolerant=all(pod.constraints.spot_tolerant for pod in group.pods),
        grace_seconds=max(pod.constraints.grace_seconds for pod in group.pods),
    )
    volumes = [volume for pod in group.pods for volume in _volumes(view, pod)]
    if any(volume.is_tied for volume in volumes):
        constraints = replace(constraints, unmodelled=(*constraints.unmodelled, "volume_affinity"))
    zones = {volume.zone for volume in volumes if volume.zone}
    if not zones:
        return constraints
    return replace(constraints, zonal_volumes=True, pinned_zone=zones.pop() if len(zones) == 1 else "")


def _volumes(view: View, pod: PodFact) -> Iterable[VolumeFact]:
    for claim in pod.claims:
        name = view.claims.items.get((pod.namespace, claim), "")
        if volume := view.volumes.items.get(("", name)):
            yield volume


def _loads(pods: Iterable[PodFact]) -> dict[str, _Load]:
    loads: dict[str, _Load] = defaultdict(_Load)
    for pod in pods:
        if not pod.node:
            continue
        load = loads[pod.node]
        load.bound += pod.request
        load.pods += 1
        if pod.is_mirror or (pod.owner is not None and pod.owner.kind == _DAEMON):
            load.daemons += pod.request
            load.daemon_pods += 1
    return loads


def _node(node: NodeFact, load: _Load, view: View, before: State) -> NodeReport:
    held = before.nodes.get(node.name)
    use: Use | None = view.node_usage.get(node.name)
    return NodeReport(
        name=node.name,
        instance_id=node.instance_id,
        ready=node.ready,
        unschedulable=node.unschedulable,
        cpu_allocatable_millis=node.cpu_millis,
        memory_allocatable_mib=node.memory_mib,
        pods_allocatable=node.pods,
        gpu_allocatable=node.gpu,
        ephemeral_allocatable_mib=node.ephemeral_mib,
        cpu_requested_millis=load.bound.cpu_millis,
        memory_requested_mib=load.bound.memory_mib,
        pod_count=load.pods,
        daemon_cpu_millis=load.daemons.cpu_millis,
        daemon_memory_mib=load.daemons.memory_mib,
        daemon_ephemeral_mib=load.daemons.ephemeral_mib,
        daemon_pods=load.daemon_pods,
        cpu_used_millis=_steady(use.cpu_millis if use else None, held.cpu_used_millis if held else None),
        memory_used_mib=_steady(use.memory_mib if use else None, held.memory_used_mib if held else None),
        labels=node.labels,
        taints=node.taints,
    )


def _placements(groups: Iterable[_Group], nodes: set[str]) -> Iterable[tuple[str, Mapping[str, int]]]:
    for group in groups:
        if group.owner.kind == _DAEMON:
            continue
        where = Counter(pod.node for pod in group.pods if pod.node in nodes and not pod.terminating)
        if where:
            yield group.key, dict(where)


def _is_pending(pod: PodFact) -> bool:
    return not pod.node and not pod.terminating


def _mean_use(view: View, pods: Sequence[PodFact]) -> tuple[int | None, int | None]:
    uses = [use for pod in pods if (use := view.pod_usage.get((pod.namespace, pod.name)))]
    if not uses:
        return None, None
    return (
        round(sum(use.cpu_millis for use in uses) / len(uses)),
        round(sum(use.memory_mib for use in uses) / len(uses)),
    )


def _steady(current: int | None, held: int | None) -> int | None:
    if current is None or held is None:
        return current
    return held if abs(current - held) <= USAGE_STEP * held else current
