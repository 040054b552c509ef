"""ASGI entry point: pages and API over HTTP, live updates over websockets."""

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "spotopt.settings.prod")
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402  # apps must be loaded first
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.conf import settings  # noqa: E402

from agentapi.road import AgentRoad  # noqa: E402
from spotopt.core.threads import BoundedThreads  # noqa: E402
from spotopt.routing import agent_websocket_urlpatterns, websocket_urlpatterns  # noqa: E402

_pages = AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))
_agents = URLRouter(agent_websocket_urlpatterns)


async def _websocket(scope: Any, receive: Any, send: Any) -> None:
    """Serve the sockets of agents, which have no origin, and those of pages, which must have ours."""
    await (_agents if scope["path"].startswith("/ws/agent/") else _pages)(scope, receive, send)


_http = AgentRoad(
    BoundedThreads(
        django_application,
        count=settings.WEB_THREADS,
        except_for=lambda path: path.endswith("/actions/claim"),
    )
)
application = ProtocolTypeRouter({"http": _http, "websocket": _websocket})
