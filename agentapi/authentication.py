"""Prove that an agent calls, and enter its organization for the request."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from agentapi.models import APIKey
from agentapi.services import keys
from spotopt.core.actor import Actor
from spotopt.core.errors import Forbidden, NotAuthenticated
from spotopt.core.tenancy import enter_tenant, tenant


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """The caller behind a cluster's key; takes the place of a user."""

    key: APIKey
    actor: Actor
    is_authenticated: bool = True

    @property
    def pk(self) -> UUID:
        """Return the key's id, by which requests are counted."""
        return self.key.pk

    @property
    def cluster_id(self) -> UUID:
        """Return the only cluster that the key may speak for."""
        return self.key.cluster_id

    @property
    def organization_id(self) -> UUID:
        """Return the organization of that cluster."""
        return self.key.organization_id


class AgentKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer so_…``; the key must be bound to the cluster in the path."""

    def authenticate(self, request: Request) -> tuple[AgentIdentity, None]:
        """Return the agent's identity; raise NotAuthenticated or Forbidden with what is wrong."""
        identity = identify(request._request, request.parser_context["kwargs"]["cluster_id"])  # noqa: SLF001
        enter_tenant(identity.organization_id)
        return identity, None

    def authenticate_header(self, request: Request) -> str:
        """Name the scheme, so that failures are 401."""
        return "Bearer"


class AgentKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers itself
    """Describes the agents' keys in the OpenAPI document."""

    target_class = AgentKeyAuthentication
    name = "agentKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Return a bearer scheme."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "so_…"}


def identify(request: HttpRequest, cluster_id: UUID) -> AgentIdentity:
    """Return who calls for the cluster; raise NotAuthenticated, or Forbidden for another cluster's key."""
    return identify_caller(
        request.META.get("HTTP_AUTHORIZATION", ""),
        cluster_id,
        address=request.META.get("REMOTE_ADDR") or None,
        user_agent=request.META.get("HTTP_USER_AGENT", ""),
    )


def identify_caller(
    authorization: str, cluster_id: UUID, *, address: str | None = None, user_agent: str = ""
) -> AgentIdentity:
    """Return whom an ``Authorization`` header stands for; raise as ``identify`` does."""
    scheme, _, token = authorization.partition(" ")
    if scheme != "Bearer" or not token.startswith(keys.PREFIX):
        raise NotAuthenticated("Send the cluster's key: Authorization: Bearer so_….", code="key_missing")
    key = keys.find_key(token)
    if key.cluster_id != cluster_id:
        raise Forbidden("This key belongs to another cluster.", code="wrong_cluster")
    with tenant(key.organization_id):
        keys.touch(key)
    actor = Actor(
        kind="agent",
        organization_id=key.organization_id,
        label=f"Agent of {key.cluster.name}",
        id=str(key.pk),
        ip_address=address,
        user_agent=user_agent[:512],
    )
    return AgentIdentity(key, actor)
