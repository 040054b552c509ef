"""What the safety floor looks at, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node, as the newest report has it."""

    name: str
    instance_id: str
    group: str
    launched_at: datetime
    is_ready: bool
    is_cordoned: bool
    pods: int
    """Pods that a drain would have to move (daemon-set pods do not count)."""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """One cluster at the moment of the check."""

    now: datetime
    safe_mode: str
    """``off``, ``on`` or ``freeze``."""
    is_paused: bool
    snapshot_at: datetime | None
    nodes: Mapping[str, NodeFacts] = field(default_factory=dict)
    """By instance id."""
    disrupted: frozenset[str] = frozenset()
    """Instance ids that an open action is disrupting, or that are cordoned."""
    taken: frozenset[str] = frozenset()
    """Instance ids of the nodes that AWS has said it takes back."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why an action is refused."""

    code: str
    reason: str
