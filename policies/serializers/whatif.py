"""Shapes of what-ifs: the scenarios that are asked, and the figures that answer them."""

from decimal import Decimal
from typing import Any

from rest_framework import serializers

from policies.domain.whatif import Commitment
from policies.models import WhatIf
from policies.selectors.whatif import columns_of
from policies.services.scenarios import MAX_SCENARIOS, ScenarioDraft
from spotopt.core.fields import HourlyUsd, RowSerializer, per_month

MAX_COMMITTED_NODES = 500


class CommitmentSerializer(serializers.Serializer[Any]):
    """On-demand nodes that are paid for whether or not anything runs on them."""

    instance_type = serializers.RegexField(r"^[a-z0-9-]+\.[a-z0-9-]+$")
    nodes = serializers.IntegerField(min_value=1, max_value=MAX_COMMITTED_NODES)
    usd_per_hour = serializers.DecimalField(
        max_digits=10,
        decimal_places=6,
        min_value=0,
        default=Decimal(0),
        help_text="Of one node; 0 when paid already.",
    )


class ScenarioSerializer(serializers.Serializer[Any]):
    """What is different from the cluster as it is; what is left out stays as it is."""

    name = serializers.CharField(max_length=60, default="", allow_blank=True)
    template_id = serializers.UUIDField(default=None, allow_null=True)
    policy_of = serializers.UUIDField(
        default=None, allow_null=True, help_text="A cluster whose policy is taken."
    )
    config = serializers.DictField(
        default=None, allow_null=True, help_text="Policy knobs to turn, by section."
    )
    on_demand_only = serializers.BooleanField(source="is_on_demand_only", default=False)
    spot_price_percent = serializers.IntegerField(min_value=-90, max_value=900, default=0)
    on_demand_price_percent = serializers.IntegerField(min_value=-90, max_value=900, default=0)
    commitments = serializers.ListField(child=CommitmentSerializer(), default=list, max_length=10)


class WhatIfRequestSerializer(serializers.Serializer[Any]):
    """The scenarios to compute beside the cluster as it is."""

    scenarios = serializers.ListField(child=ScenarioSerializer(), min_length=1, max_length=MAX_SCENARIOS)

    def drafts(self) -> list[ScenarioDraft]:
        """Return the scenarios as the service takes them."""
        return [
            ScenarioDraft(
                **scenario | {"commitments": tuple(Commitment(**c) for c in scenario["commitments"])}
            )
            for scenario in self.validated_data["scenarios"]
        ]


class OutcomeSerializer(serializers.Serializer[Any]):
    """The best plan found for a scenario, however small its saving."""

    usd_per_hour_before = HourlyUsd(help_text="Today's nodes at the scenario's prices.")
    usd_per_hour_after = HourlyUsd()
    lower_bound_usd_per_hour = HourlyUsd()
    fee_usd_per_hour = HourlyUsd(help_text="Of the commitments; part of the amounts above.")
    nodes_before = serializers.IntegerField()
    nodes_after = serializers.IntegerField()
    nodes_launched = serializers.IntegerField()
    nodes_removed = serializers.IntegerField()
    spot_nodes_after = serializers.IntegerField()
    pods_moved = serializers.IntegerField()
    risk = serializers.FloatField(help_text="Price-weighted interruption risk in 24 hours, 0 to 1.")
    refusals = serializers.DictField(child=serializers.IntegerField(), help_text="Counts by reason code.")


class ColumnSerializer(serializers.Serializer[Any]):
    """One scenario with its outcome, null until it is computed."""

    name = serializers.CharField()
    is_baseline = serializers.BooleanField()
    usd_per_hour_more = HourlyUsd(allow_null=True, help_text="Against the cluster as it is, after its plan.")
    forecast_monthly_more = serializers.SerializerMethodField()
    outcome = OutcomeSerializer(allow_null=True)

    def get_forecast_monthly_more(self, column: Any) -> str | None:
        """Return US dollars per month of 730 hours."""
        more = column.usd_per_hour_more
        return None if more is None else str(per_month(more))


class WhatIfSerializer(RowSerializer):
    """A what-if: scenarios side by side, computed in the background; nothing in the cluster changes."""

    cluster = serializers.CharField(source="cluster.name", read_only=True)
    scenarios = serializers.SerializerMethodField()

    class Meta:
        model = WhatIf
        fields = [
            "id", "cluster_id", "cluster", "status", "phase", "progress_percent", "requested_by",
            "error_message", "scenarios", "quoted_at", "snapshot_at", "created_at", "started_at",
            "completed_at",
        ]  # fmt: skip

    def get_scenarios(self, what_if: WhatIf) -> list[dict[str, Any]]:
        """Return one column for each scenario, the cluster as it is first."""
        return list(ColumnSerializer(columns_of(what_if), many=True).data)
