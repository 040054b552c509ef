"""Pages of clusters and of the connection to AWS."""

from django.urls import path

from clusters.views import connecting, inventory

app_name = "clusters"
page_urls = [
    path("clusters", inventory.cluster_list, name="list"),
    path("clusters/<uuid:cluster_id>", inventory.overview, name="detail"),
    path("clusters/<uuid:cluster_id>/nodes", inventory.nodes, name="nodes"),
    path("clusters/<uuid:cluster_id>/nodes/<uuid:node_id>", inventory.node, name="node"),
    path("clusters/<uuid:cluster_id>/workloads", inventory.workloads, name="workloads"),
    path("clusters/<uuid:cluster_id>/actions", inventory.actions, name="actions"),
    path("clusters/<uuid:cluster_id>/interruptions", inventory.interruptions, name="interruptions"),
    path("clusters/<uuid:cluster_id>/pause", inventory.pause, name="pause"),
    path("clusters/<uuid:cluster_id>/resume", inventory.resume, name="resume"),
    path("clusters/<uuid:cluster_id>/agent", inventory.agent, name="agent"),
    path(
        "clusters/<uuid:cluster_id>/groups/<uuid:group_id>/restore-minimum",
        inventory.restore_minimum,
        name="restore-minimum",
    ),
    path(
        "clusters/<uuid:cluster_id>/groups/<uuid:group_id>/release-minimum",
        inventory.release_minimum,
        name="release-minimum",
    ),
    path("clusters/<uuid:cluster_id>/cost.json", inventory.cluster_cost, name="cost"),
    path("onboarding", connecting.onboarding, name="onboarding"),
    path("onboarding/connect", connecting.connect, name="connect"),
    path("onboarding/skip", connecting.skip, name="skip"),
    path("onboarding/<uuid:account_id>/role", connecting.role, name="onboarding-role"),
    path("onboarding/<uuid:account_id>/scan", connecting.scan, name="onboarding-scan"),
    path("onboarding/<uuid:account_id>/agents", connecting.agents, name="onboarding-agents"),
    path("settings/accounts", connecting.account_list, name="accounts"),
    path("settings/accounts/<uuid:account_id>", connecting.account_detail, name="account"),
    path("settings/accounts/<uuid:account_id>/scan", connecting.rescan, name="rescan"),
    path("settings/accounts/<uuid:account_id>/validate", connecting.validate, name="validate"),
    path("settings/accounts/<uuid:account_id>/rename", connecting.rename, name="rename"),
    path("settings/accounts/<uuid:account_id>/disconnect", connecting.disconnect, name="disconnect"),
]
urlpatterns = page_urls
