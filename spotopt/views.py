"""Probes, the API's own documentation, and answers to requests that no app could serve."""

from django.conf import settings
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views import defaults
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView
from redis import Redis
from redis.exceptions import RedisError
from rest_framework.permissions import IsAuthenticated

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
