"""Shapes of node templates; ``strategy`` is the capacity type and ``selection`` the strategy (S10)."""

from typing import Any

from rest_framework import serializers

from policies.models import NodeTemplate
from policies.services.templates import TemplateDraft
from spotopt.core.fields import HourlyUsd, MonthlyUsd, RowSerializer

_FAMILY = r"^[a-z][a-z0-9-]{1,29}$"
_SIZE = r"^[a-z0-9-]{1,30}$"


class OneOfAnyCase(serializers.ChoiceField):
    """A choice that is accepted in any case and answered in the documented one."""

    def __init__(self, choices: Any, *, documented: dict[str, str], **options: Any) -> None:
        self.documented = documented
        super().__init__(choices, **options)

    def to_internal_value(self, data: Any) -> Any:
        """Return the stored value."""
        return super().to_internal_value(str(data).lower())

    def to_representation(self, value: Any) -> Any:
        """Return the documented spelling."""
        return self.documented.get(str(value), str(value))


def _capacity(**options: Any) -> OneOfAnyCase:
    documented = {value: value.upper() for value in NodeTemplate.CapacityType.values}
    return OneOfAnyCase(
        NodeTemplate.CapacityType.choices, documented=documented, source="capacity_type", **options
    )


def _architecture(**options: Any) -> OneOfAnyCase:
    return OneOfAnyCase(NodeTemplate.Architecture.choices, documented={"arm64": "ARM64"}, **options)


class TemplateSerializer(RowSerializer):
    """A template as S10 lists it."""

    architecture = _architecture(read_only=True)
    strategy = _capacity(read_only=True)
    selection = serializers.CharField(source="strategy", read_only=True)
    clusters = serializers.SerializerMethodField(help_text="Names of the clusters whose policy uses it.")

    class Meta:
        model = NodeTemplate
        fields = [
            "id", "name", "description", "families", "excluded_sizes", "architecture", "strategy",
            "selection", "hybrid_spot_percentage", "spot_allocation", "disk_type", "disk_size", "iops",
            "throughput_mibps", "needs_instance_store", "is_default", "is_system", "version", "clusters",
            "created_at", "updated_at",
        ]  # fmt: skip

    def get_clusters(self, template: NodeTemplate) -> list[str]:
        """Return the names, alphabetically."""
        return sorted(policy.cluster.name for policy in template.policies.all())


class TemplateDraftSerializer(serializers.Serializer[Any]):
    """A template to create."""

    name = serializers.CharField(max_length=255)
    description = serializers.CharField(max_length=2000, allow_blank=True, required=False)
    families = serializers.ListField(child=serializers.RegexField(_FAMILY), min_length=1, max_length=100)
    excluded_sizes = serializers.ListField(child=serializers.RegexField(_SIZE), max_length=50, required=False)
    architecture = _architecture(required=False)
    strategy = _capacity(required=False)
    selection = serializers.ChoiceField(NodeTemplate.Strategy.choices, required=False)
    hybrid_spot_percentage = serializers.IntegerField(min_value=0, max_value=100, required=False)
    spot_allocation = serializers.ChoiceField(NodeTemplate.SpotAllocation.choices, required=False)
    disk_type = serializers.ChoiceField(NodeTemplate.DiskType.choices, required=False)
    disk_size = serializers.IntegerField(min_value=10, max_value=16_000, required=False, help_text="GB")
    iops = serializers.IntegerField(min_value=100, max_value=256_000, required=False, allow_null=True)
    throughput_mibps = serializers.IntegerField(
        min_value=125, max_value=1000, required=False, allow_null=True
    )
    needs_instance_store = serializers.BooleanField(required=False)

    def changes(self) -> dict[str, Any]:
        """Return what was sent, under the names of ``TemplateDraft``."""
        given = dict(self.validated_data)
        selection = given.pop("selection", None)
        given |= {"strategy": selection} if selection else {}
        return given | {
            name: tuple(dict.fromkeys(given[name]))
            for name in ("families", "excluded_sizes")
            if name in given
        }

    def draft(self) -> TemplateDraft:
        """Return the draft, with defaults for what was left out."""
        return TemplateDraft(**self.changes())


class TemplateChangeSerializer(TemplateDraftSerializer):
    """Some fields of a template, and the version the author saw."""

    version = serializers.IntegerField(min_value=1, required=False)

    def changes(self) -> dict[str, Any]:
        """Return what was sent without the version."""
        given = super().changes()
        given.pop("version", None)
        return given


class TemplateExamSerializer(TemplateDraftSerializer):
    """A draft to examine; it needs no name yet."""

    name = serializers.CharField(max_length=255, required=False, default="draft")
    region = serializers.RegexField(r"^[a-z]{2}(-[a-z]+)+-\d$", required=False)

    def changes(self) -> dict[str, Any]:
        """Return what was sent without the region."""
        given = super().changes()
        given.pop("region", None)
        return given


class CloneSerializer(serializers.Serializer[Any]):
    """The name of the copy."""

    name = serializers.CharField(max_length=255, required=False, default="")


class IssueSerializer(serializers.Serializer[Any]):
    """One finding of the validator."""

    severity = serializers.ChoiceField(["ERROR", "WARNING", "INFO"])
    family = serializers.CharField(allow_blank=True)
    message = serializers.CharField()


class CostRangeSerializer(serializers.Serializer[Any]):
    """On-demand prices of the types a draft lets in, per hour and per month of 730 hours."""

    min_hourly = HourlyUsd(allow_null=True)
    max_hourly = HourlyUsd(allow_null=True)
    min_monthly = MonthlyUsd(allow_null=True)
    max_monthly = MonthlyUsd(allow_null=True)


class FindingsSerializer(serializers.Serializer[Any]):
    """The validator's answer (S11)."""

    valid = serializers.BooleanField()
    warnings = serializers.ListField(child=serializers.CharField())
    issues = IssueSerializer(many=True)
    estimated_cost_range = CostRangeSerializer()


class StarredSerializer(serializers.Serializer[Any]):
    """The answer of the default star."""

    success = serializers.BooleanField()
    previous_default = serializers.UUIDField(allow_null=True)
    new_default = serializers.UUIDField()
