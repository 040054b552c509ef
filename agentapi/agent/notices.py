"""Tell the product about nodes that AWS takes or may take, as soon as their objects say so."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from agentapi.agent.clock import Clock
from agentapi.agent.facts import NodeFact
from agentapi.protocol import InterruptionNotice

WARNING = timedelta(minutes=2)


class Notices:
    """Passes each notice of each node on once."""

    def __init__(self, clock: Clock, warn: Callable[[InterruptionNotice], None]) -> None:
        self._clock, self._warn = clock, warn
        self._told: set[tuple[str, str]] = set()

    def look(self, before: NodeFact | None, after: NodeFact | None) -> None:
        """Look at a node that changed."""
        if after is None:
            if before is not None:
                self._told -= {(before.instance_id, "interruption"), (before.instance_id, "rebalance")}
            return
        for signal in after.signals:
            key = (after.instance_id, signal.kind)
            if after.instance_id and key not in self._told:
                self._told.add(key)
                at = datetime.fromtimestamp(signal.at, UTC) if signal.at else self._clock.now()
                deadline = at + WARNING if signal.kind == "interruption" else None
                self._warn(InterruptionNotice(signal.kind, after.name, after.instance_id, at, deadline))
