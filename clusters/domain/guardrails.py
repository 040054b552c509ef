"""The safety floor: what no policy, plan or person can talk the product into (spec README, decision 9)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from clusters.domain.actions import DISRUPTIVE

MAX_DISRUPTED_SHARE = 0.10
MIN_READY_NODES = 3
MAX_UNREADY_GROUP_SHARE = 0.20
MIN_NODE_AGE = timedelta(minutes=5)
MAX_SNAPSHOT_AGE = timedelta(minutes=3)
"""Older than this, what the agent said is no ground to act on."""


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why an action is refused."""

    code: str
    reason: str


def judge(*, kind: str, instance_id: str, is_voluntary: bool, facts: ClusterFacts) -> Verdict | None:
    """Return the first guardrail that forbids the action now, or None when it may go ahead."""
    verdict = _switches(is_voluntary, facts)
    if verdict is None and is_voluntary and kind in DISRUPTIVE:
        verdict = _disruption(instance_id, facts)
    if verdict is None and kind == "terminate_instance":
        verdict = _termination(instance_id, is_voluntary, facts)
    return verdict


def disruption_cap(nodes: int) -> int:
    """Return how many of ``nodes`` may be disrupted at once: 10 %, but at least one."""
    return max(1, int(nodes * MAX_DISRUPTED_SHARE))


def _switches(is_voluntary: bool, facts: ClusterFacts) -> Verdict | None:
    if facts.safe_mode == "freeze":
        return Verdict("frozen", "The platform is frozen: nothing is changed until staff lift the freeze.")
    if is_voluntary and facts.safe_mode != "off":
        return Verdict("safe_mode", "Safe mode is on: only clean-up and reactions to interruptions run.")
    if is_voluntary and facts.is_paused:
        return Verdict("paused", "The cluster is paused for maintenance.")
    return None


def _termination(instance_id: str, is_voluntary: bool, facts: ClusterFacts) -> Verdict | None:
    """Refuse to take a node away from its pods, clean-up included, or from pods that may still come."""
    node = facts.nodes.get(instance_id)
    if node is None:
        return None
    if node.pods:
        return Verdict("node_not_empty", f"{node.pods} pods still run on the node.")
    if is_voluntary and not node.is_cordoned:
        return Verdict("node_not_cordoned", "The node is open: pods may have come since the newest report.")
    return None


def _disruption(instance_id: str, facts: ClusterFacts) -> Verdict | None:
    if facts.snapshot_at is None or facts.now - facts.snapshot_at > MAX_SNAPSHOT_AGE:
        return Verdict(
            "stale_snapshot", "The agent has not reported for three minutes; nothing is disrupted blindly."
        )
    node = facts.nodes.get(instance_id)
    if node is None:
        return Verdict("node_unknown", "The node is not in the newest report.")
    if facts.now - node.launched_at < MIN_NODE_AGE:
        return Verdict("node_too_young", "The node is younger than five minutes.")
    return _budget(instance_id, node, facts)


def _budget(instance_id: str, node: NodeFacts, facts: ClusterFacts) -> Verdict | None:
    group = [other for other in facts.nodes.values() if other.group == node.group]
    unready = sum(not other.is_ready for other in group)
    if unready > len(group) * MAX_UNREADY_GROUP_SHARE:
        return Verdict(
            "group_unready", f"{unready} of {len(group)} nodes of group {node.group} are not ready."
        )
    disrupted = facts.disrupted | {instance_id}
    cap = disruption_cap(len(facts.nodes))
    if len(disrupted) > cap:
        return Verdict(
            "disruption_budget",
            f"{len(disrupted) - 1} nodes are already being disrupted; {cap} may be at once.",
        )
    remaining = sum(other.is_ready and other.instance_id not in disrupted for other in facts.nodes.values())
    if remaining < MIN_READY_NODES:
        return Verdict(
            "ready_floor", f"Only {remaining} ready nodes would remain; at least {MIN_READY_NODES} must."
        )
    return None
