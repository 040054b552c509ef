"""The least that a cluster can cost when only so many of its pods may move: a linear program by columns.

A column is a running node that stays, with a pattern of further pods in its free room (nothing moves), or
a new node with a pattern of pods. Every pod must be on a column, each running node is used at most once,
and the nodes that stay must carry all pods but those that may move. The program is solved by column
generation; its optimum bounds every migration from below (certified with an upper bound on the pricing
problem), and its solution says which nodes go, what is bought, what a pod is worth and what a move costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import highspy
import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray

MAX_ROUNDS = 60
"""Rounds of column generation for one share of moves; more only tighten the bound."""
_IMPROVES = 1e-7
_ENOUGH = 2e-4
"""Columns are sought until they can lower the cost by no more than this share of it."""
_MIXES = (1.0, 0.9, 0.75, 0.5, 0.25, 0.1, 0.0)
"""Weights of CPU against memory in the orders that a room is filled in."""
_BOUND_MIXES = 33
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Fleet:
    """A running cluster and a market in numbers: ``N`` nodes, ``S`` shapes, ``K`` kinds, ``R`` resources.

    The first two resources are CPU and memory, the third is pod slots. Arrays are never changed.
    """

    requests: IntArray
    """S × R: what one pod takes."""
    pods: IntArray
    """N × S: the pods on each node that move if it goes; zeros for a node that must stay."""
    free: IntArray
    """N × R: room left on each node; zeros for one that may take no pods."""
    paid: FloatArray
    """N: USD per hour that end when the node goes."""
    movable: BoolArray
    """N: whether the node may go."""
    allocatable: IntArray
    """N × R: what the scheduler measures the free share of a node by."""
    stays_accepted: BoolArray
    """S × N: which running nodes a pod may run on."""
    rooms: IntArray
    """K × R: room of a new node."""
    prices: FloatArray
    """K: USD per hour."""
    kind_allocatable: IntArray
    """K × R: as ``allocatable``."""
    accepted: BoolArray
    """S × K: which new nodes a pod may run on."""
    supply: FloatArray
    """N × 2: the CPU and memory that a node adds to what the cluster must have; 0 where it is not ready."""
    kind_supply: FloatArray
    """K × 2: as ``supply``."""
    needed: FloatArray
    """2: the supply that must be there at any time, so that the load and the headroom fit."""
    balance: FloatArray
    """K: weights of the new nodes, whose sum must not exceed 0; zeros for no rule."""

    @property
    def moved_by(self) -> IntArray:
        """Return N: the pods that move when a node goes."""
        moved: IntArray = self.pods.sum(axis=1)
        return moved

    def tightened(self, pods: float) -> "Fleet":
        """Return the fleet with less room on each node: that of so many average pods is taken to be lost."""
        total = max(int(self.pods.sum()), 1)
        lost = (pods * (self.pods.sum(axis=0) @ self.requests) / total).astype(np.int64)
        lost[2:] = 0
        return replace(self, free=np.maximum(self.free - lost, 0), rooms=np.maximum(self.rooms - lost, 0))


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The optimum of the linear program for one share of moves."""

    cost: float
    """USD per hour of movable nodes that stay and of new ones, when both may be split."""
    bound: float
    """No migration with as few moves costs less; at most ``cost``, and 0 when it was not asked for."""
    stays: FloatArray
    """N: which part of each node stays."""
    bought: FloatArray
    """K: new nodes of each kind."""
    pod_values: FloatArray
    """S: USD per hour that one more pod would cost."""
    usd_per_move: float
    """USD per hour that one more move would save."""
    kind_prices: FloatArray
    """K: USD per hour of a new node with what it does to the balance."""
    kind_worth: FloatArray
    """K: what the best pattern found for a new node is worth, as a share of that price."""

    def gains(self, fleet: Fleet) -> FloatArray:
        """Return N: what ends when a node goes, less the worth of its pods and of their moves."""
        gains: FloatArray = fleet.paid - fleet.pods @ self.pod_values - self.usd_per_move * fleet.moved_by
        return np.where(fleet.movable, gains, -np.inf)


class FrontierProgram:
    """One linear program, solved for one share of moves after the other; columns are kept between them."""

    def __init__(self, fleet: Fleet, *, rounds: int = MAX_ROUNDS, certified: bool = True) -> None:
        """Start with every node as it is, and with new nodes full of one shape."""
        self._fleet, self._rounds, self._is_certified = fleet, rounds, certified
        self._useful = _undominated(fleet)
        self._demand = fleet.pods.sum(axis=0)
        self._shapes, self._nodes = len(self._demand), len(fleet.paid)
        self._most_new = np.where(fleet.accepted.T[self._useful], self._demand, 0)
        self._most_extra = np.where(fleet.stays_accepted.T, self._demand - fleet.pods, 0)
        self._scale = (
            np.maximum(fleet.rooms.mean(axis=0), 1.0) if len(fleet.rooms) else np.ones(fleet.rooms.shape[1])
        )
        self._solver = highspy.Highs()  # type: ignore[no-untyped-call]  # the constructor has no types
        for option, value in (("output_flag", False), ("threads", 1)):
            self._solver.setOptionValue(option, value)
        for lower, upper in (
            *((float(count), highspy.kHighsInf) for count in self._demand),
            *((-highspy.kHighsInf, 1.0) for _ in range(self._nodes)),
            (0.0, highspy.kHighsInf),
            (-highspy.kHighsInf, 0.0),
        ):
            self._solver.addRow(lower, upper, 0, [], [])
        self._owner: list[int] = []
        """For each column, the node (from 0), or the kind as -1 - kind."""
        self._known: set[tuple[int, bytes]] = set()
        for node in range(self._nodes):
            self._add_node(node, np.zeros(self._shapes, np.int64))
        self._add_pure_columns()

    def solve(self, share: float) -> Relaxed:
        """Return the optimum when at most ``share`` (0 to 1) of the pods may move."""
        spared = float(self._fleet.moved_by.sum()) * (1 - share)
        self._solver.changeRowBounds(self._shapes + self._nodes, spared, highspy.kHighsInf)
        bound, rounds = 0.0, 0
        while True:
            relaxed, node_duals = self._optimum()
            rounds += 1
            if self._is_certified:
                bound = max(bound, self._certified(relaxed, spared))
            missing, worth = self._generate(relaxed, node_duals)
            if missing <= _ENOUGH * relaxed.cost or rounds == self._rounds:
                return replace(relaxed, bound=min(relaxed.cost, bound), kind_worth=worth)

    def _optimum(self) -> tuple[Relaxed, FloatArray]:
        """Return the optimum over the columns known so far, and what the nodes' own rows are worth."""
        self._solver.run()
        solution = self._solver.getSolution()
        duals, used = np.array(solution.row_dual), np.array(solution.col_value)
        owners, kinds = np.array(self._owner), len(self._fleet.prices)
        on_node = owners >= 0
        stays, bought = np.zeros(self._nodes), np.zeros(kinds)
        np.add.at(stays, owners[on_node], used[on_node])
        np.add.at(bought, -1 - owners[~on_node], used[~on_node])
        values = np.maximum(duals[: self._shapes], 0.0)
        per_move, per_balance = max(float(duals[-2]), 0.0), max(-float(duals[-1]), 0.0)
        prices = self._fleet.prices + per_balance * self._fleet.balance
        cost = float(self._solver.getInfo().objective_function_value)
        relaxed = Relaxed(cost, 0.0, stays, bought, values, per_move, prices, np.zeros(kinds))
        return relaxed, duals[self._shapes : -2]

    def _certified(self, relaxed: Relaxed, moves_spared: float) -> float:
        """Return a Lagrangian bound: values scaled until no new node can pay, then nodes one by one."""
        fleet, values, per_move = self._fleet, relaxed.pod_values, relaxed.usd_per_move
        worth = _worth_at_most(fleet.rooms, fleet.requests, values, fleet.accepted, self._scale)
        dearest = (worth / np.maximum(relaxed.kind_prices, 1e-12)).max(initial=1.0)
        values = values / max(1.0, float(dearest))
        extra = _worth_at_most(fleet.free, fleet.requests, values, fleet.stays_accepted, self._scale)
        staying = fleet.paid - per_move * fleet.moved_by - fleet.pods @ values - extra
        return float(values @ self._demand + per_move * moves_spared + np.minimum(staying, 0.0).sum())

    def _generate(self, relaxed: Relaxed, node_duals: FloatArray) -> tuple[float, FloatArray]:
        """Add columns that lower the cost; return by how much they may, and the worth of each kind."""
        fleet, values = self._fleet, relaxed.pod_values
        orders = _orders(fleet.requests, values, self._scale)
        useful, worth = self._useful, np.zeros(len(fleet.prices))
        rooms = np.concatenate([fleet.rooms[useful], fleet.free])
        most = np.concatenate([self._most_new, self._most_extra])
        patterns = fill(rooms, fleet.requests, most, orders, values)
        new, extra = patterns[: len(useful)], patterns[len(useful) :]
        worth[useful] = new @ values / np.maximum(relaxed.kind_prices[useful], 1e-12)
        for kind, pattern in zip(useful.tolist(), new, strict=True):
            if worth[kind] > 1 + _IMPROVES:
                self._add_kind(kind, pattern)
        kept = fleet.paid - relaxed.usd_per_move * fleet.moved_by - (fleet.pods + extra) @ values
        reduced = kept - np.minimum(node_duals, 0.0)
        for node in np.flatnonzero(reduced < -_IMPROVES).tolist():
            self._add_node(node, extra[node])
        missing = -np.minimum(reduced, 0.0).sum() + (worth.max(initial=1.0) - 1) * relaxed.cost
        return float(missing), worth

    def _add_pure_columns(self) -> None:
        fleet = self._fleet
        for shape in range(self._shapes):
            copies = np.minimum(_copies(fleet.rooms, fleet.requests[shape]), self._demand[shape])
            copies = copies * fleet.accepted[shape]
            if not copies.any():
                continue
            kind = int(np.argmin(np.where(copies > 0, fleet.prices / np.maximum(copies, 1), np.inf)))
            pattern = np.zeros(self._shapes, np.int64)
            pattern[shape] = copies[kind]
            self._add_kind(kind, pattern)

    def _add_node(self, node: int, extra: IntArray) -> None:
        fleet = self._fleet
        rows = {self._shapes + node: 1.0, self._shapes + self._nodes: float(fleet.pods[node].sum())}
        self._add(node, float(fleet.paid[node]), fleet.pods[node] + extra, rows)

    def _add_kind(self, kind: int, pattern: IntArray) -> None:
        rows = {self._shapes + self._nodes + 1: float(self._fleet.balance[kind])}
        self._add(-1 - kind, float(self._fleet.prices[kind]), pattern, rows)

    def _add(self, owner: int, cost: float, pattern: IntArray, others: dict[int, float]) -> None:
        key = (owner, pattern.tobytes())
        if key in self._known:
            return
        self._known.add(key)
        shapes = np.flatnonzero(pattern)
        rows = np.array([*shapes, *others], np.int32)
        values = np.array([*pattern[shapes].astype(float), *others.values()])
        self._solver.addCol(cost, 0.0, highspy.kHighsInf, len(rows), rows, values)
        self._owner.append(owner)


def _undominated(fleet: Fleet) -> IntArray:
    """Return the kinds that no other kind beats in price, room and the shapes that it takes."""
    order = np.lexsort((-fleet.rooms[:, 0], fleet.prices))
    kept: list[int] = []
    for kind in order.tolist():
        beaten = (fleet.rooms[kept] >= fleet.rooms[kind]).all(axis=1)
        beaten &= (fleet.accepted[:, kept] >= fleet.accepted[:, [kind]]).all(axis=0)
        beaten &= fleet.balance[kept] <= fleet.balance[kind] + _IMPROVES
        if not beaten.any():
            kept.append(kind)
    return np.array(kept, np.int64)


def fill(
    rooms: IntArray, requests: IntArray, most: IntArray, orders: Sequence[IntArray], values: FloatArray
) -> IntArray:
    """Return rooms × S: a valuable pattern of pods for each room, at most ``most`` (rooms × S) of each shape.

    The best of filling greedily in each of the orders, which are all tried at once.
    """
    ways = np.arange(len(orders))
    steps = np.array([order[values[order] > 0] for order in orders], np.int64).T
    left = np.repeat(rooms.T[:, None, :].astype(float), len(orders), axis=1)
    taken = np.zeros((len(orders), len(rooms), len(requests)), np.int64)
    used = np.flatnonzero(requests.any(axis=0)).tolist()
    pods_for_one = 1 / np.where(requests > 0, requests, 1e-12)
    for shapes in steps:
        copies = most[:, shapes].T.astype(float)
        for resource in used:
            fits = left[resource] * pods_for_one[shapes, resource, None] + _ROUNDING
            np.minimum(copies, np.floor(fits), out=copies)
        np.maximum(copies, 0.0, out=copies)
        left -= requests[shapes].T[:, :, None] * copies
        taken[ways, :, shapes] = copies
    best = (taken @ values).argmax(axis=0)
    pattern: IntArray = taken[best, np.arange(len(rooms))]
    return pattern


def _orders(requests: IntArray, values: FloatArray, scale: FloatArray) -> list[IntArray]:
    """Return the orders: most value for size, for several measures of size, and most value."""
    sizes = [requests[:, 0] / scale[0] * mix + requests[:, 1] / scale[1] * (1 - mix) + 1e-9 for mix in _MIXES]
    return [
        *(np.argsort(-values / size, kind="stable") for size in sizes),
        np.argsort(-values, kind="stable"),
    ]


def _copies(rooms: IntArray, request: IntArray) -> IntArray:
    """Return how many pods fit into each room."""
    asked = np.flatnonzero(request)
    copies: IntArray = (rooms[:, asked] // request[asked]).min(axis=1)
    return np.maximum(copies, 0)


def _worth_at_most(
    rooms: IntArray, requests: IntArray, values: FloatArray, accepted: BoolArray, scale: FloatArray
) -> FloatArray:
    """Return for each room a value that no pattern of pods in it exceeds.

    For weights w ≥ 0 of the resources, a pattern is worth at most w·room × the best value for w·request;
    the least over several mixes of CPU and memory is taken.
    """
    most = np.full(len(rooms), np.inf)
    for mix in np.linspace(0.0, 1.0, _BOUND_MIXES):
        weights = np.array([mix, 1 - mix]) / scale[:2]
        sizes = requests[:, :2] @ weights
        rates = np.where(values > 0, values / np.maximum(sizes, 1e-12), 0.0)
        best = np.where(accepted, rates[:, None], 0.0).max(axis=0, initial=0.0)
        most = np.minimum(most, (rooms[:, :2] @ weights) * best)
    return most
