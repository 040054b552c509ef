"""API paths of the policies app, under ``/api/v1/``."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from policies.api.karpenter import ApplySteering, ClusterKarpenter
from policies.api.metrics import Kpi, Projection
from policies.api.plans import ClusterJobs, JobViewSet, OptimizeNow, PlanViewSet
from policies.api.policies import KNOBS, PolicyViewSet
from policies.api.templates import TemplateViewSet
from policies.api.whatif import ClusterWhatIfs, WhatIfViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("templates", TemplateViewSet, basename="template")
router.register("policies", PolicyViewSet, basename="policy")
router.register("jobs", JobViewSet, basename="job")
router.register("plans", PlanViewSet, basename="plan")
router.register("what-ifs", WhatIfViewSet, basename="what-if")

urlpatterns = [
    *(path(f"policies/{name}", view.as_view(), name=f"policy-{name}") for name, view in KNOBS.items()),
    path("clusters/<uuid:cluster_id>/optimize", OptimizeNow.as_view(), name="cluster-optimize"),
    path("clusters/<uuid:cluster_id>/jobs", ClusterJobs.as_view(), name="cluster-jobs"),
    path("clusters/<uuid:cluster_id>/what-if", ClusterWhatIfs.as_view(), name="cluster-what-ifs"),
    path("clusters/<uuid:cluster_id>/karpenter", ClusterKarpenter.as_view(), name="cluster-karpenter"),
    path(
        "clusters/<uuid:cluster_id>/karpenter/<uuid:steering_id>/apply",
        ApplySteering.as_view(),
        name="cluster-karpenter-apply",
    ),
    path("metrics/kpi", Kpi.as_view(), name="metrics-kpi"),
    path("metrics/projection", Projection.as_view(), name="metrics-projection"),
    path("", include(router.urls)),
]
