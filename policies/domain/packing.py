"""Packs classes of equal pods onto whole new nodes, the cheapest value for money first."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class PodClasses:
    """Pods that are equal to the packer, by class."""

    requests: IntArray
    counts: IntArray
    accepted: Sequence[BoolArray]
    """For each class, which columns it accepts."""
    limits: IntArray
    """Most pods of the class on one node."""
    conflicts: tuple[tuple[int, int], ...] = ()
    """Pairs of classes that may not share a node."""


@dataclass(frozen=True, slots=True)
class NodeKinds:
    """What may be bought: one entry per offer."""

    prices: FloatArray
    """Effective price, USD per hour."""
    rooms: IntArray
    """Room for pods when empty, with the slack already taken off."""
    full_rooms: IntArray
    """Room for pods when empty."""
    pools: IntArray
    """Pool number of each offer."""
    zones: IntArray
    """Zone number of each offer."""


@dataclass(slots=True)
class Caps:
    """How many nodes a pool and a zone may have, and how many they have already."""

    per_pool: int
    per_zone: int
    in_pool: IntArray
    in_zone: IntArray

    def copy(self) -> "Caps":
        """Return an independent copy."""
        return Caps(self.per_pool, self.per_zone, self.in_pool.copy(), self.in_zone.copy())

    def left(self, kinds: NodeKinds) -> IntArray:
        """Return how many more nodes of each kind the pool cap allows."""
        return np.maximum(self.per_pool - self.in_pool[kinds.pools], 0)

    def add(self, kinds: NodeKinds, kind: int, count: int) -> None:
        """Count new nodes."""
        self.in_pool[kinds.pools[kind]] += count
        self.in_zone[kinds.zones[kind]] += count


@dataclass(slots=True)
class Packing:
    """The nodes to buy, each with the pods it is bought for."""

    nodes: list[tuple[int, IntArray]] = field(default_factory=list)
    """(kind, pods by class)."""
    unplaced: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Pods by class that no allowed kind of node holds."""


def fill_existing(classes: PodClasses, free: IntArray, accepted: Sequence[BoolArray]) -> IntArray:
    """Put pods into the free room of nodes that stay; return the pods left over, by class.

    Pods with much choice go first: the scheduler keeps no room free for those with little.
    """
    room = np.maximum(free, 0)
    left = classes.counts.copy()
    choice = np.array([int(mask.sum()) for mask in accepted])
    for index in np.lexsort((-_sizes(classes, room), -choice)):
        request = classes.requests[index]
        fits = np.minimum(_fit(room.T, request), classes.limits[index]) * accepted[index]
        before = np.cumsum(fits) - fits
        taken = np.clip(left[index] - before, 0, fits)
        room -= taken[:, None] * request
        left[index] -= taken.sum()
    return left


def buy_nodes(
    classes: PodClasses, counts: IntArray, values: FloatArray, kinds: NodeKinds, caps: Caps
) -> Packing:
    """Buy nodes for ``counts`` pods by class: always the fill that gives most value for its price.

    ``values`` says what a pod of each class is worth, USD per hour (the duals of the relaxation).
    """
    packing = Packing(unplaced=counts.copy())
    left = packing.unplaced
    orders = _orders(classes, values)
    while left.any() and len(kinds.prices):
        usable = _usable(kinds, caps)
        best: tuple[float, int, IntArray] | None = None
        for order in orders:
            taken = _fill(classes, left, kinds, order)
            worth = values @ taken
            ratio = np.where((worth > 0) & usable, kinds.prices / np.maximum(worth, 1e-12), np.inf)
            kind = int(ratio.argmin())
            if np.isfinite(ratio[kind]) and (best is None or ratio[kind] < best[0] - 1e-12):
                best = (float(ratio[kind]), kind, taken[:, kind])
        if best is None:
            break
        _, kind, pods = best
        copies = int((left[pods > 0] // pods[pods > 0]).min())
        copies = max(1, min(copies, int(caps.left(kinds)[kind]), _zone_left(kinds, caps, kind)))
        packing.nodes.extend((kind, pods.copy()) for _ in range(copies))
        left -= copies * pods
        caps.add(kinds, kind, copies)
    return packing


def _usable(kinds: NodeKinds, caps: Caps) -> BoolArray:
    """Return the kinds under the pool cap, and under the zone cap while any zone is."""
    by_pool: BoolArray = caps.left(kinds) > 0
    by_zone = by_pool & (caps.in_zone[kinds.zones] < caps.per_zone)
    return by_zone if by_zone.any() else by_pool


def _zone_left(kinds: NodeKinds, caps: Caps, kind: int) -> int:
    return max(1, int(caps.per_zone - caps.in_zone[kinds.zones[kind]]))


def _orders(classes: PodClasses, values: FloatArray) -> list[IntArray]:
    """Return the orders in which a node is filled: most valuable pod first, and most CPU-heavy first."""
    skew = classes.requests[:, 0] / np.maximum(classes.requests[:, 1], 1)
    return [np.argsort(-values, kind="stable"), np.lexsort((-values, -skew)), np.lexsort((-values, skew))]


def _fill(classes: PodClasses, left: IntArray, kinds: NodeKinds, order: IntArray) -> IntArray:
    """Return pods by (class, kind) when one node of each kind is filled in the given order."""
    room = np.ascontiguousarray(kinds.rooms.T)
    slack = (kinds.full_rooms - kinds.rooms).T
    taken = np.zeros((len(left), room.shape[1]), np.int64)
    roomy = kinds.rooms.max(axis=0, initial=0)
    rivals: dict[int, list[int]] = defaultdict(list)
    for one, another in classes.conflicts:
        rivals[one].append(another)
        rivals[another].append(one)
    for index in order[left[order] > 0].tolist():
        request = classes.requests[index]
        fits = _fit(room, request)
        if (request > roomy).any():  # fits in no room less slack: one may use a whole node's slack
            fits = np.maximum(fits, np.minimum(_fit(room + slack, request), 1))
        np.minimum(fits, min(int(left[index]), int(classes.limits[index])), out=fits)
        fits *= classes.accepted[index]
        for other in rivals[index]:
            fits[taken[other] > 0] = 0
        if fits.any():
            room -= request[:, None] * fits
            taken[index] = fits
    return taken


def _fit(room: IntArray, request: IntArray) -> IntArray:
    """Return how many pods fit into each column of ``room``."""
    fits: IntArray | None = None
    for available, asked in zip(room, request.tolist(), strict=True):
        if asked > 0:
            share = available // asked
            fits = share if fits is None else np.minimum(fits, share)
    if fits is None:
        return np.full(room.shape[1], np.iinfo(np.int32).max, np.int64)
    return np.maximum(fits, 0)


def _sizes(classes: PodClasses, room: IntArray) -> FloatArray:
    """Return each class's largest share of the room of an average node."""
    mean = np.maximum(room.mean(axis=0), 1.0) if len(room) else np.ones(classes.requests.shape[1])
    sizes: FloatArray = (classes.requests / mean).max(axis=1)
    return sizes
