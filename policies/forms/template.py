"""The form of a node template: only what decides which nodes are launched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms

from policies.forms.parts import Group, GroupedForm, whole
from policies.models import NodeTemplate
from policies.selectors.templates import FamilyGroup
from policies.services.templates import TemplateDraft

SIZES = (
    "nano", "micro", "small", "medium", "large", "xlarge", "2xlarge", "3xlarge", "4xlarge", "6xlarge",
    "8xlarge", "9xlarge", "10xlarge", "12xlarge", "16xlarge", "18xlarge", "24xlarge", "32xlarge", "48xlarge",
    "metal",
)  # fmt: skip
"""Sizes to choose from; ``metal`` stands for all of them."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One box to tick."""

    value: str
    note: str
    is_checked: bool


class TemplateForm(GroupedForm):
    """What may be launched: families, sizes, architecture, and how pools are chosen."""

    groups = (
        Group("Name", "", ("name", "description")),
        Group("Compute", "Which instance types may be launched.",
              ("architecture", "families", "excluded_sizes")),
        Group("Purchasing", "Spot nodes are cheap and may be interrupted; on-demand nodes stay.",
              ("capacity_type", "hybrid_spot_percentage", "strategy")),
    )  # fmt: skip

    version = forms.IntegerField(widget=forms.HiddenInput, min_value=1, required=False)
    name = forms.CharField(label="Name", max_length=255)
    description = forms.CharField(
        label="Description", max_length=2000, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )
    architecture = forms.ChoiceField(
        label="Architecture", choices=NodeTemplate.Architecture.choices, widget=forms.RadioSelect
    )
    families = forms.MultipleChoiceField(
        label="Instance families",
        widget=forms.CheckboxSelectMultiple,
        help_text="The more, the less one dry pool matters.",
        error_messages={"required": "Choose at least one family."},
    )
    excluded_sizes = forms.MultipleChoiceField(
        label="Sizes to leave out",
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="Small sizes hold daemon sets and little else; metal is a whole machine.",
    )
    capacity_type = forms.ChoiceField(
        label="Capacity",
        choices=[
            (NodeTemplate.CapacityType.SPOT, "Spot where pods allow it"),
            (NodeTemplate.CapacityType.ON_DEMAND, "On-demand only"),
            (NodeTemplate.CapacityType.HYBRID, "Hybrid: spot up to a share"),
        ],
        widget=forms.RadioSelect,
    )
    hybrid_spot_percentage = whole(
        "Spot share of a hybrid template", "percent of the price of new nodes", 0, 100
    )
    strategy = forms.ChoiceField(
        label="Choose pools by",
        choices=[
            (NodeTemplate.Strategy.CHEAPEST, "Cheapest: the price alone"),
            (NodeTemplate.Strategy.BALANCED, "Balanced: price, and what interruptions cost"),
            (NodeTemplate.Strategy.PERFORMANCE, "Performance: newer generations first"),
        ],
        widget=forms.RadioSelect,
    )

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        catalogue: Sequence[FamilyGroup],
        draft: TemplateDraft,
        version: int | None = None,
    ) -> None:
        initial = {name: getattr(draft, name) for name in _FIELDS}
        super().__init__(data, initial=initial | {"version": version})
        known = {family for group in catalogue for family, _ in group.families}
        others = tuple((family, "") for family in draft.families if family not in known)
        self._catalogue = [*catalogue, *([FamilyGroup("Others", others)] if others else ())]
        self._sizes = [*SIZES, *(size for size in draft.excluded_sizes if size not in SIZES)]
        self._offer("families", [family for group in self._catalogue for family, _ in group.families])
        self._offer("excluded_sizes", self._sizes)

    def family_picks(self) -> list[tuple[str, int, list[Pick]]]:
        """Return (title, how many are ticked, the boxes) of each group of families."""
        ticked = set(self["families"].value() or ())
        groups = [
            (group.title, [Pick(family, note, family in ticked) for family, note in group.families])
            for group in self._catalogue
        ]
        return [(title, sum(pick.is_checked for pick in picks), picks) for title, picks in groups]

    def size_picks(self) -> list[Pick]:
        """Return the sizes as boxes to tick."""
        ticked = set(self["excluded_sizes"].value() or ())
        return [Pick(size, "", size in ticked) for size in self._sizes]

    def _offer(self, name: str, values: Sequence[str]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.MultipleChoiceField)  # noqa: S101  # for the type checker
        field.choices = [(value, value) for value in values]

    def changes(self) -> dict[str, Any]:
        """Return what the form says, under the names of ``TemplateDraft``."""
        given = {name: self.cleaned_data[name] for name in _FIELDS}
        return given | {name: tuple(given[name]) for name in ("families", "excluded_sizes")}


_FIELDS = tuple(name for group in TemplateForm.groups for name in group.names)
