"""The plain policies: on-demand only, and the cheapest spot pool that has capacity."""

from collections.abc import Sequence

import numpy as np

from clusters.domain.back_off import FORGOTTEN_AFTER, next_back_off_seconds
from policies.domain.model import BoolArray, IntArray
from spotopt.bench.replay.buying import Bought, Buyer, reduced
from spotopt.bench.replay.facts import Move, NodeView, Order, Pool, Workload


class BackOff:
    """Pools that are left alone for a while after they had no capacity: 3 minutes, doubling to 30."""

    def __init__(self, pools: int) -> None:
        self._until = np.full(pools, -np.inf)
        self._seconds = np.zeros(pools, np.int64)

    def short(self, pool: int, second: float) -> int:
        """Note that a launch found no capacity; return for how many seconds the pool is left alone."""
        rested = second - self._until[pool] > FORGOTTEN_AFTER.total_seconds()
        self._seconds[pool] = next_back_off_seconds(0 if rested else int(self._seconds[pool]))
        self._until[pool] = second + self._seconds[pool]
        return int(self._seconds[pool])

    def rest(self, pools: IntArray, until: float) -> None:
        """Leave pools alone until then."""
        self._until[pools] = np.maximum(self._until[pools], until)

    def open(self, second: float) -> BoolArray:
        """Return which pools may be tried."""
        return self._until <= second


class PlainBuyer:
    """Buys the cheapest pool that holds the pods, and the next cheapest when that is short."""

    def __init__(self, pools: Sequence[Pool], workloads: Sequence[Workload], *, spot: bool) -> None:
        self._buyer = Buyer(pools, workloads)
        self._prices = np.array([float(pool.usd_per_hour) for pool in pools])
        self._allowed = np.array([pool.is_spot == spot for pool in pools], bool)
        self._back_off = BackOff(len(pools))

    def orders(self, pods: IntArray, nodes: Sequence[NodeView], second: float) -> list[Order]:
        """Return the cheapest nodes for the pods."""
        usable = self._allowed & self._back_off.open(second)
        left = self._buyer.portions(pods, nodes)
        orders = []
        while bought := self._buyer.best(left, self._prices, usable, None):
            orders.append(Order(self._pools_for(bought, usable), bought.pods))
            left = reduced(left, bought, int(self._buyer.zones[bought.pool]))
        return orders

    def moves(self, nodes: Sequence[NodeView], second: float) -> list[Move]:
        """Return nothing: it never moves anything of its own will."""
        return []

    def lost(self, pool: int, second: float) -> None:
        """Learn nothing from an interruption but that the pool is short now."""
        self.short(pool, second)

    def short(self, pool: int, second: float) -> None:
        """Leave the pool alone for a while."""
        self._back_off.short(pool, second)

    def _pools_for(self, bought: Bought, usable: BoolArray) -> tuple[int, ...]:
        holds = self._buyer.holds(bought.pods) & usable
        holds &= self._buyer.zones == self._buyer.zones[bought.pool]
        holds[bought.pool] = False
        rest = np.flatnonzero(holds)
        return (bought.pool, *rest[np.argsort(self._prices[rest], kind="stable")].tolist())
