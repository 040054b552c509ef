"""Inventory, market, actions and the savings ledger."""

from clusters.models.actions import Action, AgentConfig, ClusterEvent
from clusters.models.interruptions import Interruption
from clusters.models.inventory import (
    Cluster,
    DiscoveryRun,
    Instance,
    NodeGroup,
    NodePool,
    Placement,
    Workload,
)
from clusters.models.ledger import ClusterSample, SavingsEntry
from clusters.models.market import InstanceType, InterruptionRate, PoolState, Price

__all__ = [
    "Action",
    "AgentConfig",
    "Cluster",
    "ClusterEvent",
    "ClusterSample",
    "DiscoveryRun",
    "Instance",
    "InstanceType",
    "Interruption",
    "InterruptionRate",
    "NodeGroup",
    "NodePool",
    "Placement",
    "PoolState",
    "Price",
    "SavingsEntry",
    "Workload",
]
