"""The life of an action: which moves are allowed, how long it lives, and which ways it travels."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

MOVES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "pending": frozenset({"running", "refused", "expired", "cancelled"}),
        "running": frozenset({"succeeded", "failed", "refused"}),
        "succeeded": frozenset(),
        "failed": frozenset(),
        "refused": frozenset(),
        "expired": frozenset(),
        "cancelled": frozenset(),
    }
)
"""From each status, the statuses an action may move to."""

OPEN = frozenset(status for status, following in MOVES.items() if following)
"""Statuses of actions that are not over."""

ROUTES: Mapping[str, str] = MappingProxyType(
    {
        "launch_node": "aws",
        "terminate_instance": "aws",
        "restore_minimum": "aws",
        "detach_instance": "aws",
        "soft_cordon_node": "agent",
        "cordon_node": "agent",
        "uncordon_node": "agent",
        "drain_node": "agent",
        "evict_pod": "agent",
        "label_node": "agent",
        "update_deployment": "agent",
        "apply_karpenter": "agent",
    }
)
"""Who carries each kind out: the AWS actuator or the agent of the cluster."""

DISRUPTIVE = frozenset({"cordon_node", "drain_node", "terminate_instance"})
"""Kinds that take a node's room or pods away, and so count against the disruption budget."""

CAREFUL = DISRUPTIVE | {"launch_node", "evict_pod", "update_deployment", "apply_karpenter"}
"""Kinds that, where they are voluntary, need a cluster that is well; marking or opening a node does not."""

_DRAIN_LIFETIME = timedelta(minutes=15)
_LIFETIME = timedelta(minutes=5)
AGENT_LEASE = timedelta(minutes=5)
ACTUATOR_LEASE = timedelta(minutes=2)
"""After this long without a report an AWS action is taken over. Each call of AWS renews it and is shorter."""
ACTUATION_PATIENCE = timedelta(minutes=30)
"""How long after its expiry a running AWS action may still be tried, while AWS throttles or is away."""


def may_move(current: str, following: str) -> bool:
    """Tell whether the state table allows the move."""
    return following in MOVES[current]


def looks_at_nodes(kind: str, *, is_voluntary: bool) -> bool:
    """Tell whether the safety floor has to see the cluster's nodes to judge the action."""
    return kind == "terminate_instance" or (is_voluntary and kind in CAREFUL)


def lifetime(kind: str) -> timedelta:
    """Return how long an action may wait and run: 15 minutes for a drain, 5 for the rest (readings, C35)."""
    return _DRAIN_LIFETIME if kind == "drain_node" else _LIFETIME


def lease(kind: str) -> timedelta:
    """Return how long a claim lasts without a report."""
    if ROUTES[kind] == "aws":
        return ACTUATOR_LEASE
    return _DRAIN_LIFETIME if kind == "drain_node" else AGENT_LEASE


_DONE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "launch_node": ("Launched node", "launch node"),
        "terminate_instance": ("Terminated", "terminate"),
        "soft_cordon_node": ("Steered new pods away from", "steer new pods away from"),
        "cordon_node": ("Closed to new pods:", "close to new pods:"),
        "uncordon_node": ("Opened to pods again:", "open to pods again:"),
        "drain_node": ("Drained", "drain"),
        "evict_pod": ("Evicted pod", "evict pod"),
        "label_node": ("Labelled", "label"),
        "update_deployment": ("Changed the resources of", "change the resources of"),
        "apply_karpenter": ("Applied", "apply"),
        "restore_minimum": ("Restored the minimum size of", "restore the minimum size of"),
        "detach_instance": ("Took out of its group:", "take out of its group:"),
    }
)
"""For each kind, how to say that it was done, and what to do."""


def sentence(*, kind: str, status: str, target: str, why: str = "") -> str:
    """Return what became of an action in plain English, for the record and the feed."""
    done, to_do = _DONE[kind]
    said = {
        "requested": f"Asked to {to_do} {target}",
        "succeeded": f"{done} {target}",
        "failed": f"Could not {to_do} {target}",
        "refused": f"Refused to {to_do} {target}",
        "expired": f"Gave up waiting to {to_do} {target}",
        "cancelled": f"Withdrew the request to {to_do} {target}",
    }[status]
    return f"{said}: {why}" if why else said
