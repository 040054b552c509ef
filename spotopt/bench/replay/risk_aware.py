"""The product's policy: expected cost instead of price, spread over pools, fallback and a paced return."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np

from clusters.domain.interruptions import FLAG_LASTS
from mlregistry.domain.heuristic import interruption_risk
from policies.domain.diversification import allowances, first_of_each, within_share
from policies.domain.interruption_cost import (
    Sight,
    expected_losses_per_hour,
    expected_usd_per_hour,
    losses_per_hour,
    unforetold_per_hour,
)
from policies.domain.model import BoolArray, FloatArray, IntArray
from policies.domain.reversion import may_revert, worth_reverting
from policies.domain.selection import MAX_ALTERNATIVES
from spotopt.bench.replay.buyers import BackOff
from spotopt.bench.replay.buying import Bought, Buyer, reduced, undominated
from spotopt.bench.replay.facts import Move, NodeView, Order, Pool, Workload

EPOCH = datetime(2026, 1, 5, tzinfo=UTC)
UNLIMITED = 1_000_000
MOST_LOOKED_AT = 4
HOUR_SECONDS, MINUTE_SECONDS = 3600.0, 60.0


@dataclass(frozen=True, slots=True)
class Stance:
    """How much risk the policy takes."""

    restart_hours: float = 0.3
    """A lost node is charged at its price for so many hours."""
    share: float = 0.25
    """Most of the spot bill in one cell."""
    wait: timedelta = timedelta(minutes=60)
    pace: timedelta = timedelta(minutes=5)


class RiskAware:
    """Buys by expected cost, spreads each workload over cells, falls back to on-demand and comes home slowly.

    It knows prices, the advisor's buckets, and what happened to its own nodes and launches. It takes the
    sizes of a family in a zone (a cell) for one, because they share their hosts.
    """

    def __init__(self, pools: Sequence[Pool], workloads: Sequence[Workload], stance: Stance) -> None:
        self._stance = stance
        self._buyer = Buyer(pools, workloads)
        self._replicas = np.array([workload.replicas for workload in workloads], np.int64)
        self._minimums = np.array([workload.minimum for workload in workloads], np.int64)
        self._prices = np.array([float(pool.usd_per_hour) for pool in pools])
        self._spot = np.array([pool.is_spot for pool in pools], bool)
        self._cell = np.array([pool.cell for pool in pools], np.int64)
        self._fallback = np.zeros(len(pools), bool)
        on_demand = np.flatnonzero(~self._spot).tolist()
        self._fallback[on_demand] = undominated([pools[index] for index in on_demand])
        self._cells = int(self._cell.max()) + 1
        foretold = np.array([losses_per_hour(interruption_risk(bucket=pool.bucket)) for pool in pools])
        self._foretold = [float(foretold[self._cell == cell].mean()) for cell in range(self._cells)]
        self._back_off = BackOff(len(pools))
        self._sights = [Sight(EPOCH)] * self._cells
        self._held: set[int] = set()
        self._losses = self._expected = self._hours = 0.0
        self._last_reversion: datetime | None = None
        self._whole_usd_per_hour = 0.0

    def orders(self, pods: IntArray, nodes: Sequence[NodeView], second: float) -> list[Order]:
        """Return the nodes of least expected cost that keep every workload spread."""
        self._look(nodes, second)
        charged = self._charged()
        usable = np.where(self._spot, self._back_off.open(second), self._fallback)
        left = self._buyer.portions(pods, nodes)
        if not self._whole_usd_per_hour:
            self._whole_usd_per_hour = self._unbounded_usd_per_hour(pods, nodes, charged, usable)
        placed, spent = self._standing(nodes)
        orders: list[Order] = []
        while left:
            allowed, able = self._bounds(placed, spent, usable)
            bought = self._buyer.best(left, charged, able, allowed)
            if bought is None:
                break
            orders.append(Order((bought.pool, *self._others(bought, charged, allowed, able)), bought.pods))
            placed[:, self._cell[bought.pool]] += bought.pods
            spent[self._cell[bought.pool]] += self._prices[bought.pool]
            left = reduced(left, bought, int(self._buyer.zones[bought.pool]))
        return orders

    def moves(self, nodes: Sequence[NodeView], second: float) -> list[Move]:
        """Return the node, if any, that is worth most to move to a cheaper spot pool now."""
        self._look(nodes, second)
        rested = [node for node in nodes if node.is_settled and not node.is_leaving]
        rested = [node for node in rested if self._may_revert(node, second)]
        if not rested:
            return []
        charged = self._charged()
        placed, spent = self._standing(nodes)
        allowed, able = self._bounds(placed, spent, self._back_off.open(second) & self._spot)
        gains = self._gains([node.pool for node in rested], charged, able)
        for index in np.argsort(-gains, kind="stable")[:MOST_LOOKED_AT].tolist():
            node = rested[index]
            pools = self._others(Bought(node.pool, node.pods), charged, allowed, able)
            if pools and worth_reverting(
                usd_per_hour=Decimal(str(charged[node.pool])),
                replacement_usd_per_hour=Decimal(str(charged[pools[0]])),
            ):
                self._last_reversion = _instant(second)
                return [Move(node.number, Order(pools, node.pods))]
        return []

    def _gains(self, standing: Sequence[int], charged: FloatArray, able: BoolArray) -> FloatArray:
        """Return what moving each standing node to the best pool of its zone with as much room would save."""
        rooms, zones, nodes = self._buyer.rooms, self._buyer.zones, list(standing)
        open_pools = np.flatnonzero(able)
        covers = (rooms[open_pools] >= rooms[nodes, None]).all(axis=2)
        covers &= zones[open_pools] == zones[nodes, None]
        best = np.where(covers, charged[open_pools], np.inf).min(axis=1, initial=np.inf)
        gains: FloatArray = charged[nodes] - best
        return gains

    def lost(self, pool: int, second: float) -> None:
        """Learn that a cell took nodes back: once for all nodes that went together."""
        cell = int(self._cell[pool])
        if cell in self._held:
            self._pass_time(second)
            self._held.discard(cell)
            self._losses += 1
            self._sights[cell] = self._sights[cell].lost()
        self._back_off.rest(np.flatnonzero(self._cell == cell), second + FLAG_LASTS.total_seconds())

    def short(self, pool: int, second: float) -> None:
        """Leave the whole cell alone for as long as the pool backs off."""
        seconds = self._back_off.short(pool, second)
        self._back_off.rest(np.flatnonzero(self._cell == self._cell[pool]), second + seconds)

    def _look(self, nodes: Sequence[NodeView], second: float) -> None:
        """Count the time since the last look for the cells held then, and see which are held now."""
        self._pass_time(second)
        self._held = {int(self._cell[n.pool]) for n in nodes if self._spot[n.pool] and not n.is_leaving}

    def _pass_time(self, second: float) -> None:
        now = _instant(second)
        hours = (now - self._sights[0].as_of) / timedelta(hours=1)
        self._hours += hours * len(self._held)
        self._expected += hours * sum(self._foretold[cell] for cell in self._held)
        self._sights = [sight.later(now, held=cell in self._held) for cell, sight in enumerate(self._sights)]

    def _charged(self) -> FloatArray:
        """Return the price of each pool with its expected interruptions, USD per hour."""
        rough = unforetold_per_hour(losses=self._losses, expected=self._expected, hours=self._hours)
        hours = self._stance.restart_hours
        of_one_usd = [
            expected_usd_per_hour(1.0, expected_losses_per_hour(foretold + rough, sight), hours)
            for foretold, sight in zip(self._foretold, self._sights, strict=True)
        ]
        charged: FloatArray = self._prices * np.array([*of_one_usd, 1.0])[self._cell]
        return charged

    def _standing(self, nodes: Sequence[NodeView]) -> tuple[IntArray, FloatArray]:
        """Return pods (workloads × cells) and USD per hour by cell; on-demand comes last."""
        placed = np.zeros((len(self._replicas), self._cells + 1), np.int64)
        spent = np.zeros(self._cells + 1)
        for node in nodes:
            placed[:, self._cell[node.pool]] += node.pods
            spent[self._cell[node.pool]] += self._prices[node.pool]
        return placed, spent

    def _bounds(self, placed: IntArray, spent: FloatArray, usable: BoolArray) -> tuple[IntArray, BoolArray]:
        """Return how many pods of each workload each cell may take, and which pools may take any."""
        allowed = allowances(self._replicas, self._minimums, placed)
        spare = self._replicas - self._minimums
        allowed[:, -1] = np.where(spare > 0, spare, UNLIMITED)  # more could never go home together
        total = max(self._whole_usd_per_hour, float(spent.sum()))
        within = within_share(spent[self._cell], self._prices, self._stance.share, total)
        return allowed, usable & (within | ~self._spot)

    def _unbounded_usd_per_hour(
        self, pods: IntArray, nodes: Sequence[NodeView], charged: FloatArray, usable: BoolArray
    ) -> float:
        """Return what the nodes would cost if nothing had to be spread."""
        left = self._buyer.portions(pods, nodes)
        usd = 0.0
        while bought := self._buyer.best(left, charged, usable, None):
            usd += float(self._prices[bought.pool])
            left = reduced(left, bought, int(self._buyer.zones[bought.pool]))
        return usd

    def _others(
        self, bought: Bought, charged: FloatArray, allowed: IntArray, able: BoolArray
    ) -> tuple[int, ...]:
        """Return what to try when the pool is short: the best of other cells, on-demand last."""
        bearable = np.asarray((bought.pods[:, None] <= allowed).all(axis=0))
        holds = self._buyer.holds(bought.pods) & able & bearable[self._cell]
        holds &= self._buyer.zones == self._buyer.zones[bought.pool]
        ranked = np.flatnonzero(holds)
        ranked = ranked[np.argsort(charged[ranked], kind="stable")]
        first = first_of_each(ranked.tolist(), lambda pool: int(self._cell[pool]))
        by_cell = {int(self._cell[pool]): pool for pool in first}
        by_cell.pop(int(self._cell[bought.pool]) if self._spot[bought.pool] else UNLIMITED, None)
        on_demand = [by_cell.pop(-1)] if -1 in by_cell else []
        return (*list(by_cell.values())[:MAX_ALTERNATIVES], *on_demand)

    def _may_revert(self, node: NodeView, second: float) -> bool:
        return may_revert(
            since=_instant(node.launched_second),
            last_reversion=self._last_reversion,
            now=_instant(second),
            wait=self._stance.wait,
            pace=self._stance.pace,
        )


class Oracle(RiskAware):
    """The same with look-ahead: it knows when each cell will next fall, as no product can."""

    def __init__(
        self,
        pools: Sequence[Pool],
        workloads: Sequence[Workload],
        stance: Stance,
        falls: Sequence[Sequence[float]],
    ) -> None:
        """``falls`` are the seconds at which each cell will lose capacity, in order."""
        super().__init__(pools, workloads, stance)
        self._falls = [np.array([*seconds, np.inf]) for seconds in falls]

    def _charged(self) -> FloatArray:
        """Return the price of each pool with the loss that will come charged over the hours until then."""
        second = (self._sights[0].as_of - EPOCH).total_seconds()
        following = [falls[np.searchsorted(falls, second, side="right")] for falls in self._falls]
        losses = HOUR_SECONDS / np.maximum(np.array(following) - second, MINUTE_SECONDS)
        hours = self._stance.restart_hours
        of_one_usd = [expected_usd_per_hour(1.0, loss, hours) for loss in losses.tolist()]
        charged: FloatArray = self._prices * np.array([*of_one_usd, 1.0])[self._cell]
        return charged


def _instant(second: float) -> datetime:
    return EPOCH + timedelta(seconds=second)
