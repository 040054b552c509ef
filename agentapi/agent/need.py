"""Whether AWS really takes a node: what is closed to voluntary work opens for that alone."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from agentapi import protocol
from agentapi.agent.clock import Clock
from agentapi.agent.nodes import Failed

logger = logging.getLogger(__name__)

LONGEST_NOTICE_SECONDS = 180.0
"""A deadline further ahead is no two minutes' notice."""
BELIEVED_SECONDS = 600.0
FEWEST_BELIEVED, SHARE_BELIEVED = 5, 4
"""So many nodes, or one in so many of the cluster's, are given up on the product's word in ten minutes."""


class Need:
    """Believes what this agent saw on a node, and of some nodes more what the product says."""

    def __init__(
        self,
        clock: Clock,
        is_warned: Callable[[str], bool] = lambda instance_id: False,
        node_count: Callable[[], int] = lambda: 0,
    ) -> None:
        self._clock, self._is_warned, self._node_count = clock, is_warned, node_count
        self._believed: dict[str, float] = {}
        """Instance id → when it was believed of it."""

    def justifies(self, command: protocol.Command) -> bool:
        """Tell whether a command is about a node that AWS takes; all others count as voluntary."""
        if command.is_voluntary:
            return False
        instance_id = str(command.payload.get("instance_id", ""))
        if self._is_warned(instance_id):
            return True
        deadline, now = instant(command.payload, "deadline"), self._clock.seconds()
        if deadline is None or deadline - now > LONGEST_NOTICE_SECONDS:
            return False
        return self._believes(instance_id, now)

    def _believes(self, instance_id: str, now: float) -> bool:
        self._believed = {one: at for one, at in self._believed.items() if now - at < BELIEVED_SECONDS}
        most = max(FEWEST_BELIEVED, self._node_count() // SHARE_BELIEVED)
        if instance_id not in self._believed and len(self._believed) >= most:
            logger.error("No sign of an interruption on %s; as %d nodes before it.", instance_id, most)
            return False
        self._believed.setdefault(instance_id, now)
        return True


def instant(payload: Mapping[str, Any], name: str) -> float | None:
    """Return an instant in seconds since the epoch; raise Failed for what is none."""
    value = payload.get(name)
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Failed("invalid_payload", f"{name} must be an instant.") from error
    if at.tzinfo is None:
        raise Failed("invalid_payload", f"{name} must name its time zone.")
    return at.timestamp()
