"""Read optimizer runs and what they proposed."""

from uuid import UUID

from django.db.models import QuerySet

from policies.models import OptimizationJob, Plan, PlanStep


def jobs(*, cluster_id: UUID | None = None) -> QuerySet[OptimizationJob]:
    """Return runs with their plans, newest first; of one cluster when it is named."""
    rows = OptimizationJob.objects.select_related("plan", "cluster").order_by("-created_at", "pk")
    return rows if cluster_id is None else rows.filter(cluster_id=cluster_id)


def plans() -> QuerySet[Plan]:
    """Return plans with their clusters, newest first."""
    return Plan.objects.select_related("cluster").order_by("-created_at", "pk")


def steps(plan_id: UUID) -> QuerySet[PlanStep]:
    """Return a plan's steps with their actions, in order."""
    return PlanStep.objects.select_related("action").filter(plan_id=plan_id).order_by("seq")
