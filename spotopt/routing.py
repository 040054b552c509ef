"""Every websocket path."""

from django.urls import URLPattern, URLResolver, path

from agentapi.consumers import AgentConsumer
from clusters.consumers import LiveConsumer

websocket_urlpatterns: list[URLPattern | URLResolver] = [
    path("ws/live/", LiveConsumer.as_asgi()),
]
"""Of pages: by session, from our own origin only."""

agent_websocket_urlpatterns: list[URLPattern | URLResolver] = [
    path("ws/agent/<uuid:cluster_id>", AgentConsumer.as_asgi()),
]
"""Of agents: by their key, which no browser sends."""
