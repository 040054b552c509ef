"""Turns homeless pods into nodes to buy, one after the other: always the fill that is best for its price.

Every policy that is compared buys with this; they differ in the prices they charge and the pools they allow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray
from spotopt.bench.replay.facts import NodeView, Pool, Workload

ANY_ZONE = -1
NEVER = 1e9


def undominated(pools: Sequence[Pool]) -> BoolArray:
    """Return the pools that no other of the list beats in room and price at once, zone by zone."""
    rooms = np.array([pool.room for pool in pools], np.int64)
    prices = np.array([float(pool.usd_per_hour) for pool in pools])
    zones = np.array([pool.zone for pool in pools])
    beaten = np.zeros(len(pools), bool)
    for index in range(len(pools)):
        better = (rooms >= rooms[index]).all(axis=1) & (prices <= prices[index]) & (zones == zones[index])
        better[index:] &= (prices[index:] < prices[index]) | (rooms[index:] > rooms[index]).any(axis=1)
        better[index] = False
        beaten[index] = better.any()
    return ~beaten


@dataclass(frozen=True, slots=True)
class Bought:
    """A node to launch for these pods, by workload."""

    pool: int
    pods: IntArray


@dataclass(frozen=True, slots=True)
class Portion:
    """Homeless pods of one workload that one zone must take, or any."""

    workload: int
    zone: int
    count: int


class Buyer:
    """Packs pods of these workloads onto new nodes of these pools."""

    def __init__(self, pools: Sequence[Pool], workloads: Sequence[Workload]) -> None:
        self.rooms = np.array([pool.room for pool in pools], np.int64)
        self.zones = np.array([pool.zone for pool in pools], np.int64)
        self.requests = np.array([workload.request for workload in workloads], np.int64)
        self.cells = np.array([pool.cell for pool in pools], np.int64)
        self._spread = [workload.is_spread for workload in workloads]

    def holds(self, pods: IntArray) -> BoolArray:
        """Return which pools' nodes have room for the pods, by workload."""
        return np.asarray((self.rooms >= pods @ self.requests).all(axis=1))

    def portions(self, pods: IntArray, nodes: Sequence[NodeView]) -> list[Portion]:
        """Return the pods by zone: spread pods go where fewest of them are."""
        by_zone = np.zeros((len(pods), int(self.zones.max()) + 1), np.int64)
        for node in nodes:
            by_zone[:, self.zones[node.pool]] += node.pods
        portions = []
        for workload in np.flatnonzero(pods).tolist():
            if not self._spread[workload]:
                portions.append(Portion(workload, ANY_ZONE, int(pods[workload])))
                continue
            level = by_zone[workload].copy()
            for _ in range(int(pods[workload])):
                level[level.argmin()] += 1
            added = level - by_zone[workload]
            portions += [Portion(workload, zone, int(added[zone])) for zone in np.flatnonzero(added).tolist()]
        return portions

    def best(
        self, portions: Sequence[Portion], prices: FloatArray, usable: BoolArray, allowed: IntArray | None
    ) -> Bought | None:
        """Return the node whose fill is worth most for its price, or None when no usable pool holds a pod.

        ``allowed`` (workloads × cells, on-demand last) bounds the pods of a workload on the node.
        """
        columns = np.flatnonzero(usable)
        if not len(columns) or not portions:
            return None
        wanted = np.array([self.requests[part.workload] * part.count for part in portions]).sum(axis=0)
        unit = _unit_values(self.rooms[columns, :2], prices[columns], wanted[:2])
        worth = np.array([float(self.requests[part.workload, :2] @ unit) for part in portions])
        skew = np.array(
            [self.requests[part.workload, 0] / self.requests[part.workload, 1] for part in portions]
        )
        best: tuple[float, int, IntArray] | None = None
        for order in (np.argsort(-worth), np.argsort(-skew), np.argsort(skew)):
            taken = self._fill([portions[index] for index in order], columns, allowed)
            ratio = prices[columns] / np.maximum(worth[order] @ taken, 1e-12)
            kind = int(ratio.argmin())
            if taken[:, kind].any() and (best is None or ratio[kind] < best[0] - 1e-12):
                pods = np.zeros(len(self.requests), np.int64)
                np.add.at(pods, [portions[index].workload for index in order], taken[:, kind])
                best = (float(ratio[kind]), int(columns[kind]), pods)
        return None if best is None else Bought(best[1], best[2])

    def _fill(self, portions: Sequence[Portion], columns: IntArray, allowed: IntArray | None) -> IntArray:
        """Return pods by (portion, column) when one node of each column is filled in this order."""
        free = self.rooms[columns].T.copy()
        zones, cells = self.zones[columns], self.cells[columns]
        taken = np.zeros((len(portions), len(columns)), np.int64)
        for row, part in enumerate(portions):
            request = self.requests[part.workload]
            fits = np.minimum(free[0] // request[0], free[1] // request[1])
            np.minimum(fits, np.minimum(free[2], part.count), out=fits)
            if allowed is not None:
                np.minimum(fits, allowed[part.workload, cells], out=fits)
            if part.zone != ANY_ZONE:
                fits *= zones == part.zone
            free -= request[:, None] * fits
            taken[row] = fits
        return taken


def reduced(portions: Sequence[Portion], bought: Bought, zone: int) -> list[Portion]:
    """Return the portions that are left when a node in the zone takes its pods."""
    left = []
    taken = bought.pods.copy()
    for part in portions:
        used = min(part.count, int(taken[part.workload])) if part.zone in (ANY_ZONE, zone) else 0
        taken[part.workload] -= used
        if part.count > used:
            left.append(Portion(part.workload, part.zone, part.count - used))
    return left


def _unit_values(rooms: IntArray, prices: FloatArray, wanted: IntArray) -> FloatArray:
    """Return what one milli-CPU and one MiB are worth: the duals of covering ``wanted`` at least price.

    They solve: maximise wanted · v subject to room · v ≤ price for each pool. The optimum is a corner, where
    two of the borders meet, or one border and an axis; all corners of the pools that matter are tried.
    """
    share = rooms / np.maximum(wanted, 1)
    per_use = prices[:, None] / np.maximum(np.column_stack([share, share.sum(axis=1)]), 1e-12)
    near = np.unique(np.argsort(per_use, axis=0)[:12])
    matter, paid = rooms[near].astype(float), prices[near]
    first, second = np.triu_indices(len(near), 1)
    a, b, c, d = matter[first, 0], matter[first, 1], matter[second, 0], matter[second, 1]
    determinant = a * d - b * c
    with np.errstate(divide="ignore", invalid="ignore"):
        corners = np.column_stack(
            [
                (paid[first] * d - paid[second] * b) / determinant,
                (a * paid[second] - c * paid[first]) / determinant,
            ]
        )
    axes = np.diag((prices[:, None] / rooms).min(axis=0))
    corners = np.vstack([corners[np.isfinite(corners).all(axis=1) & (corners >= 0).all(axis=1)], axes])
    feasible = (rooms @ corners.T <= prices[:, None] * (1 + 1e-9)).all(axis=0)
    value: FloatArray = corners[feasible][(corners[feasible] @ wanted).argmax()]
    return value
