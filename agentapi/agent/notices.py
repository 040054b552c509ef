"""Tell the product about nodes that AWS takes or may take, as soon as their objects say so."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from agentapi.agent.clock import Clock
from agentapi.agent.facts import SIGNALS, NodeFact, PodFact, Signal
from agentapi.protocol import InterruptionNotice

WARNING = timedelta(minutes=2)


class Notices:
    """Passes each notice of each node on once."""

    def __init__(self, clock: Clock, warn: Callable[[InterruptionNotice], None], namespace: str) -> None:
        self._clock, self._warn, self._namespace = clock, warn, namespace
        self._instances: dict[str, str] = {}
        """Node name → instance id."""
        self._told: set[tuple[str, str]] = set()
        self._early: dict[str, Signal] = {}
        """What was said of nodes that are not known yet, by name."""

    def is_taken(self, instance_id: str) -> bool:
        """Tell whether this agent saw that AWS takes the instance."""
        return (instance_id, "interruption") in self._told

    def look(self, before: NodeFact | None, after: NodeFact | None) -> None:
        """Look at a node that changed."""
        if after is None:
            if before is not None:
                self._instances.pop(before.name, None)
                self._early.pop(before.name, None)
                self._told -= {(before.instance_id, kind) for kind in set(SIGNALS.values())}
            return
        self._instances[after.name] = after.instance_id
        early = self._early.pop(after.name, None)
        for signal in (*after.signals, *([early] if early else ())):
            self._tell(after.name, signal)

    def look_at_pod(self, before: PodFact | None, after: PodFact | None) -> None:
        """Look at a pod that changed: a sentry of ours may have read its node's metadata."""
        if after is not None and after.signal is not None and after.namespace == self._namespace:
            self._tell(after.node, after.signal)

    def _tell(self, node_name: str, signal: Signal) -> None:
        if node_name not in self._instances:
            self._early[node_name] = signal
            return
        instance_id = self._instances[node_name]
        if not instance_id or (instance_id, signal.kind) in self._told:
            return
        self._told.add((instance_id, signal.kind))
        now = self._clock.now()
        at = min(now, datetime.fromtimestamp(signal.at, UTC)) if signal.at else now
        deadline = at + WARNING if signal.kind == "interruption" else None
        self._warn(InterruptionNotice(signal.kind, node_name, instance_id, at, deadline))
