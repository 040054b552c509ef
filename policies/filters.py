"""What lists of the policies API can be narrowed to."""

from django_filters import rest_framework as filters

from policies.models import OptimizationJob, Plan


class JobFilter(filters.FilterSet):
    """Runs by status."""

    status = filters.MultipleChoiceFilter(choices=OptimizationJob.Status.choices)

    class Meta:
        model = OptimizationJob
        fields = ["status"]


class PlanFilter(filters.FilterSet):
    """Plans by cluster and status."""

    cluster_id = filters.UUIDFilter()
    status = filters.MultipleChoiceFilter(choices=Plan.Status.choices)

    class Meta:
        model = Plan
        fields = ["cluster_id", "status"]
