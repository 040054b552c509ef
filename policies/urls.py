"""Pages of the dashboard and of plans."""

from django.urls import path

from policies.views import dashboard, plans

app_name = "policies"
page_urls = [
    path("dashboard", dashboard.dashboard, name="dashboard"),
    path("dashboard/cost.json", dashboard.cost, name="cost"),
    path("palette", dashboard.palette, name="palette"),
    path("plans", plans.plan_list, name="plans"),
    path("plans/<uuid:plan_id>", plans.plan_detail, name="plan"),
    path("plans/<uuid:plan_id>/approve", plans.approve, name="approve"),
    path("plans/<uuid:plan_id>/reject", plans.reject, name="reject"),
    path("plans/<uuid:plan_id>/stop", plans.stop, name="stop"),
    path("clusters/<uuid:cluster_id>/plans", plans.cluster_plans, name="cluster-plans"),
    path("clusters/<uuid:cluster_id>/optimize", plans.optimize, name="optimize"),
]
urlpatterns = page_urls
