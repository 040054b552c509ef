"""Why an optimization left things alone, in words for its page."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_LABELS = {
    "protected": "Protected",
    "not_ready": "Not ready",
    "cordoned": "Cordoned by somebody",
    "protected_namespace": "In a protected namespace",
    "nothing_cheaper": "Nothing cheaper was found",
    "too_young": "Launched too recently",
    "excluded_label": "Excluded by a label",
    "excluded_taint": "Excluded by a taint",
    "consolidation_off": "The policy empties no such nodes",
    "excluded_instance_type": "Instance type is excluded",
    "group_unhealthy": "Node group is not healthy",
    "unknown_pods": "Runs pods that were not reported",
    "unmodelled_rules": "Placement rules that cannot be modelled",
    "do_not_disrupt": "Marked do-not-disrupt",
    "bare_pod": "Pod without a controller",
    "local_storage": "Data on the node's own disk",
    "several_budgets": "Several disruption budgets",
    "budget_never_allows": "Disruption budget never allows it",
    "budget_exhausted": "Disruption budget is used up",
    "worth_keeping": "Worth keeping",
    "no_room_elsewhere": "No room on other nodes",
    "node_selection": "Node selector or affinity allows no other node",
    "taints": "Taints of the other nodes",
    "volume_zone": "Volumes are in another zone",
    "capacity_type": "May not run on spot",
    "spread": "Topology spread",
    "anti_affinity": "Pods that must be kept apart",
    "pod_affinity": "Pods that must be kept together",
    "neighbour_needed": "Other pods must be near its pods",
    "on_demand_minimum": "Pods that need on-demand capacity",
    "node_floor": "Fewest nodes allowed",
    "last_in_zone": "Last node in its zone",
    "headroom": "Kept as headroom",
    "on_demand_base": "Kept as on-demand base",
    "pool_family": "Not bought: family is not in the template",
    "pool_size": "Not bought: size is excluded by the template",
    "pool_architecture": "Not bought: wrong architecture",
    "pool_capacity_type": "Not bought: template wants on-demand",
    "pool_burstable": "Not bought: policy blocks burstable types",
    "pool_price": "Not bought: price unknown or above the limit",
    "pool_risk": "Not bought: interruptions are too likely",
    "pool_back_off": "Not bought: AWS had no capacity lately",
    "unplaceable": "Fits on no node",
    "saving_too_small": "Saving is too small",
    "disrupts_too_much": "Moves too many pods for what it saves",
    "spot_to_spot": "Other spot pools are not better enough",
    "on_demand_fallback": "Stands in for spot capacity",
    "node_gone": "Node is gone",
    "launch_not_ready": "New node is not ready yet",
    "pods_pending": "Pods wait for room",
    "too_many_at_once": "Enough nodes are being disrupted",
    "plan_unsafe": "Plan would not be safe",
}


@dataclass(frozen=True, slots=True)
class RefusalGroup:
    """What was declined for one kind of reason."""

    code: str
    label: str
    subjects: tuple[tuple[str, str], ...]
    """(subject, reason in plain English)."""


@dataclass(frozen=True, slots=True)
class RefusalPart:
    """The reasons about one kind of thing: nodes that stay, workloads, pools not bought."""

    title: str
    count: int
    groups: tuple[RefusalGroup, ...]


_PARTS = {
    "cluster": "The plan",
    "node": "Nodes that stay",
    "workload": "Workloads that cannot move",
    "pool": "Pools not bought from",
}


def label_of(code: str) -> str:
    """Return a reason code in a few words."""
    return _LABELS.get(code, code.replace("_", " ").capitalize())


def refusal_parts(refusals: Sequence[Mapping[str, str]]) -> tuple[RefusalPart, ...]:
    """Return a plan's refusals by what they are about and by reason; within a part, the largest first."""
    parts = []
    for kind, title in _PARTS.items():
        members = [refusal for refusal in refusals if refusal["subject_kind"] == kind]
        if members:
            parts.append(RefusalPart(title, len(members), _groups(members)))
    return tuple(parts)


def _groups(refusals: Sequence[Mapping[str, str]]) -> tuple[RefusalGroup, ...]:
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for refusal in refusals:
        groups[refusal["code"]].append((refusal["subject"], refusal["reason"]))
    by_size = sorted(groups.items(), key=lambda group: -len(group[1]))
    return tuple(RefusalGroup(code, label_of(code), tuple(items)) for code, items in by_size)
