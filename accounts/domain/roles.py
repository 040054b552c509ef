"""The order of the roles in an organization."""

from uuid import UUID

from spotopt.core.actor import Actor
from spotopt.core.errors import Forbidden

OWNER, MEMBER, VIEWER = "owner", "member", "viewer"
_RANK = {VIEWER: 0, MEMBER: 1, OWNER: 2}


def is_at_least(role: str, minimum: str) -> bool:
    """Tell whether a role includes another."""
    return _RANK[role] >= _RANK[minimum]


def require_role(actor: Actor, minimum: str) -> None:
    """Raise Forbidden unless the person's role is at least ``minimum``; the system may do everything."""
    if actor.kind == "user" and not is_at_least(actor.role, minimum):
        raise Forbidden(f"This needs the role {minimum}; you are {actor.role}.", required=minimum)


def organization_of(actor: Actor) -> UUID:
    """Return the actor's organization, or raise Forbidden for somebody without one."""
    if actor.organization_id is None:
        raise Forbidden("You do not belong to an organization. Ask for an invitation.")
    return actor.organization_id
