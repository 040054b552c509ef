"""API paths of the clusters app, under ``/api/v1/``."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from clusters import api

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("clusters", api.ClusterViewSet, basename="cluster")
router.register("interruptions", api.InterruptionViewSet, basename="interruption")

urlpatterns = [
    path("clusters/<uuid:cluster_id>/nodes", api.ClusterNodes.as_view(), name="cluster-nodes"),
    path(
        "clusters/<uuid:cluster_id>/node-groups", api.ClusterNodeGroups.as_view(), name="cluster-node-groups"
    ),
    path(
        "clusters/<uuid:cluster_id>/node-groups/<uuid:group_id>/minimum",
        api.NodeGroupMinimum.as_view(),
        name="node-group-minimum",
    ),
    path("clusters/<uuid:cluster_id>/workloads", api.ClusterWorkloads.as_view(), name="cluster-workloads"),
    path("clusters/<uuid:cluster_id>/actions", api.ClusterActions.as_view(), name="cluster-actions"),
    path("metrics/composition", api.Composition.as_view(), name="metrics-composition"),
    path("metrics/savings", api.Savings.as_view(), name="metrics-savings"),
    path("metrics/timeseries", api.Timeseries.as_view(), name="metrics-timeseries"),
    path("admin/config", api.PlatformSwitches.as_view(), name="platform-switches"),
    path("", include(router.urls)),
]
