"""Which callers may use which agent endpoint, and how often."""

import logging
from typing import TYPE_CHECKING, cast

from redis.exceptions import RedisError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import ScopedRateThrottle
from rest_framework.views import APIView

from accounts.permissions import Role, has_role, membership_in
from agentapi.models import APIKey
from spotopt.core.clock import clock_rate
from spotopt.core.errors import Forbidden

if TYPE_CHECKING:
    from agentapi.authentication import AgentIdentity

logger = logging.getLogger(__name__)

_PER_MINUTE = {"register": 6, "heartbeat": 12, "snapshot": 40, "events": 60, "actions": 60, "result": 120}


def per_minute(scope: str) -> int:
    """Return how many requests of a scope one key may make in a minute."""
    return _PER_MINUTE[scope]


class IsAgent(BasePermission):
    """A long-lived key; a bootstrap key may do nothing but register."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Raise Forbidden for a key that was not exchanged yet."""
        self.require(cast("AgentIdentity", request.user))
        return True

    @staticmethod
    def require(identity: "AgentIdentity") -> None:
        """Raise Forbidden for a key that was not exchanged yet."""
        if identity.key.kind != APIKey.Kind.AGENT:
            raise Forbidden("This key only registers an agent.", code="bootstrap_key")


class MembersOnly(BasePermission):
    """Members and owners; viewers do not see keys."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Tell whether the caller is at least a member."""
        return has_role(membership_in(request), Role.MEMBER)


class AgentThrottle(ScopedRateThrottle):
    """Counts an agent's requests by its key; a shared clock that runs faster allows more of them.

    While Redis is away agents are let through: losing them would be worse than not counting them.
    """

    THROTTLE_RATES = {
        scope: f"{round(count * max(1.0, clock_rate()))}/min" for scope, count in _PER_MINUTE.items()
    }

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Tell whether the request is within its scope's rate."""
        try:
            return super().allow_request(request, view)
        except RedisError:
            logger.warning("Redis unreachable; agent requests are not counted.")
            return True
