"""Circuit breakers: what stops all voluntary work of a cluster, or of all of them, until it is over.

The switches are people's: freeze and safe mode for every cluster, a pause for one. The others open by
themselves, while a cluster's agent is silent or one of its node groups is unwell.
"""

from collections import defaultdict
from datetime import timedelta

from clusters.domain.actions import CAREFUL
from clusters.domain.facts import ClusterFacts, NodeFacts, Verdict

MAX_UNREADY_GROUP_SHARE = 0.20
BOOT_TIME = timedelta(minutes=5)
"""A node that is younger and not ready is still booting, and says nothing about its group."""
MAX_SNAPSHOT_AGE = timedelta(minutes=3)
"""Older than this, what the agent said is no ground to act on."""


def open_breaker(*, kind: str, is_voluntary: bool, facts: ClusterFacts) -> Verdict | None:
    """Return the first breaker that stops the action, or None when all are closed."""
    if facts.safe_mode == "freeze":
        return Verdict("frozen", "The platform is frozen: nothing is changed until staff lift the freeze.")
    if not is_voluntary:
        return None
    if facts.safe_mode != "off":
        return Verdict("safe_mode", "Safe mode is on: only clean-up and reactions to interruptions run.")
    if facts.is_paused:
        return Verdict("paused", "The cluster is paused for maintenance.")
    return silence(facts) or _illness(facts) if kind in CAREFUL else None


def silence(facts: ClusterFacts) -> Verdict | None:
    """Return why nothing is done that rests on the newest report, None while that is young."""
    if facts.snapshot_at is not None and facts.now - facts.snapshot_at <= MAX_SNAPSHOT_AGE:
        return None
    return Verdict("stale_snapshot", "The agent has not reported for three minutes; nothing is done blindly.")


def _illness(facts: ClusterFacts) -> Verdict | None:
    groups: dict[str, list[NodeFacts]] = defaultdict(list)
    for node in facts.nodes.values():
        if node.is_ready or facts.now - node.launched_at >= BOOT_TIME:
            groups[node.group].append(node)
    for name, nodes in sorted(groups.items()):
        unready = sum(not node.is_ready for node in nodes)
        if unready > len(nodes) * MAX_UNREADY_GROUP_SHARE:
            return Verdict("group_unready", f"{unready} of {len(nodes)} nodes of group {name} are not ready.")
    return None
