"""Why an optimization left things alone, in words for its page."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_LABELS = {
    "too_young": "Launched too recently",
    "excluded_label": "Excluded by a label",
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
    "plan_unsafe": "Plan would not be safe",
}


@dataclass(frozen=True, slots=True)
class RefusalGroup:
    """What was declined for one kind of reason."""

    code: str
    label: str
    subjects: tuple[tuple[str, str], ...]
    """(subject, reason in plain English)."""


def refusal_groups(refusals: Sequence[Mapping[str, str]]) -> tuple[RefusalGroup, ...]:
    """Return a plan's refusals by reason: of nodes and workloads, then of pools; largest first."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for refusal in refusals:
        groups[refusal["code"]].append((refusal["subject"], refusal["reason"]))
    return tuple(
        RefusalGroup(code, _LABELS.get(code, code.replace("_", " ").capitalize()), tuple(items))
        for code, items in sorted(groups.items(), key=_order)
    )


def _order(group: tuple[str, list[tuple[str, str]]]) -> tuple[bool, int]:
    code, subjects = group
    return code.startswith("pool_"), -len(subjects)
