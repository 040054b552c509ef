"""What the world and the policies that live in it both know: pools, workloads, nodes, orders."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
CAPACITY_CELL = -1
"""The cell of on-demand pools, which are never short."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Instance type, zone and capacity type."""

    number: int
    instance_type: str
    zone: int
    is_spot: bool
    usd_per_hour: Decimal
    room: tuple[int, int, int]
    """Milli-CPU, MiB and pods that an empty node has left beside daemon sets."""
    bucket: int
    """Spot Advisor's interruption bucket, 0 to 4."""
    cell: int
    """Number of the instance family and zone, whose sizes share their hosts; CAPACITY_CELL if on-demand."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Equal pods that should run all the time."""

    name: str
    replicas: int
    minimum: int
    """Pods that must be ready; fewer is an outage of the workload."""
    request: tuple[int, int, int]
    """Milli-CPU, MiB and pod slots of one pod."""
    is_spread: bool
    """True when its pods by zone may differ by one at most."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node with its pods."""

    number: int
    pool: int
    launched_second: float
    pods: IntArray
    """Pods by workload, those that wait for the node included."""
    is_settled: bool
    """True when it is ready and none of its pods waits."""
    is_leaving: bool
    """True when it got its notice."""


@dataclass(frozen=True, slots=True)
class Order:
    """A node to launch for these pods, from the first of the pools that has capacity."""

    pools: tuple[int, ...]
    pods: IntArray


@dataclass(frozen=True, slots=True)
class Move:
    """A node to replace by another while it still runs."""

    node: int
    order: Order


class Policy(Protocol):
    """Buys nodes; it learns what happened when it happened, never earlier."""

    def orders(self, pods: IntArray, nodes: Sequence[NodeView], second: float) -> list[Order]:
        """Return the nodes to launch for these homeless pods, by workload."""

    def moves(self, nodes: Sequence[NodeView], second: float) -> list[Move]:
        """Return the nodes to replace of its own will; asked every few minutes."""

    def lost(self, pool: int, second: float) -> None:
        """Learn that nodes of the pool got their notice."""

    def short(self, pool: int, second: float) -> None:
        """Learn that a launch failed for want of capacity."""
