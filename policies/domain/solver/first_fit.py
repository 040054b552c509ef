"""First fit decreasing: the plain packing that every answer is compared with."""

import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray
from policies.domain.solver.nodes import Node, downsize
from policies.domain.solver.problem import UNLIMITED
from policies.domain.solver.reduction import Model

_CPU_PER_MEMORY = 4.0
"""MiB that are worth one milli-CPU when nodes are compared by their room."""


def first_fit(model: Model, demand: IntArray) -> tuple[list[Node], IntArray]:
    """Return whole nodes for the demand (pods by row), and the pods that found none.

    Pods go by CPU, then memory, onto the first node with room; a new node is of the kind that is cheapest
    for its room. At last each node becomes the cheapest kind that holds its pods.
    """
    packing = _Packing(model)
    asked = model.requests[model.row_shape]
    missing = np.zeros(model.rows, np.int64)
    for row in np.lexsort(tuple(-asked.T[::-1])).tolist():
        missing[row] = packing.place(row, int(demand[row]))
    kinds, pods = np.array(packing.kinds, np.int64), packing.pods
    return list(zip(downsize(model, kinds, pods).tolist(), pods, strict=True)), missing


class _Packing:
    """Nodes in the order in which they were opened."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.kinds: list[int] = []
        self.pods: IntArray = np.zeros((0, len(model.counts)), np.int64)
        self._used = np.zeros(len(model.kinds), np.int64)
        sizes = model.rooms[:, 0] + (model.rooms[:, 1] / _CPU_PER_MEMORY if model.rooms.shape[1] > 1 else 0)
        self._rates: FloatArray = model.prices / np.maximum(sizes, 1e-9)

    def place(self, row: int, count: int) -> int:
        """Place pods of the row, open nodes as needed, and return how many found no place."""
        model, shape = self._model, int(self._model.row_shape[row])
        able = self._able(row)
        kinds = np.array(self.kinds, np.int64)
        free = model.rooms[kinds] - self.pods @ model.requests
        fits = self._fits(free, shape) * able[kinds] * ~self._rivals(shape)
        before = np.cumsum(fits) - fits
        taken = np.clip(count - before, 0, fits)
        self.pods[:, shape] += taken
        left = count - int(taken.sum())
        while left:
            open_kinds = able & (self._used < model.limits)
            kind = int(np.where(open_kinds, self._rates, np.inf).argmin())
            if not open_kinds[kind]:
                break
            each = min(left, int(self._fits(model.rooms[[kind]], shape)[0]))
            copies = left // each if model.limits[kind] >= UNLIMITED else 1
            fresh = np.zeros((copies, len(model.counts)), np.int64)
            fresh[:, shape] = each
            self.pods = np.concatenate([self.pods, fresh])
            self.kinds += [kind] * copies
            self._used[kind] += copies
            left -= copies * each
        return left

    def _able(self, row: int) -> BoolArray:
        model, zone = self._model, int(self._model.row_zone[row])
        able: BoolArray = model.accepted[:, model.row_shape[row]]
        return able if zone < 0 else able & (model.zones == zone)

    def _fits(self, free: FloatArray, shape: int) -> IntArray:
        """Return how many pods of the shape each room holds."""
        request = self._model.requests[shape]
        asked = request > 0
        fits = np.floor(free[:, asked] / request[asked] + 1e-9).min(axis=1)
        answer: IntArray = np.clip(fits, 0, self._model.per_node[shape]).astype(np.int64)
        return answer

    def _rivals(self, shape: int) -> BoolArray:
        """Return which nodes carry a shape that this one may not be with."""
        conflicts = self._model.conflicts
        if conflicts is None:
            return np.zeros(len(self.pods), bool)
        return np.asarray((self.pods[:, conflicts[shape]] > 0).any(axis=1))
