"""From the linear program to whole nodes: round down, ask again for the rest, and so on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policies.domain.model import IntArray
from policies.domain.solver.generation import Generator
from policies.domain.solver.master import Master, Relaxed
from policies.domain.solver.nodes import Node, pack, worth_of
from policies.domain.solver.reduction import Model

_FIXED_SHARE = 0.4
"""Where nothing rounds down, this share of the nodes left is fixed at once."""
_TOLERANCE = 2e-3
_USEFUL = 0.98
"""A pattern is used again while the pods left are worth this share of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to get to whole nodes."""

    rounds: int
    """Rounds of column generation after each fixing."""
    few_nodes: float
    """So few nodes are packed at random instead of by the linear program."""
    packings: int
    chance: np.random.Generator
    expired: Callable[[], bool]


def dive(master: Master, generator: Generator, demand: IntArray, plan: Plan) -> tuple[list[Node], IntArray]:
    """Return whole nodes for the demand (pods by row), and the pods that found none."""
    model = master.model
    left = demand.copy()
    nodes: list[Node] = []
    used = np.zeros(len(model.kinds), np.int64)
    master.restrict(left.astype(float), used)
    while left.any():
        relaxed = master.solve()
        if relaxed.used.sum() > plan.few_nodes:
            relaxed = generator.run(left.astype(float), plan.rounds, _TOLERANCE, plan.expired)
        if relaxed.used.sum() <= plan.few_nodes:
            break
        before = int(left.sum())
        for pattern, copies in _chosen(relaxed, master):
            kind, pods = int(master.kinds[pattern]), master.pods[pattern]
            rows = model.to_rows(np.array([kind]), pods[None])[0]
            for _ in range(copies):
                taken = np.minimum(rows, left)
                if not taken.any() or relaxed.values @ taken < _USEFUL * (relaxed.values @ rows):
                    break
                left -= taken
                nodes.append((kind, _trimmed(model, kind, pods, taken)))
                used[kind] += 1
        if int(left.sum()) == before:
            break
        master.restrict(left.astype(float), used)
    worth = worth_of(model, generator.centre.values, generator.attraction)
    packings = pack(model, worth, np.repeat(left[None], plan.packings, axis=0), used, plan.chance)
    _, tail, missing = min(packings, key=lambda packing: (int(packing[2].sum()), packing[0]))
    return nodes + tail, missing


def _chosen(relaxed: Relaxed, master: Master) -> list[tuple[int, int]]:
    whole = np.floor(relaxed.used + 1e-6).astype(int)
    if whole.any():
        return [(int(i), int(whole[i])) for i in np.flatnonzero(whole)]
    most = max(1, int(_FIXED_SHARE * relaxed.used.sum()))
    order = np.argsort(-relaxed.used, kind="stable")[:most]
    return [(int(i), 1) for i in order if relaxed.used[i] > 0]


def _trimmed(model: Model, kind: int, pods: IntArray, taken: IntArray) -> IntArray:
    rows = model.row_of[:, model.zones[kind]]
    answer: IntArray = np.minimum(pods, np.append(taken, 0)[rows])
    return answer
