"""Pages of the dashboard, plans, what-ifs, policies and templates."""

from django.urls import path

from policies.views import dashboard, karpenter, plans, policies, templates, whatif

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
    path("clusters/<uuid:cluster_id>/karpenter", karpenter.karpenter, name="karpenter"),
    path(
        "clusters/<uuid:cluster_id>/karpenter/<uuid:steering_id>/apply",
        karpenter.apply,
        name="apply-karpenter",
    ),
    path("jobs/<uuid:job_id>/cancel", plans.cancel_run, name="cancel-run"),
    path("clusters/<uuid:cluster_id>/what-if", whatif.what_ifs, name="what-ifs"),
    path("what-ifs/<uuid:what_if_id>", whatif.what_if, name="what-if"),
    path("what-ifs/<uuid:what_if_id>/cancel", whatif.cancel, name="cancel-what-if"),
    path("policies", policies.policy_list, name="policies"),
    path("policies/<uuid:cluster_id>", policies.policy, name="policy"),
    path("policies/<uuid:cluster_id>/history", policies.history, name="policy-history"),
    path("policies/<uuid:cluster_id>/revert/<int:version>", policies.revert, name="revert-policy"),
    path("policies/<uuid:cluster_id>/reset", policies.reset, name="reset-policy"),
    path("templates", templates.template_list, name="templates"),
    path("templates/new", templates.create, name="new-template"),
    path("templates/<uuid:template_id>", templates.template, name="template"),
    path("templates/<uuid:template_id>/clone", templates.clone, name="clone-template"),
    path("templates/<uuid:template_id>/default", templates.make_default, name="default-template"),
    path("templates/<uuid:template_id>/delete", templates.delete, name="delete-template"),
]
urlpatterns = page_urls
