"""Pages of a cluster's agent: its keys, and how to install it."""

from django.urls import path

from agentapi import views

app_name = "agentapi"
urlpatterns = [
    path("clusters/<uuid:cluster_id>/agent/keys", views.keys, name="keys"),
    path("clusters/<uuid:cluster_id>/agent/keys/rotate", views.rotate, name="rotate"),
    path("clusters/<uuid:cluster_id>/agent/keys/<uuid:key_id>/revoke", views.revoke, name="revoke"),
]
