"""Shapes of optimizer runs, plans, steps and refusals."""

from typing import Any

from rest_framework import serializers

from policies.models import OptimizationJob, Plan, PlanStep
from spotopt.core.fields import HourlyUsd, RowSerializer, per_month

ESTIMATED_TIME = "under a minute"


class JobSerializer(RowSerializer):
    """One run of the optimizer (S09)."""

    job_id = serializers.UUIDField(source="pk", read_only=True)
    plan_id = serializers.SerializerMethodField()
    cluster = serializers.CharField(source="cluster.name", read_only=True)

    class Meta:
        model = OptimizationJob
        fields = [
            "job_id", "cluster_id", "cluster", "status", "trigger", "requested_by", "phase",
            "progress_percent", "results",
            "error_message", "plan_id", "created_at", "started_at", "completed_at",
        ]  # fmt: skip

    def get_plan_id(self, job: OptimizationJob) -> str | None:
        """Return the plan that the run proposed, if it got so far."""
        plan = getattr(job, "plan", None)
        return str(plan.pk) if plan else None


class OptimizeRequestedSerializer(serializers.Serializer[Any]):
    """The answer of Optimize Now (S09)."""

    job_id = serializers.UUIDField()
    status = serializers.CharField()
    estimated_time = serializers.CharField()
    dry_run = serializers.BooleanField(help_text="Safe mode is on: the plan can be read but not carried out.")


class PlanSerializer(RowSerializer):
    """A plan: what it costs before and after, and how far it has come. Figures are forecasts."""

    cluster = serializers.CharField(source="cluster.name", read_only=True)
    usd_per_hour_saved = HourlyUsd()
    forecast_monthly_savings = serializers.SerializerMethodField()
    saving_percent = serializers.SerializerMethodField()

    class Meta:
        model = Plan
        fields = [
            "id", "cluster_id", "cluster", "job_id", "status", "policy_version", "quoted_at",
            "usd_per_hour_before", "usd_per_hour_after", "usd_per_hour_saved", "lower_bound_usd_per_hour",
            "spot_replacement_usd_per_hour", "bin_packing_usd_per_hour", "forecast_monthly_savings",
            "saving_percent", "risk", "nodes_before", "nodes_after", "pods_moved", "decided_by", "decided_at",
            "started_at", "finished_at", "stop_reason", "created_at",
        ]  # fmt: skip

    def get_forecast_monthly_savings(self, plan: Plan) -> str:
        """Return US dollars per month of 730 hours, at the prices of ``quoted_at``."""
        return str(per_month(plan.usd_per_hour_saved))

    def get_saving_percent(self, plan: Plan) -> float:
        """Return the saving as a share of today's price, in percent."""
        before = plan.usd_per_hour_before
        return round(float(plan.usd_per_hour_saved / before * 100), 1) if before else 0.0


class PlanDetailSerializer(PlanSerializer):
    """A plan with its waves of launches and removals, and what each binding constraint costs."""

    document = serializers.JSONField(read_only=True)
    refusal_count = serializers.SerializerMethodField()
    constraint_prices = serializers.JSONField(
        read_only=True,
        help_text="Best plan found without each constraint, dearest first; empty until the pricing begins.",
    )

    class Meta(PlanSerializer.Meta):
        fields = [*PlanSerializer.Meta.fields, "document", "refusal_count", "constraint_prices"]

    def get_refusal_count(self, plan: Plan) -> int:
        """Return how many things the optimizer declined."""
        return len(plan.refusals)


class StepSerializer(RowSerializer):
    """One step of a plan, with the state of what carries it out."""

    action_status = serializers.CharField(source="action.status", read_only=True, default=None)
    error = serializers.CharField(source="action.error_message", read_only=True, default="")

    class Meta:
        model = PlanStep
        fields = [
            "id", "seq", "wave", "kind", "target", "params", "usd_per_hour", "status", "attempts", "note",
            "action_id", "action_status", "error", "started_at", "finished_at",
        ]  # fmt: skip


class RefusalSerializer(serializers.Serializer[Any]):
    """Something the optimizer declined, and why."""

    subject_kind = serializers.CharField()
    subject = serializers.CharField()
    code = serializers.CharField()
    reason = serializers.CharField()


class RejectionSerializer(serializers.Serializer[Any]):
    """Why a plan is turned down."""

    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")
