"""Which nodes may be disrupted at all, and why the others are left alone."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from policies.domain.model import DAEMON_KINDS
from policies.domain.plan import Refusal
from policies.domain.policy import PROTECTED_NAMESPACES, Rules
from policies.domain.refusals import Code, node_refusal, workload_refusal
from policies.domain.reversion import LEAST_WAIT, PACE, may_revert
from policies.domain.shapes import CapacityType, ClusterSnapshot, Node, Workload

OWN_GROUP_KIND = "spotopt"
"""Kind of the groups of nodes that Spotopt launched."""
UNREADY_GROUP_SHARE = 0.20
"""Voluntary disruption stops in a node group of which more than this share is unready."""


def under_policy(snapshot: ClusterSnapshot, rules: Rules) -> ClusterSnapshot:
    """Return the snapshot with workloads of namespaces that the policy keeps off spot marked so."""

    def resolved(workload: Workload) -> Workload:
        wish = rules.spot_affinity.get(workload.namespace, rules.default_spot_affinity)
        barred = wish == "none"
        return replace(workload, spot_tolerant=False) if barred else workload

    return replace(snapshot, workloads=tuple(resolved(workload) for workload in snapshot.workloads))


def pods_by_node(snapshot: ClusterSnapshot) -> dict[str, dict[str, int]]:
    """Return node id → workload id → pods, without daemon sets and static pods."""
    kinds = {workload.id: workload.kind for workload in snapshot.workloads}
    answer: dict[str, dict[str, int]] = defaultdict(dict)
    for placement in snapshot.placements:
        if kinds.get(placement.workload_id) in DAEMON_KINDS or placement.count <= 0:
            continue
        pods = answer[placement.node_id]
        pods[placement.workload_id] = pods.get(placement.workload_id, 0) + placement.count
    return answer


def refused_nodes(snapshot: ClusterSnapshot, rules: Rules, now: datetime) -> dict[str, Refusal]:
    """Return the refusal of each node that must not be disrupted, by node id.

    A node that carries pods of a protected or excluded namespace (daemon sets aside) is kept:
    what runs in kube-system is never moved for money.
    """
    workloads = {workload.id: workload for workload in snapshot.workloads}
    pods = pods_by_node(snapshot)
    unhealthy, last_spot = unhealthy_groups(snapshot.nodes), _last_own_spot(snapshot.nodes)
    refused: dict[str, Refusal] = {}
    for node in snapshot.nodes:
        carried = [workloads.get(workload_id) for workload_id in pods.get(node.id, {})]
        reason = (
            _own_reason(node, rules, now, unhealthy, last_spot)
            or pods_reason(carried, rules)
            or _consolidation_reason(rules, has_pods=bool(carried))
        )
        if reason:
            refused[node.id] = node_refusal(node, *reason)
    return refused


def refused_workloads(snapshot: ClusterSnapshot, rules: Rules) -> Iterator[Refusal]:
    """Yield one refusal for each workload whose pods must not be evicted."""
    for workload in snapshot.workloads:
        reason = None if workload.kind in DAEMON_KINDS else undisruptable(workload, rules)
        if reason:
            yield workload_refusal(workload, *reason)


def unhealthy_groups(nodes: Sequence[Node]) -> frozenset[str]:
    """Return the node groups of which more than a fifth is unready."""
    total = Counter(node.group for node in nodes if node.group)
    unready = Counter(node.group for node in nodes if node.group and not node.ready)
    return frozenset(group for group, count in unready.items() if count > UNREADY_GROUP_SHARE * total[group])


def node_reason(
    node: Node, rules: Rules, now: datetime, last_spot: datetime | None = None
) -> tuple[Code, str] | None:
    """Return why the node itself, whatever runs on it, must not be disrupted.

    ``last_spot`` is when Spotopt last launched a spot node, if returns from on-demand nodes are to be paced.
    """
    if node.protected_reason:
        return Code.PROTECTED, f"Kept: {node.protected_reason}"
    if not node.ready:
        return Code.NOT_READY, "Kept: the node is not ready, so its state is unknown."
    youth = _youth(node, rules, now, last_spot)
    if youth:
        return youth
    return _exclusion(node, rules)


def _exclusion(node: Node, rules: Rules) -> tuple[Code, str] | None:
    """Return what of the node the policy excludes."""
    label = next((key for key, value in rules.excluded_labels.items() if node.labels.get(key) == value), None)
    if label is not None:
        return Code.EXCLUDED_LABEL, f"Kept: its label {label}={node.labels[label]} is excluded by the policy."
    taint = next((taint.key for taint in node.taints if taint.key in rules.excluded_taints), None)
    if taint is not None:
        return Code.EXCLUDED_TAINT, f"Kept: its taint {taint} is excluded by the policy."
    if node.instance_type in rules.excluded_instance_types:
        return Code.EXCLUDED_TYPE, f"Kept: {node.instance_type} is excluded by the policy."
    return None


def _youth(node: Node, rules: Rules, now: datetime, last_spot: datetime | None) -> tuple[Code, str] | None:
    """Return why the node is too young to go; one that stands in for spot capacity stays longer."""
    if now - node.launched_at < rules.min_node_lifetime:
        minutes = int(rules.min_node_lifetime.total_seconds() // 60)
        return Code.TOO_YOUNG, f"Kept: the node is younger than {minutes} minutes."
    if not is_own_on_demand(node):
        return None
    wait = max(rules.spot_reversion, LEAST_WAIT)
    if not may_revert(since=node.launched_at, last_reversion=None, now=now, wait=wait, pace=PACE):
        minutes = int(wait.total_seconds() // 60)
        return Code.FALLBACK, f"Kept: Spotopt launched it on demand less than {minutes} minutes ago."
    if not may_revert(since=node.launched_at, last_reversion=last_spot, now=now, wait=wait, pace=PACE):
        minutes = int(PACE.total_seconds() // 60)
        return Code.FALLBACK, (
            f"Kept: the last spot node came less than {minutes} minutes ago; the return to spot is paced."
        )
    return None


def is_own_on_demand(node: Node) -> bool:
    """Tell whether Spotopt launched it on demand: because spot was short, or because the policy mixes."""
    return node.group_kind == OWN_GROUP_KIND and node.capacity_type is CapacityType.ON_DEMAND


def _last_own_spot(nodes: Sequence[Node]) -> datetime | None:
    """Return when Spotopt last launched a spot node that still runs."""
    return max(
        (
            node.launched_at
            for node in nodes
            if node.group_kind == OWN_GROUP_KIND and node.capacity_type is CapacityType.SPOT
        ),
        default=None,
    )


def undisruptable(workload: Workload, rules: Rules) -> tuple[Code, str] | None:
    """Return why no pod of the workload may be evicted now, or None when one may be."""
    name = f"{workload.namespace}/{workload.name}"
    if workload.namespace in rules.excluded_namespaces or workload.namespace in PROTECTED_NAMESPACES:
        return Code.PROTECTED_NAMESPACE, f"{name} runs in a protected namespace."
    if workload.do_not_disrupt:
        return Code.DO_NOT_DISRUPT, f"{name} is marked do-not-disrupt."
    if not workload.controlled:
        return Code.BARE_POD, f"{name} has no controller that would start it again."
    if workload.unmodelled:
        rules_named = ", ".join(workload.unmodelled)
        return Code.UNMODELLED_RULES, f"{name} has scheduling rules that are not planned with: {rules_named}."
    if workload.has_local_storage:
        return Code.LOCAL_STORAGE, f"{name} keeps data on the node's own disk."
    return _budget_reason(workload, name)


def _budget_reason(workload: Workload, name: str) -> tuple[Code, str] | None:
    if workload.budget_count > 1:
        budgets = workload.budget_count
        return (
            Code.SEVERAL_BUDGETS,
            f"{name} has {budgets} disruption budgets; Kubernetes then evicts nothing.",
        )
    if workload.budget_allows is None or workload.budget_allows > 0:
        return None
    if workload.minimum_healthy >= workload.replicas:
        return Code.BUDGET_NEVER_ALLOWS, (
            f"{name} must keep {workload.minimum_healthy} of {workload.replicas} pods, so none may ever go."
        )
    return Code.BUDGET_EXHAUSTED, f"The disruption budget of {name} lets no pod go right now."


def _consolidation_reason(rules: Rules, *, has_pods: bool) -> tuple[Code, str] | None:
    """Return why the policy empties no such node."""
    if rules.consolidation == "none":
        return Code.CONSOLIDATION_OFF, "Kept: the policy does not let nodes be emptied."
    if rules.consolidation == "empty" and has_pods:
        return Code.CONSOLIDATION_OFF, "Kept: the policy deletes only nodes without pods."
    return None


def _own_reason(
    node: Node, rules: Rules, now: datetime, unhealthy: frozenset[str], last_spot: datetime | None
) -> tuple[Code, str] | None:
    reason = node_reason(node, rules, now, last_spot)
    if reason:
        return reason
    if node.cordoned:
        return Code.CORDONED, "Kept: the node is cordoned, so somebody is already working on it."
    if node.group in unhealthy:
        return Code.GROUP_UNHEALTHY, f"Kept: more than a fifth of its group {node.group} is not ready."
    return None


def pods_reason(carried: Sequence[Workload | None], rules: Rules) -> tuple[Code, str] | None:
    """Return why the pods on a node must stay there; None stands for pods of an unknown workload."""
    described = [workload for workload in carried if workload is not None]
    if len(described) < len(carried):
        return Code.UNKNOWN_PODS, "Kept: it carries pods that the last snapshot does not describe."
    for workload in sorted(described, key=lambda w: (w.namespace, w.name, w.id)):
        reason = undisruptable(workload, rules)
        if reason:
            return reason[0], f"Kept: {reason[1]}"
    return None
