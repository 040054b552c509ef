"""Notices that AWS takes a node back, or may soon: which count, and how far a reaction goes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from clusters.domain.guardrails import disruption_cap

NOTICE = timedelta(minutes=2)
"""Between AWS's notice and the end of the instance."""
STALE_AFTER = timedelta(minutes=5)
"""A notice that arrives later than this is history: nothing is left to save (flows, 10.4)."""
OVERDUE_AFTER = timedelta(seconds=20)
"""After this long past the deadline AWS is asked what became of the instance."""
FALSE_ALARM_AFTER = timedelta(minutes=5)
"""An instance that AWS still shows running this long past its deadline was never taken."""
DRAIN_MARGIN = timedelta(seconds=5)
"""A drain ends this long before AWS pulls the plug."""
FLAG_LASTS = timedelta(minutes=30)
"""How long a pool counts as dangerous after an interruption (F074)."""
BROKEN_OFF = frozenset({"interrupted", "lease_expired", "kubernetes_unreachable"})
"""Ends of an act that say nothing about the node: it is asked for again while there is time."""
TAKEN_BACK = "SpotInstanceTermination"
"""In the reason that AWS gives for an instance that it took away."""
REBALANCE_PACE = timedelta(hours=1)
"""Rebalance signals are served within the disruption budget once in this long, so that a storm passes."""


class Kind(StrEnum):
    """What AWS said."""

    INTERRUPTION = "interruption"
    REBALANCE = "rebalance"


class Source(StrEnum):
    """Who told us."""

    AGENT = "agent"
    QUEUE = "queue"
    SCAN = "scan"


class Reception(StrEnum):
    """What became of a notice that arrived."""

    RECORDED = "recorded"
    KNOWN = "known"
    STALE = "stale"
    UNKNOWN_NODE = "unknown_node"
    NOT_SPOT = "not_spot"


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice about one instance."""

    kind: Kind
    instance_id: str
    at: datetime
    """When AWS gave it."""
    deadline: datetime | None = None
    """When AWS stops the instance; None for a rebalance recommendation."""

    @property
    def ends_at(self) -> datetime | None:
        """Return the deadline, two minutes after an interruption's notice where AWS named none."""
        if self.kind is Kind.REBALANCE:
            return None
        return min(self.deadline or self.at + NOTICE, self.at + NOTICE)

    def is_stale(self, now: datetime) -> bool:
        """Tell whether it arrived too late to be acted on."""
        return now - self.at > STALE_AFTER


def action_key(row_id: UUID, noticed_at: datetime, kind: str, number: int = 1) -> str:
    """Return the key under which an act of the reaction is requested for the ``number``-th time."""
    key = f"interruption:{row_id}:{int(noticed_at.timestamp())}:{kind}"
    return key if number == 1 else f"{key}:{number}"


def rebalance_budget(*, nodes: int, served_lately: int, under_way: int) -> int:
    """Return how many more rebalance signals may be served now.

    One node at a time, and within ``REBALANCE_PACE`` no more than the cluster's disruption cap, so that a
    storm of signals cannot make nodes change hands faster than any plan may.
    """
    return 0 if under_way else min(1, max(0, disruption_cap(nodes) - served_lately))
