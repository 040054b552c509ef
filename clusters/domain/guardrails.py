"""The safety floor: what no policy, plan or person can talk the product into (spec README, decision 9)."""

from collections.abc import Set
from datetime import timedelta

from clusters.domain.actions import DISRUPTIVE
from clusters.domain.breakers import open_breaker, silence
from clusters.domain.facts import ClusterFacts, Verdict

MAX_DISRUPTED_SHARE = 0.10
MIN_READY_NODES = 3
MIN_NODE_AGE = timedelta(minutes=5)


def judge(*, kind: str, instance_id: str, is_voluntary: bool, facts: ClusterFacts) -> Verdict | None:
    """Return the first guardrail that forbids the action now, or None when it may go ahead."""
    verdict = open_breaker(kind=kind, is_voluntary=is_voluntary, facts=facts)
    if verdict is None and instance_id in facts.taken:
        verdict = _rescue(kind, is_voluntary)
    if verdict is None and is_voluntary and kind in DISRUPTIVE:
        verdict = _disruption(instance_id, facts)
    if verdict is None and kind == "terminate_instance":
        verdict = _termination(instance_id, is_voluntary, facts)
    return verdict


def _rescue(kind: str, is_voluntary: bool) -> Verdict | None:
    """Refuse to open a node that AWS takes; a voluntary act that fails there would open it too."""
    if kind == "uncordon_node" or (is_voluntary and kind in DISRUPTIVE):
        return Verdict("node_taken", "AWS takes the node back; it stays closed, and only its rescue goes on.")
    return None


def disruption_cap(nodes: int) -> int:
    """Return how many of ``nodes`` may be disrupted at once: 10 %, but at least one."""
    return max(1, int(nodes * MAX_DISRUPTED_SHARE))


def _termination(instance_id: str, is_voluntary: bool, facts: ClusterFacts) -> Verdict | None:
    """Refuse to take a node away from its pods, clean-up included, or from pods that may still come.

    An old report says nothing about pods: not even of an instance that it does not know as a node.
    """
    node, silent = facts.nodes.get(instance_id), silence(facts)
    if node is None or silent:
        return silent
    if node.pods:
        return Verdict("node_not_empty", f"{node.pods} pods still run on the node.")
    if is_voluntary and not node.is_cordoned:
        return Verdict("node_not_cordoned", "The node is open: pods may have come since the newest report.")
    return _floor(instance_id, facts) if node.is_ready else None


def _disruption(instance_id: str, facts: ClusterFacts) -> Verdict | None:
    node = facts.nodes.get(instance_id)
    if node is None:
        return Verdict("node_unknown", "The node is not in the newest report.")
    if facts.now - node.launched_at < MIN_NODE_AGE:
        return Verdict("node_too_young", "The node is younger than five minutes.")
    return _budget(instance_id, facts)


def _budget(instance_id: str, facts: ClusterFacts) -> Verdict | None:
    disrupted = facts.disrupted | {instance_id}
    cap = disruption_cap(len(facts.nodes))
    if len(disrupted) > cap:
        return Verdict(
            "disruption_budget",
            f"{len(disrupted) - 1} nodes are already being disrupted; {cap} may be at once.",
        )
    return _floor(instance_id, facts)


def ready_nodes_without(instance_ids: Set[str], facts: ClusterFacts) -> int:
    """Return how many ready nodes there would be beside these."""
    return sum(node.is_ready and node.instance_id not in instance_ids for node in facts.nodes.values())


def _floor(instance_id: str, facts: ClusterFacts) -> Verdict | None:
    remaining = ready_nodes_without(facts.disrupted | {instance_id}, facts)
    if remaining < MIN_READY_NODES:
        return Verdict(
            "ready_floor", f"Only {remaining} ready nodes would remain; at least {MIN_READY_NODES} must."
        )
    return None
