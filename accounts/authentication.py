"""Prove who calls the API, and enter their organization for the request."""

from typing import cast
from uuid import UUID

from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.tokens import Token

from accounts import selectors
from accounts.constants import ACTIVE_ORGANIZATION_SESSION_KEY
from accounts.models import User
from spotopt.core.tenancy import enter_tenant


class OrganizationJWTAuthentication(JWTAuthentication):
    """A bearer token names the person and the organization; the role is read at every request."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:  # type: ignore[override]
        """Return the user and token, or None when the request carries no token of ours."""
        if b" so_" in request.META.get("HTTP_AUTHORIZATION", "").encode():  # an agent's key
            return None
        result = super().authenticate(request)
        if result is None:
            return None
        user, token = cast(User, result[0]), result[1]
        _enter_membership(request, user, token.get("organization_id"))
        return user, token


class OrganizationSessionAuthentication(SessionAuthentication):
    """The browser's session, with CSRF enforced."""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        """Return the signed-in user, or None."""
        result = super().authenticate(request)
        if result is None:
            return None
        _enter_membership(request, result[0], request.session.get(ACTIVE_ORGANIZATION_SESSION_KEY))
        return result


def _enter_membership(request: Request, user: User, organization_id: str | None) -> None:
    membership = selectors.membership_of(user, UUID(organization_id) if organization_id else None)
    if membership is None and organization_id is not None:
        raise AuthenticationFailed("You are no longer a member of this organization.")
    request._request.membership = membership  # type: ignore[attr-defined]  # noqa: SLF001  # shared with pages
    if membership is not None:
        enter_tenant(membership.organization_id)
