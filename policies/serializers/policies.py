"""Shapes of policies: the whole document, and one shape for each knob's door (S12–S14)."""

from typing import Any

from rest_framework import serializers

from policies.domain.document import PolicyDocument, as_json, parse, warnings
from policies.models import ClusterPolicy, PolicyRevision
from policies.services.policies import PolicyChange, broadcast_of
from spotopt.core.fields import Instant, MonthlyUsd, RowSerializer

_EXAMPLE = as_json(PolicyDocument())


class PolicySerializer(RowSerializer):
    """A cluster's policy; version 0 means the defaults, which nobody has saved yet."""

    template = serializers.SerializerMethodField()
    config = serializers.JSONField(help_text=f"The whole document. Defaults: {_EXAMPLE}")
    updated_by = serializers.StringRelatedField(read_only=True)  # type: ignore[var-annotated]  # stubs

    class Meta:
        model = ClusterPolicy
        fields = [
            "cluster_id",
            "version",
            "mode",
            "is_active",
            "template",
            "config",
            "updated_by",
            "updated_at",
        ]

    def get_template(self, policy: ClusterPolicy) -> dict[str, str]:
        """Return the template's id and name."""
        return {"id": str(policy.template_id), "name": policy.template.name}


class ChangedSerializer(serializers.Serializer[Any]):
    """The answer of every change (reading of E046–E054)."""

    success = serializers.BooleanField()
    cluster_id = serializers.UUIDField()
    version = serializers.IntegerField()
    config = serializers.JSONField()
    warnings = serializers.ListField(
        child=serializers.CharField(), help_text="Also: knobs without effect yet"
    )
    broadcast = serializers.DictField(child=serializers.IntegerField(), help_text="agents, delivered")

    @classmethod
    def of(cls, policy: ClusterPolicy) -> dict[str, Any]:
        """Return the answer for a policy as it is now."""
        broadcast = broadcast_of(policy)
        answer = {
            "success": True,
            "cluster_id": policy.cluster_id,
            "version": policy.version,
            "config": policy.config,
            "warnings": warnings(parse(policy.config), policy.template),
            "broadcast": {"agents": broadcast.agents, "delivered": broadcast.delivered},
        }
        return dict(cls(answer).data)


class PolicyChangeSerializer(serializers.Serializer[Any]):
    """Parts of a policy; sections of ``config`` may hold only the knobs that turn."""

    config = serializers.DictField(required=False)
    template_id = serializers.UUIDField(required=False)
    mode = serializers.ChoiceField(ClusterPolicy.Mode.choices, required=False)
    is_active = serializers.BooleanField(required=False)
    version = serializers.IntegerField(min_value=0, required=False, help_text="The version you edited.")

    def change(self) -> PolicyChange:
        """Return the change that was asked for."""
        return PolicyChange(**self.validated_data)


class PreviewRequestSerializer(PolicyChangeSerializer):
    """A draft to preview."""

    cluster_id = serializers.UUIDField()

    def change(self) -> PolicyChange:
        """Return the change without the cluster's id."""
        given = dict(self.validated_data)
        given.pop("cluster_id")
        return PolicyChange(**given)


class PreviewSerializer(serializers.Serializer[Any]):
    """What saving would mean."""

    warnings = serializers.ListField(child=serializers.CharField())
    config = serializers.JSONField()
    forecast_monthly_savings = MonthlyUsd(
        source="usd_per_month_now", allow_null=True, help_text="Of the newest plan, under the saved policy."
    )


class RevisionSerializer(RowSerializer):
    """One version of a policy."""

    changed_at = Instant(source="created_at")

    class Meta:
        model = PolicyRevision
        fields = ["version", "changed_by", "changed_at", "diff", "document"]


class RevertSerializer(serializers.Serializer[Any]):
    """Which version to say again."""

    version = serializers.IntegerField(min_value=1)


class KnobSerializer(serializers.Serializer[Any]):
    """A change of one slice: the knobs of ``slots``, by the name they have on the wire."""

    cluster_id = serializers.UUIDField()
    version = serializers.IntegerField(min_value=0, required=False)

    slots: dict[str, tuple[str, str]] = {}
    """Field on the wire → (section, knob) of the document."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a change that changes nothing."""
        if not attrs.keys() & (self.slots.keys() | {"template_id"}):
            raise serializers.ValidationError(f"Send at least one of: {', '.join(self.slots)}.")
        return attrs

    def change(self) -> PolicyChange:
        """Return the change of the document that was asked for."""
        given = self.validated_data
        config: dict[str, dict[str, Any]] = {}
        for name, (section, knob) in self.slots.items():
            if name in given:
                config.setdefault(section, {})[knob] = given[name]
        return PolicyChange(config=config, template_id=given.get("template_id"), version=given.get("version"))


def _strategy(**options: Any) -> serializers.ChoiceField:
    return _DashedChoice(["lowest_price", "capacity_optimized", "balanced"], **options)


class _DashedChoice(serializers.ChoiceField):
    """Accepts the documented dashes for underscores: ``lowest-price``."""

    def to_internal_value(self, data: Any) -> Any:
        return super().to_internal_value(str(data).replace("-", "_"))


class KarpenterSerializer(KnobSerializer):
    """The Karpenter switch, with strategy, template and fallback (S12)."""

    enabled = serializers.BooleanField(required=False)
    strategy = _strategy(required=False)
    template_id = serializers.UUIDField(required=False)
    fallback_enabled = serializers.BooleanField(required=False)
    slots = {
        "enabled": ("karpenter", "enabled"),
        "strategy": ("provisioning", "strategy"),
        "fallback_enabled": ("provisioning", "fallback_on_demand"),
    }


class StrategySerializer(KnobSerializer):
    """How spot pools are chosen."""

    strategy = _strategy()
    slots = {"strategy": ("provisioning", "strategy")}


class BinpackSerializer(KnobSerializer):
    """When nodes are emptied."""

    enabled = serializers.BooleanField(required=False)
    aggressiveness = serializers.IntegerField(required=False, help_text="20 to 80")
    method = serializers.CharField(required=False, help_text="delete_empty or replace_and_move")
    stabilization_minutes = serializers.IntegerField(required=False, help_text="1 to 120")
    slots = {
        name: ("binpack", name) for name in ("enabled", "aggressiveness", "method", "stabilization_minutes")
    }


class FallbackSerializer(KnobSerializer):
    """On-demand when spot runs dry."""

    enabled = serializers.BooleanField()
    slots = {"enabled": ("provisioning", "fallback_on_demand")}


class SpreadSerializer(KnobSerializer):
    """Spread over zones."""

    enabled = serializers.BooleanField()
    slots = {"enabled": ("constraints", "az_spread")}


class ExclusionsSerializer(KnobSerializer):
    """What Spotopt never touches; each list replaces the old one (S14)."""

    namespaces = serializers.ListField(child=serializers.CharField(), max_length=200, required=False)
    labels = serializers.DictField(child=serializers.CharField(allow_blank=True), required=False)
    taints = serializers.ListField(child=serializers.CharField(), max_length=200, required=False)
    instance_types = serializers.ListField(child=serializers.CharField(), max_length=200, required=False)
    slots = {name: ("exclusions", name) for name in ("namespaces", "labels", "taints", "instance_types")}


class RightsizeSerializer(KnobSerializer):
    """What is done about requests that do not match use."""

    mode = serializers.CharField(required=False, help_text="off, recommend or auto")
    min_monthly_savings = serializers.DecimalField(max_digits=12, decimal_places=2, required=False)
    slots = {name: ("rightsizing", name) for name in ("mode", "min_monthly_savings")}


class BufferSerializer(KnobSerializer):
    """Room above the 95th percentile."""

    buffer_percent = serializers.IntegerField(help_text="10 to 50")
    slots = {"buffer_percent": ("rightsizing", "buffer_percent")}


class ConstraintsSerializer(KnobSerializer):
    """Borders that no saving crosses."""

    block_burstable = serializers.BooleanField(required=False)
    min_nodes = serializers.IntegerField(required=False)
    max_nodes = serializers.IntegerField(required=False, allow_null=True)
    min_node_lifetime_minutes = serializers.IntegerField(required=False)
    headroom_cpu_percent = serializers.IntegerField(required=False)
    headroom_memory_percent = serializers.IntegerField(required=False)
    pool_share_percent = serializers.IntegerField(required=False)
    allowed_families = serializers.ListField(child=serializers.CharField(), max_length=200, required=False)
    slots = {
        name: ("constraints", name)
        for name in (
            "block_burstable", "min_nodes", "max_nodes", "min_node_lifetime_minutes", "headroom_cpu_percent",
            "headroom_memory_percent", "pool_share_percent", "allowed_families",
        )
    }  # fmt: skip


class AffinitySerializer(KnobSerializer):
    """Which namespaces want spot nodes."""

    default = serializers.CharField(required=False, help_text="prefer, force or none")
    namespaces = serializers.DictField(child=serializers.CharField(), required=False)
    slots = {name: ("spot_affinity", name) for name in ("default", "namespaces")}
