"""Paths of the agent API, under ``/api/v1/``."""

from django.urls import path

from agentapi import api

app_name = "agentapi-v1"
urlpatterns = [
    path("clusters/connect", api.Connect.as_view(), name="connect"),
    path("clusters/install", api.Connect.as_view(), name="install"),
    path("clusters/<uuid:cluster_id>/verify", api.Verify.as_view(), name="verify"),
    path("clusters/<uuid:cluster_id>/agent/register", api.Register.as_view(), name="register"),
    path("clusters/<uuid:cluster_id>/agent/deregister", api.Deregister.as_view(), name="deregister"),
    path("clusters/<uuid:cluster_id>/heartbeat", api.Heartbeat.as_view(), name="heartbeat"),
    path("clusters/<uuid:cluster_id>/metrics", api.Snapshot.as_view(), name="snapshot"),
    path("clusters/<uuid:cluster_id>/events", api.Events.as_view(), name="events"),
    path("clusters/<uuid:cluster_id>/interruptions", api.Interruptions.as_view(), name="interruptions"),
    path("clusters/<uuid:cluster_id>/actions/pending", api.WaitingActions.as_view(), name="pending"),
    path("clusters/<uuid:cluster_id>/actions/claim", api.claim_actions, name="claim"),
    path(
        "clusters/<uuid:cluster_id>/actions/<uuid:action_id>/result",
        api.ActionResult.as_view(),
        name="result",
    ),
    path("clusters/<uuid:cluster_id>/keys", api.Keys.as_view(), name="keys"),
    path("clusters/<uuid:cluster_id>/keys/rotate", api.KeyRotation.as_view(), name="rotate"),
    path("clusters/<uuid:cluster_id>/keys/<uuid:key_id>", api.KeyRevocation.as_view(), name="revoke"),
]
