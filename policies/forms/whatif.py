"""The form that asks what a cluster would cost: each part that is filled in is one scenario."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

from django import forms

from policies.domain.whatif import Commitment
from policies.forms.parts import Group, GroupedForm, switch, usd, whole
from policies.selectors.whatif import Choices
from policies.services.scenarios import ScenarioDraft

NOTHING = ("", "Not asked")
_ALONE = ("is_on_demand_only", "spot_price_percent", "on_demand_price_percent", "template_id", "policy_of")
"""Fields that are a scenario each, under their own names."""


def _one_of(label: str) -> forms.TypedChoiceField:
    return forms.TypedChoiceField(label=label, coerce=UUID, empty_value=None, required=False)


class WhatIfForm(GroupedForm):
    """Scenarios to compute beside the cluster as it is."""

    groups = (
        Group("Prices", "What if AWS changed them?", ("spot_price_percent", "on_demand_price_percent")),
        Group("Risk", "What does doing without interruptions cost?",
              ("is_on_demand_only", "spot_percentage")),
        Group("Rules", "What if another template or policy held here?",
              ("template_id", "policy_of", "headroom_percent")),
        Group("Commitment", "Nodes that are paid for anyway, such as reserved instances.",
              ("instance_type", "nodes", "usd_per_hour")),
    )  # fmt: skip

    spot_price_percent = whole("Spot prices change by", "percent", -90, 900, required=False)
    on_demand_price_percent = whole("On-demand prices change by", "percent", -90, 900, required=False)
    is_on_demand_only = switch("On-demand only", "Spot nodes of today are counted as on-demand ones.")
    spot_percentage = whole("Spot at most", "percent of the price of new nodes", 0, 100, required=False)
    template_id = _one_of("Template")
    policy_of = _one_of("Policy of another cluster")
    headroom_percent = whole("CPU and memory kept free", "percent", 0, 100, required=False)
    instance_type = forms.CharField(
        label="Instance type",
        max_length=50,
        required=False,
        widget=forms.TextInput(attrs={"list": "types-here", "autocomplete": "off", "spellcheck": "false"}),
    )
    nodes = whole("Nodes", "", 1, 500, required=False)
    usd_per_hour = usd("Price of one", "USD per hour", required=False, help_text="Empty: paid already.")
    combined = switch("All of these together as well", "One more scenario with everything above at once.")

    def __init__(self, data: Mapping[str, Any] | None = None, *, choices: Choices) -> None:
        super().__init__(data)
        self.instance_types = choices.instance_types
        for name, offered in (("template_id", choices.templates), ("policy_of", choices.policies)):
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)  # noqa: S101  # for the type checker
            field.choices = [NOTHING, *offered]

    def clean(self) -> dict[str, Any]:
        """Refuse half a commitment, and a form that asks nothing."""
        given: dict[str, Any] = super().clean() or {}
        if bool(given.get("instance_type")) != bool(given.get("nodes")):
            missing = "nodes" if given.get("instance_type") else "instance_type"
            self.add_error(missing, "A commitment needs an instance type and a number of nodes.")
        if not self.errors and not self.drafts():
            self.add_error(None, "Fill in at least one part.")
        return given

    def drafts(self) -> list[ScenarioDraft]:
        """Return one scenario for each part that is filled in, and their combination if it is asked for."""
        given = self.cleaned_data
        parts = list(_changes(given))
        drafts = [replace(ScenarioDraft(), **part) for part in parts]
        if given["combined"] and len(parts) > 1:
            together: dict[str, Any] = {name: value for part in parts for name, value in part.items()}
            configs = [part["config"] for part in parts if "config" in part]
            together["config"] = {section: knobs for config in configs for section, knobs in config.items()}
            drafts.append(ScenarioDraft(**together | {"name": "All together"}))
        return drafts


def _changes(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what each part that is filled in changes of a scenario."""
    for name in _ALONE:
        if given[name]:
            yield {name: given[name]}
    if (spot := given["spot_percentage"]) is not None:
        yield {"name": f"Spot at most {spot} %", "config": {"provisioning": {"spot_percentage": spot}}}
    if (free := given["headroom_percent"]) is not None:
        knobs = {"headroom_cpu_percent": free, "headroom_memory_percent": free}
        yield {"name": f"{free} % kept free", "config": {"constraints": knobs}}
    if given["nodes"]:
        paid = given["usd_per_hour"] or Decimal(0)
        yield {"commitments": (Commitment(given["instance_type"], given["nodes"], paid),)}
