"""Which role may do what, for pages and for the API alike."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from accounts.domain.origin import Origin
from accounts.domain.roles import is_at_least, require_role
from accounts.models import Membership, User
from spotopt.core.actor import Actor
from spotopt.core.correlation import current_request_id
from spotopt.core.errors import Forbidden, NotAuthenticated, NotFound

if TYPE_CHECKING:  # the framework reads its settings, which name this module, when its views load
    from rest_framework.views import APIView

__all__ = [
    "AnyMember",
    "OwnersOnly",
    "ReadForViewersWriteForMembers",
    "Role",
    "actor_of",
    "has_role",
    "membership_in",
    "origin_of",
    "page_for",
    "require_role",
    "self_of",
    "staff_page",
    "user_of",
]

Role = Membership.Role


def origin_of(request: Request | HttpRequest) -> Origin:
    """Return where the request came from; proxies are believed only as far as the server was told to."""
    return Origin(
        ip_address=request.META.get("REMOTE_ADDR") or None,
        user_agent=request.headers.get("User-Agent", "")[:512],
        request_id=current_request_id(),
    )


def actor_of(request: Request | HttpRequest) -> Actor:
    """Return who makes the request; raise Forbidden for a person without an organization."""
    membership = membership_in(request)
    if membership is None:
        raise Forbidden("You do not belong to an organization. Ask for an invitation.")
    origin = origin_of(request)
    return Actor(
        kind="user",
        organization_id=membership.organization_id,
        label=str(request.user),
        id=str(membership.user_id),
        role=membership.role,
        ip_address=origin.ip_address,
        user_agent=origin.user_agent,
        request_id=origin.request_id,
    )


def user_of(request: Request | HttpRequest) -> User:
    """Return the signed-in person, or raise NotAuthenticated."""
    if not isinstance(request.user, User):
        raise NotAuthenticated("Sign in first.")
    return request.user


def self_of(request: Request | HttpRequest) -> Actor:
    """Return the signed-in person as the actor of a change to themselves, with or without a team."""
    if membership_in(request) is not None:
        return actor_of(request)
    origin = origin_of(request)
    return Actor(
        kind="admin" if request.user.is_staff else "user",
        organization_id=None,
        label=str(request.user),
        id=str(request.user.pk),
        ip_address=origin.ip_address,
        user_agent=origin.user_agent,
        request_id=origin.request_id,
    )


def membership_in(request: Request | HttpRequest) -> Membership | None:
    """Return the membership that authentication found for the request."""
    plain = request._request if isinstance(request, Request) else request  # noqa: SLF001
    membership: Membership | None = getattr(plain, "membership", None)
    return membership


def has_role(membership: Membership | None, minimum: Role) -> bool:
    """Tell whether the membership's role is at least ``minimum``."""
    return membership is not None and is_at_least(membership.role, minimum)


class ReadForViewersWriteForMembers(BasePermission):
    """The default: every member reads, members and owners write."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Tell whether the caller's role allows the method."""
        minimum = Role.VIEWER if request.method in SAFE_METHODS else Role.MEMBER
        return request.user.is_authenticated and has_role(membership_in(request), minimum)


class OwnersOnly(BasePermission):
    """For acts that only an owner may do."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Tell whether the caller owns the organization."""
        return has_role(membership_in(request), Role.OWNER)


class SuperAdminsOnly(BasePermission):
    """For the platform's staff."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Tell whether the caller is an active super admin."""
        return request.user.is_authenticated and request.user.is_staff


def staff_of(request: Request | HttpRequest) -> Actor:
    """Return the member of staff who makes the request, as an actor outside every organization."""
    return Actor(
        kind="admin",
        organization_id=None,
        label=str(request.user),
        id=str(request.user.pk),
        ip_address=request.META.get("REMOTE_ADDR") or None,
        user_agent=request.headers.get("User-Agent", "")[:512],
        request_id=request.headers.get("X-Request-ID", "")[:64],
    )


class AnyMember(BasePermission):
    """For acts on one's own view of the organization, which viewers may do as well."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Tell whether the caller belongs to the organization."""
        return has_role(membership_in(request), Role.VIEWER)


PageView = Callable[..., HttpResponse]


def page_for(minimum: Role) -> Callable[[PageView], PageView]:
    """Guard a page: sign in first, belong to an organization, and have at least this role."""

    def decorate(view: PageView) -> PageView:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            membership = membership_in(request)
            if membership is None:
                return redirect("accounts:gateway")
            if not has_role(membership, minimum):
                raise Forbidden(f"This page needs the role {minimum.label.lower()}.")
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def staff_page(view: PageView) -> PageView:
    """Guard a page of the platform's console: sign in first; to everybody but staff it does not exist."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        if not request.user.is_superuser:
            raise NotFound("There is no such page.")
        return view(request, *args, **kwargs)

    return guarded
