"""Kinds of fields that these forms share."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django import forms
from django.forms import BoundField


@dataclass(frozen=True, slots=True)
class Group:
    """Fields under one heading."""

    title: str
    lede: str
    names: tuple[str, ...]


class GroupedForm(forms.Form):
    """A form whose page shows its fields in groups."""

    groups: Sequence[Group] = ()

    def grouped(self) -> Iterator[tuple[Group, list[BoundField]]]:
        """Yield each group with its fields."""
        for group in self.groups:
            yield group, [self[name] for name in group.names]


class NamesField(forms.CharField):
    """Names, one a line or separated by commas; a sorted tuple when cleaned."""

    def __init__(self, **options: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 3, "spellcheck": "false"})
        super().__init__(required=False, widget=widget, **options)

    def prepare_value(self, value: Any) -> Any:
        """Show one name a line."""
        return value if isinstance(value, str) or value is None else "\n".join(value)

    def clean(self, value: Any) -> tuple[str, ...]:
        """Return each name once."""
        return tuple(sorted(set(re.split(r"[\s,]+", super().clean(value))) - {""}))


class LabelsField(NamesField):
    """Kubernetes labels as ``key=value``, one a line; a mapping when cleaned."""

    def prepare_value(self, value: Any) -> Any:
        """Show one label a line."""
        pairs = value.items() if isinstance(value, Mapping) else ()
        return "\n".join(f"{key}={text}" for key, text in pairs) if isinstance(value, Mapping) else value

    def clean(self, value: Any) -> dict[str, str]:  # type: ignore[override]  # a field may clean to anything
        """Return the labels by key; refuse what has no equals sign."""
        lines = super().clean(value)
        if wrong := [line for line in lines if "=" not in line]:
            raise forms.ValidationError(f"Write key=value; {wrong[0]} is not.")
        return dict(line.split("=", 1) for line in lines)


def whole(label: str, unit: str, least: int, most: int, **options: Any) -> forms.IntegerField:
    """Return a field for a whole number with its unit, unless the label says it, in the label."""
    return forms.IntegerField(
        label=f"{label} ({unit})" if unit else label, min_value=least, max_value=most, **options
    )


def percent(label: str, unit: str) -> forms.FloatField:
    """Return a field for a percentage that need not be whole."""
    widget = forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"})
    return forms.FloatField(label=f"{label} ({unit})", min_value=0, max_value=100, widget=widget)


def usd(label: str, unit: str, **options: Any) -> forms.DecimalField:
    """Return a field for an amount of US dollars."""
    return forms.DecimalField(
        label=f"{label} ({unit})",
        min_value=Decimal(0),
        max_digits=12,
        decimal_places=6,
        widget=forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"}),
        **options,
    )


def switch(label: str, help_text: str) -> forms.BooleanField:
    """Return an on/off field."""
    return forms.BooleanField(label=label, help_text=help_text, required=False)
