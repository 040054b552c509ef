"""API tokens: a short access token and a refresh token that works once."""

from dataclasses import dataclass
from typing import Self, cast
from uuid import UUID

from django.db import transaction
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import RefreshToken

from accounts import selectors
from accounts.models import Membership, User
from spotopt.core.errors import NotAuthenticated

_WORTHLESS = "This refresh token is expired, used or revoked. Sign in again."


class OrganizationRefreshToken(RefreshToken):
    """A refresh token that names the organization, as does every access token made from it."""

    @classmethod
    def for_member(cls, user: User, membership: Membership | None) -> Self:
        """Return a new token; without a membership (staff) it names the person only."""
        token = cast(Self, cls.for_user(user))
        if membership is not None:
            token["organization_id"] = str(membership.organization_id)
        return token


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the API hands to a client that signed in."""

    access: str
    refresh: str
    expires_in: int
    """Seconds that the access token lives."""
    role: str
    """``client`` or ``super_admin``; the role in the organization is read at every request."""
    token_type: str = "Bearer"  # noqa: S105  # the scheme's name


def issue_tokens(user: User, membership: Membership | None) -> Tokens:
    """Return a fresh pair of tokens."""
    refresh = OrganizationRefreshToken.for_member(user, membership)
    return Tokens(
        access=str(refresh.access_token),
        refresh=str(refresh),
        expires_in=int(api_settings.ACCESS_TOKEN_LIFETIME.total_seconds()),
        role=user.role,
    )


@transaction.atomic
def rotate_tokens(*, refresh: str) -> Tokens:
    """Exchange a refresh token for a new pair; it never works again. Raises NotAuthenticated."""
    token = _parsed(refresh)
    user = User.objects.filter(pk=token[api_settings.USER_ID_CLAIM], is_active=True).first()
    organization_id = token.get("organization_id")
    if user is None:
        raise NotAuthenticated(_WORTHLESS)
    membership = selectors.membership_of(user, UUID(organization_id)) if organization_id else None
    if organization_id and membership is None:
        raise NotAuthenticated("You are no longer a member of this organization.")
    issued = OutstandingToken.objects.get(jti=token[api_settings.JTI_CLAIM])
    _, is_first_use = BlacklistedToken.objects.get_or_create(token=issued)
    if not is_first_use:  # somebody else used it since it was parsed
        raise NotAuthenticated(_WORTHLESS)
    return issue_tokens(user, membership)


def revoke_token(*, refresh: str) -> None:
    """Make a refresh token worthless; one that already is stays so."""
    try:
        _parsed(refresh).blacklist()
    except NotAuthenticated:
        return


def revoke_tokens(user: User) -> None:
    """Make every refresh token issued to the user worthless."""
    outstanding = OutstandingToken.objects.filter(user=user, blacklistedtoken__isnull=True)
    BlacklistedToken.objects.bulk_create(
        [BlacklistedToken(token=token) for token in outstanding], ignore_conflicts=True
    )


def _parsed(refresh: str) -> OrganizationRefreshToken:
    try:
        return OrganizationRefreshToken(refresh)  # type: ignore[arg-type]  # the stubs want a Token
    except TokenError as error:
        raise NotAuthenticated(_WORTHLESS) from error
