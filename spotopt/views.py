"""Probes, the API's documentation, pages that span apps, and answers that no app could give."""

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.views import defaults
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView
from redis import Redis
from redis.exceptions import RedisError
from rest_framework.permissions import IsAuthenticated

from accounts.permissions import Role, actor_of, page_for
from agentapi import selectors as agents
from agentapi.services import installation
from spotopt.core.clock import utcnow
from spotopt.core.problems import problem_response


def healthz(request: HttpRequest) -> JsonResponse:
    """Answer while the process lives."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """Answer 200 when PostgreSQL and Redis answer, 503 otherwise."""
    failing = [name for name, check in (("database", _database), ("redis", _redis)) if not check()]
    return JsonResponse(
        {"status": "ready" if not failing else "unready", "failing": failing}, status=503 if failing else 200
    )


class Schema(SpectacularJSONAPIView):
    """The OpenAPI document, for people who signed in."""

    permission_classes = (IsAuthenticated,)


class Docs(SpectacularSwaggerSplitView):
    """The OpenAPI document to read and try, without inline script or style."""

    permission_classes = (IsAuthenticated,)
    template_name = "api/docs.html"
    url_name = "api-schema"


@page_for(Role.MEMBER)
@never_cache
@require_POST
def agent_command(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show, this once, the commands that install a cluster's agent."""
    cluster = agents.cluster_named(cluster_id)
    answer = installation.prepare_installation(
        cluster=cluster,
        namespace="spot-optimizer",
        actor=actor_of(request),
        options=sorted(set(request.POST.getlist("options")) & installation.OPTIONS.keys()),
    )
    facts = {"section": "clusters", "cluster": cluster, "installation": answer}
    return render(request, "clusters/agent_command.html", facts)


@page_for(Role.VIEWER)
@require_GET
def styleguide(request: HttpRequest) -> HttpResponse:
    """Show every part of the interface in every state, in development only."""
    if not settings.STYLEGUIDE:
        raise Http404
    moment = utcnow() - timedelta(seconds=12)
    job = {
        "phase": "Searching",
        "progress_percent": 62,
        "started_at": moment,
        "requested_by": "bob@acme.test",
    }
    return render(request, "styleguide.html", {"moment": moment, "job": job})


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer 400: a problem under ``/api/``, a page elsewhere."""
    if _is_api(request):
        return problem_response(400, "bad-request", "The request could not be understood.")
    return defaults.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer 403: a problem under ``/api/``, a page elsewhere."""
    if _is_api(request):
        return problem_response(403, "forbidden", "You may not do this.")
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer 404: a problem under ``/api/``, a page elsewhere."""
    if _is_api(request):
        return problem_response(404, "not-found", "There is nothing at this address.")
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Answer 500: a problem under ``/api/``, a page elsewhere; the request id finds the log line."""
    if _is_api(request):
        return problem_response(500, "internal-error", "Something broke on our side. It was logged.")
    return defaults.server_error(request)


def _is_api(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def _database() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def _redis() -> bool:
    try:
        return bool(Redis.from_url(settings.REDIS_URL, socket_timeout=1).ping())
    except RedisError:
        return False
