"""Open the signed-in person's organization for each request, and render expected failures."""

from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from accounts import selectors
from accounts.constants import ACTIVE_ORGANIZATION_SESSION_KEY
from accounts.models import Membership
from spotopt.core.correlation import current_request_id
from spotopt.core.errors import SpotOptError
from spotopt.core.problems import problem_response_of
from spotopt.core.tenancy import enter_tenant, request_scope

Next = Callable[[HttpRequest], Any]


class _Middleware:
    """A middleware that stays asynchronous in an asynchronous stack, so that long polls hold no thread."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Next) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(cast(Any, self))


class ActiveOrganization(_Middleware):
    """Sets ``request.membership``; pages run inside its organization, the API enters its own."""

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(cast(Any, self)):
            return self._serve(request)
        with request_scope():
            _enter(request, _membership(request))
            return cast(HttpResponse, self.get_response(request))

    async def _serve(self, request: HttpRequest) -> HttpResponse:
        with request_scope():
            _enter(request, await sync_to_async(_membership)(request))
            return cast(HttpResponse, await self.get_response(request))


def _membership(request: HttpRequest) -> Membership | None:
    if request.path.startswith("/api/") or not request.user.is_authenticated:
        return None
    chosen = request.session.get(ACTIVE_ORGANIZATION_SESSION_KEY)
    return selectors.membership_of(request.user, UUID(chosen) if chosen else None)


def _enter(request: HttpRequest, membership: Membership | None) -> None:
    request.membership = membership  # type: ignore[attr-defined]  # set by middleware
    if membership is not None:
        enter_tenant(membership.organization_id)


class ProblemPages(_Middleware):
    """Shows a SpotOptError as a page, or as a toast when htmx asked for a part of one."""

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Turn an expected failure into an answer; let the others reach Django."""
        if not isinstance(exception, SpotOptError):
            return None
        if request.path.startswith("/api/"):
            return problem_response_of(exception)
        context = {
            "problem": exception,
            "status": exception.status,
            "request_id": current_request_id(),
        }
        if request.htmx:  # type: ignore[attr-defined]  # set by middleware
            response = render(request, "_parts/_toast.html", context, status=exception.status)
            response["HX-Retarget"] = "#toasts"
            response["HX-Reswap"] = "beforeend"
            return response
        if request.method == "POST" and (back := request.headers.get("Referer")):
            messages.error(request, exception.detail)
            return HttpResponse(status=303, headers={"Location": back})
        return render(request, "problem.html", context, status=exception.status)
