"""Whole nodes: packing what is left onto them, and replacing some by cheaper ones."""

from dataclasses import dataclass, field

import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray
from policies.domain.solver.filling import Fillings, fill
from policies.domain.solver.generation import BALANCES, varied_weights
from policies.domain.solver.problem import UNLIMITED
from policies.domain.solver.reduction import Model

Node = tuple[int, IntArray]
"""Kind of the model, pods by group."""

_OPTIONS = 8
"""Kinds tried for the next node of a packing."""
_SHARES = ((0.0, 0.0), (0.5, 0.0), (0.25, 0.25), (0.0, 0.5), (0.9, 0.1), (0.6, 0.4), (0.3, 0.7), (0.0, 1.0))
"""Ways to value the room of a node: parts of its price that its CPU and its memory stand for."""
_NOISE = 0.08
_CHOICE_NOISE = 0.02


@dataclass(frozen=True, slots=True)
class Worth:
    """What guides packing: the values of pods, and what follows from them."""

    values: FloatArray
    """I."""
    by_kind: FloatArray
    """K × S."""
    gains: FloatArray
    """(T · K) × I: what a pod is worth beyond the room it takes, for T ways to value the room of a kind."""
    attraction: FloatArray
    """K: about what a full node is worth, as a share of its price."""

    def promise(self, left: IntArray, prices: FloatArray) -> FloatArray:
        """Return B × K: about what the pods left (B × I) are worth on one node, as a share of its price."""
        beyond = (left.astype(np.float32) @ self.gains.T).reshape(len(left), len(_SHARES), len(prices))
        ratios = beyond / np.maximum(prices, 1e-9) + np.array([sum(shares) for shares in _SHARES])[:, None]
        answer: FloatArray = np.minimum(ratios.min(axis=1), self.attraction)
        return answer


def worth_of(model: Model, values: FloatArray, attraction: FloatArray) -> Worth:
    """Return what follows from the values of pods by row and the attraction of kinds."""
    able = model.accepted[:, model.row_shape]
    able &= (model.row_zone[None, :] < 0) | (model.zones[:, None] == model.row_zone[None, :])
    main = model.rooms[:, :2]
    asked = model.requests[model.row_shape, :2]
    by_price = model.prices[:, None] / np.maximum(main, 1.0)
    gains = [
        np.maximum(values - (by_price * shares[: main.shape[1]]) @ asked.T, 0.0) * able for shares in _SHARES
    ]
    return Worth(values, model.row_values(values), np.concatenate(gains).astype(np.float32), attraction)


@dataclass(slots=True)
class _Replicas:
    """Packings that grow side by side."""

    left: IntArray
    """B × I."""
    used: IntArray
    """B × K."""
    costs: FloatArray
    nodes: list[list[tuple[int, IntArray, int]]] = field(default_factory=list)


def pack(
    model: Model, worth: Worth, left: IntArray, used: IntArray, chance: np.random.Generator
) -> list[tuple[float, list[Node], IntArray]]:
    """Return a random packing for each line of ``left`` (B × I): cost, nodes, and pods that found none."""
    state = _Replicas(
        left.copy(),
        np.repeat(used[None], len(left), axis=0),
        np.zeros(len(left)),
        [[] for _ in range(len(left))],
    )
    growing = np.flatnonzero(state.left.any(axis=1))
    while len(growing):
        growing = _grow(model, worth, state, growing, chance)
    return [
        (float(cost), [(kind, pods) for kind, pods, copies in nodes for _ in range(copies)], missing)
        for cost, nodes, missing in zip(state.costs, state.nodes, state.left, strict=True)
    ]


def _grow(
    model: Model, worth: Worth, state: _Replicas, growing: IntArray, chance: np.random.Generator
) -> IntArray:
    """Give each growing packing its next node; return those that still grow."""
    kinds, owner = _options(model, worth, state, growing)
    if not len(kinds):
        return np.zeros(0, np.int64)
    padded = np.column_stack([state.left[owner], np.zeros(len(owner), np.int64)])
    left = np.take_along_axis(padded, model.row_of[:, model.zones[kinds]].T, axis=1)
    true = worth.by_kind[kinds]
    varied = true * np.exp(chance.normal(0.0, _NOISE, true.shape))
    balance = BALANCES[chance.integers(len(BALANCES), size=len(kinds))]
    pods = fill(
        model, Fillings(kinds, left, varied, varied_weights(model, kinds, worth.values, chance), balance)
    )
    ratio = (pods * true).sum(axis=1) / np.maximum(model.prices[kinds], 1e-9)
    ratio *= np.exp(chance.normal(0.0, _CHOICE_NOISE, len(kinds)))
    order = np.lexsort((-ratio, owner))
    first = order[np.append(True, owner[order][1:] != owner[order][:-1])]
    rows = model.to_rows(kinds[first], pods[first])
    still = []
    for index, taken in zip(first.tolist(), rows, strict=True):
        replica, kind = int(owner[index]), int(kinds[index])
        if not taken.any():
            continue
        copies = int((state.left[replica][taken > 0] // taken[taken > 0]).min())
        copies = max(1, min(copies, int(model.limits[kind] - state.used[replica, kind])))
        state.left[replica] -= copies * taken
        state.used[replica, kind] += copies
        state.costs[replica] += copies * model.prices[kind]
        state.nodes[replica].append((kind, pods[index], copies))
        if state.left[replica].any():
            still.append(replica)
    return np.array(still, np.int64)


def _options(model: Model, worth: Worth, state: _Replicas, growing: IntArray) -> tuple[IntArray, IntArray]:
    """Return the kinds worth trying for each growing packing, and the packing that each is for."""
    ratio = worth.promise(state.left[growing], model.prices)
    if (model.limits < UNLIMITED).any():
        ratio[state.used[growing] >= model.limits] = 0.0
    count = min(_OPTIONS, ratio.shape[1])
    chosen = np.argpartition(-ratio, count - 1, axis=1)[:, :count]
    promising = np.take_along_axis(ratio, chosen, axis=1) > 0
    owner = np.repeat(growing, count).reshape(-1, count)
    return chosen[promising], owner[promising]


def downsize(model: Model, kinds: IntArray, pods: IntArray, *, within_rules: bool = True) -> IntArray:
    """Return for each node the cheapest kind that holds its pods, as long as rules on nodes allow."""
    answer = kinds.copy()
    able = replaceable(model, kinds, pods)
    for rule in model.rules if within_rules else ():
        able &= rule[None, :] <= rule[kinds][:, None]
    best = np.where(able, model.prices, np.inf).argmin(axis=1)
    cheaper = model.prices[best] < model.prices[kinds] - 1e-12
    answer[cheaper] = best[cheaper]
    return answer


def replaceable(model: Model, kinds: IntArray, pods: IntArray) -> BoolArray:
    """Return N × K: kinds of unlimited number that hold the pods of each node, in the zones they need."""
    loads = pods @ model.requests
    carried = (pods > 0).astype(float)
    able: BoolArray = np.all(loads[:, None, :] <= model.rooms[None], axis=2)
    able &= carried @ (~model.accepted).T.astype(float) == 0
    able &= _same_rows(model, kinds, carried)
    able &= (model.limits >= UNLIMITED) | (np.arange(len(model.kinds)) == kinds[:, None])
    return able


def _same_rows(model: Model, kinds: IntArray, carried: FloatArray) -> BoolArray:
    """Return N × K: whether the pods would count for the same rows of demand on a node of the kind."""
    zoned = np.asarray(carried[:, model.skews > 0].any(axis=1))
    answer: BoolArray = ~zoned[:, None] | (model.zones[kinds][:, None] == model.zones[None, :])
    return answer
