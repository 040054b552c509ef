"""The form of a cluster's policy: only knobs that change what Spotopt does."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from typing import Any

from django import forms

from policies.domain.document import as_json, parse
from policies.forms.parts import Group, GroupedForm, LabelsField, NamesField, percent, switch, usd, whole
from policies.models import ClusterPolicy
from policies.services.policies import PolicyChange

_PERCENT = {"approval.max_risk", "provisioning.max_pool_risk"}
"""Knobs from 0 to 1 that people write in percent."""
_OFF_SPOT = "spot_affinity.namespaces"


class PolicyForm(GroupedForm):
    """Fields are named as the knobs of the document, so that a service's refusal finds its field."""

    groups = (
        Group("Who decides", "Plans wait for a person unless the policy is automatic.",
              ("mode", "is_active", "approval.required", "approval.max_risk")),
        Group("What may be bought", "The template draws the border; these narrow it.",
              ("template", "constraints.allowed_families", "exclusions.instance_types",
               "constraints.block_burstable", "provisioning.max_price_per_hour",
               "provisioning.max_pool_risk")),
        Group("Spot and on-demand", "How much of what is bought may be interrupted.",
              ("provisioning.strategy", "provisioning.spot_percentage", "provisioning.on_demand_base",
               "provisioning.fallback_on_demand", "provisioning.on_rebalance", "spot_affinity.default",
               _OFF_SPOT)),
        Group("Spread and size", "What keeps one failure small.",
              ("constraints.az_spread", "provisioning.diversification", "binpack.surge_single_replicas",
               "constraints.min_nodes",
               "constraints.max_nodes", "constraints.headroom_cpu_percent",
               "constraints.headroom_memory_percent", "constraints.pool_share_percent")),
        Group("When a plan is worth it", "Smaller savings are not proposed.",
              ("binpack.enabled", "binpack.method",
               "binpack.min_saving_percent", "binpack.min_saving_usd_per_month",
               "binpack.min_saving_usd_per_hour", "binpack.min_saving_per_disruption",
               "provisioning.spot_to_spot_pools", "provisioning.spot_to_spot_saving_percent",
               "provisioning.spot_reversion_minutes")),
        Group("What is left alone", "No plan moves these.",
              ("exclusions.namespaces", "exclusions.labels", "exclusions.taints",
               "constraints.min_node_lifetime_minutes", "binpack.stabilization_minutes",
               "constraints.max_disrupted_percent")),
        Group("Karpenter", "A node pool of ours stands beside each of yours; yours are never changed.",
              ("karpenter.enabled", "karpenter.consolidation", "karpenter.ttl_seconds_after_empty",
               "karpenter.drift", "karpenter.max_node_age_minutes")),
    )  # fmt: skip

    version = forms.IntegerField(widget=forms.HiddenInput, min_value=0)
    mode = forms.ChoiceField(
        label="Mode",
        choices=[
            (ClusterPolicy.Mode.RECOMMEND, "Recommend: a person approves every plan"),
            (ClusterPolicy.Mode.AUTOMATIC, "Automatic: plans within the limits below start by themselves"),
        ],
        widget=forms.RadioSelect,
    )
    is_active = switch("Automation is on", "Off, even an automatic policy waits for a person.")
    template = forms.ChoiceField(label="Template", help_text="Families, sizes and architecture to launch.")

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        policy: ClusterPolicy,
        templates: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__(data, initial=_initial(policy))
        self.fields |= deepcopy(_KNOBS)
        self._policy = policy
        choices = self.fields["template"]
        assert isinstance(choices, forms.ChoiceField)  # noqa: S101  # for the type checker
        choices.choices = list(templates)

    def change(self) -> PolicyChange:
        """Return what the form says, as a change of the version that its author saw."""
        given = self.cleaned_data
        config: dict[str, dict[str, Any]] = {}
        for path in _KNOBS:
            section, knob = path.split(".")
            config.setdefault(section, {})[knob] = _as_knob(path, given[path])
        config["spot_affinity"]["namespaces"] = self._affinities(given[_OFF_SPOT])
        return PolicyChange(
            config=config,
            template_id=given["template"],
            mode=given["mode"],
            is_active=given["is_active"],
            version=given["version"],
        )

    def _affinities(self, off_spot: Sequence[str]) -> dict[str, str]:
        """Return the affinity of each namespace: those named are kept off spot, other wishes stay."""
        said = self._policy.config.get("spot_affinity", {}).get("namespaces", {})
        others = {name: wish for name, wish in said.items() if wish != "none"}
        return others | dict.fromkeys(off_spot, "none")


_KNOBS: dict[str, forms.Field] = {
    "approval.required": switch("A person approves every plan", "Overrules the automatic mode."),
    "approval.max_risk": percent(
        "Highest risk of a plan that starts by itself", "percent in 24 hours"
    ),
    "provisioning.strategy": forms.ChoiceField(
        label="What an interruption costs",
        help_text="In hours of the node's price, added to a pool's price for each interruption expected.",
        choices=[
            ("capacity_optimized", "Much (12 hours): calm pools first"),
            ("balanced", "Something (6 hours)"),
            ("lowest_price", "Nothing: the lowest price"),
        ],
    ),
    "spot_affinity.default": forms.ChoiceField(
        label="Pods of other namespaces",
        choices=[
            ("prefer", "May run on spot"),
            ("force", "Shall run on spot (no more than may, so far)"),
            ("none", "Run on on-demand nodes only"),
        ],
    ),
    "binpack.enabled": switch("Empty nodes to save", "Off, no plan empties a node."),
    "binpack.method": forms.ChoiceField(
        label="Which nodes are emptied",
        choices=[
            ("replace_and_move", "Any: pods move, nodes are replaced"),
            ("delete_empty", "Only nodes without pods"),
        ],
    ),
    "binpack.stabilization_minutes": whole(
        "And for at least", "minutes", 1, 120, help_text="A node must have been a candidate for so long."
    ),
    "provisioning.spot_percentage": whole(
        "Spot at most", "percent of the price of new nodes", 0, 100
    ),
    "provisioning.on_demand_base": whole("On-demand nodes that always stay", "", 0, 1000),
    "provisioning.fallback_on_demand": switch(
        "Fall back to on-demand", "When no spot pool has capacity, an on-demand node is launched instead."
    ),
    "provisioning.on_rebalance": forms.ChoiceField(
        label="When AWS warns that a spot node may go soon",
        choices=[("watch", "Watch: act when it is taken back"), ("replace", "Replace it before")],
    ),
    "provisioning.diversification": switch(
        "Diversify pools", "Off, one pool may hold up to half of the nodes whatever its share below."
    ),
    "provisioning.max_price_per_hour": usd(
        "Dearest node", "USD per hour", required=False, help_text="Empty: no limit."
    ),
    "provisioning.max_pool_risk": percent("Highest risk of a pool", "percent in 24 hours"),
    "binpack.surge_single_replicas": switch(
        "Move single replicas without a gap",
        "A deployment's only pod is replaced by its own rolling update. The agent must be allowed to change "
        "workloads.",
    ),
    "binpack.min_saving_percent": whole(
        "Least saving of a plan that moves pods", "percent of the cluster's price", 0, 100
    ),
    "binpack.min_saving_usd_per_month": usd(
        "Or so much, whatever its share", "USD per month",
        required=False, help_text="Empty: the share counts.",
    ),
    "binpack.min_saving_usd_per_hour": usd("Least saving of any plan", "USD per hour"),
    "binpack.min_saving_per_disruption": forms.FloatField(
        label="Least share saved for each share of pods moved", min_value=0, max_value=10,
        help_text="0.5: moving a tenth of the pods has to save a twentieth of the price."
    ),
    "provisioning.spot_to_spot_pools": whole(
        "Spot replaces spot only with a choice of", "pools", 1, 50
    ),
    "provisioning.spot_to_spot_saving_percent": whole(
        "And when that is cheaper by", "percent", 0, 90
    ),
    "provisioning.spot_reversion_minutes": whole(
        "Keep an on-demand node before spot replaces it", "minutes", 30, 1440
    ),
    _OFF_SPOT: NamesField(
        label="Namespaces kept off spot", help_text="One a line: their pods run on on-demand nodes only."
    ),
    "constraints.block_burstable": switch("No burstable types", "Keeps t2, t3, t3a and t4g out."),
    "constraints.az_spread": switch("Keep every zone", "No plan takes the last node out of a zone."),
    "constraints.min_nodes": whole("Fewest nodes", "", 3, 5000),
    "constraints.max_nodes": whole(
        "Most nodes", "", 3, 5000, required=False, help_text="Empty: no limit."
    ),
    "constraints.min_node_lifetime_minutes": whole(
        "Leave a new node alone for", "minutes", 5, 10_080
    ),
    "constraints.headroom_cpu_percent": whole("CPU kept free", "percent", 0, 100),
    "constraints.headroom_memory_percent": whole("Memory kept free", "percent", 0, 100),
    "constraints.pool_share_percent": whole(
        "Largest share of one pool", "percent of nodes", 5, 50,
        help_text="A pool is one instance type in one zone."
    ),
    "constraints.max_disrupted_percent": whole(
        "Nodes disrupted at once", "percent of nodes", 1, 10, help_text="At least one node."
    ),
    "karpenter.enabled": switch(
        "Steer Karpenter", "Off, our node pools launch nothing more; Karpenter ends their nodes in time."
    ),
    "karpenter.consolidation": switch(
        "Let Karpenter move pods to save", "Off, it removes only empty nodes of our node pools."
    ),
    "karpenter.ttl_seconds_after_empty": whole(
        "Before Karpenter removes or replaces a node", "seconds", 0, 86_400,
        help_text="Your node pool's own time counts where it is longer."
    ),
    "karpenter.drift": switch(
        "Let Karpenter replace nodes that drifted", "Off, our node pools get a budget of none for drift."
    ),
    "karpenter.max_node_age_minutes": whole(
        "Oldest node of our node pools", "minutes", 60, 525_600, required=False,
        help_text="Empty, or where your node pool's is less: as in yours. Karpenter drains what is older."
    ),
    "constraints.allowed_families": NamesField(
        label="Only these families", help_text="One a line, such as m6i. Empty: all of the template."
    ),
    "exclusions.namespaces": NamesField(
        label="Namespaces", help_text="Nodes that carry their pods stay. System namespaces always do."
    ),
    "exclusions.labels": LabelsField(
        label="Node labels", help_text="One key=value a line; nodes that carry one of them stay."
    ),
    "exclusions.taints": NamesField(
        label="Node taints", help_text="One key a line; nodes that carry one of them stay."
    ),
    "exclusions.instance_types": NamesField(
        label="Instance types to leave out", help_text="Neither bought nor removed; one a line."
    ),
}  # fmt: skip
"""Knob of the document → its field. Knobs that nothing reads yet are not among them."""


def _initial(policy: ClusterPolicy) -> dict[str, Any]:
    config = as_json(parse(policy.config))
    return {
        **{path: _as_shown(path, _value(config, path)) for path in _KNOBS},
        "version": policy.version,
        "mode": policy.mode,
        "is_active": policy.is_active,
        "template": str(policy.template_id),
    }


def _value(config: Mapping[str, Any], path: str) -> Any:
    section, knob = path.split(".")
    return config[section][knob]


def _as_shown(path: str, value: Any) -> Any:
    if path in _PERCENT:
        return f"{100 * value:g}"
    if path == _OFF_SPOT:
        return sorted(name for name, wish in value.items() if wish == "none")
    return value


def _as_knob(path: str, value: Any) -> Any:
    if path in _PERCENT:
        return round(value / 100, 6)
    if isinstance(value, Decimal):
        return format(value, "f")
    return list(value) if isinstance(value, tuple) else value
