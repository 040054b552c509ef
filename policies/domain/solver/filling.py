"""Fills many empty nodes at once with pods of the greatest value: the pricing of column generation."""

from dataclasses import dataclass

import numpy as np

from policies.domain.model import FloatArray, IntArray
from policies.domain.solver.reduction import Model

_COMPACT = 0.8
"""Full nodes are dropped from the arrays when fewer than this share is still open."""
_LEAST_GAIN = 1e-7
_LEAST_SHARE = 1e-3
"""Free shares below this count as this much when resources are weighed."""


@dataclass(frozen=True, slots=True)
class Fillings:
    """``C`` nodes to fill: the kind of each, and what may go onto it."""

    kinds: IntArray
    left: FloatArray
    """C × S: pods of each group that may still be placed."""
    values: FloatArray
    """C × S: what one pod is worth."""
    weights: FloatArray
    """C × R: what a unit of each resource is worth, about; only proportions matter."""
    balance: FloatArray
    """C: how strongly a resource that runs short is weighed up; 0 never, 8 almost at once."""
    parts: int = 4
    """A step takes at most this fraction (1 / parts) of the pods that would still fit."""


def fill(model: Model, fillings: Fillings) -> IntArray:
    """Return C × S pods for each node, chosen by value for the weighted room that they take.

    A greedy form of the multiplicative-weights method for packing linear programs: resources that run
    short on a node get dearer there, so that the last unit of each is used up together.
    """
    single = np.float32  # amounts are whole numbers below 2**24: exact, and half the traffic
    by_shape = model.requests.astype(single)
    requests = np.ascontiguousarray(by_shape.T)
    inverse = (1.0 / np.maximum(model.requests, 1e-9)).astype(single)
    free = model.rooms[fillings.kinds].astype(single)
    per_room = 1.0 / np.maximum(free, single(1))
    left = (np.minimum(fillings.left, model.per_node) * model.accepted[fillings.kinds]).astype(single)
    values = np.where(left > 0, fillings.values, 0.0).astype(single)
    prices, balance = fillings.weights.astype(single), fillings.balance[:, None].astype(single)
    taken = np.zeros(left.shape, np.int64)
    nodes, each = np.arange(len(free)), np.arange(len(free))
    while len(nodes):
        share = free * per_room + single(_LEAST_SHARE)
        weights = prices * (share.max(axis=1, keepdims=True) / share) ** balance
        score = values / (weights @ requests)
        for room, asked in zip(free.T, requests, strict=True):
            score *= asked <= room[:, None]
        chosen = score.argmax(axis=1)
        going = score[each, chosen] > 0
        open_count = int(going.sum())
        if open_count < _COMPACT * len(nodes):
            keep = np.flatnonzero(going)
            nodes, chosen, each, going = nodes[keep], chosen[keep], each[: len(keep)], going[keep]
            free, per_room, left, values = free[keep], per_room[keep], left[keep], values[keep]
            balance, prices = balance[keep], prices[keep]
            if not open_count:
                break
        fits = np.minimum((free * inverse[chosen]).min(axis=1) + single(1e-4), left[each, chosen])
        count = np.maximum(single(1), np.floor(fits) // single(fillings.parts)) * going
        taken[nodes, chosen] += count.astype(np.int64)
        left[each, chosen] -= count
        values[each, chosen] *= left[each, chosen] > 0
        free -= count[:, None] * by_shape[chosen]
        if model.conflicts is not None:
            values[model.conflicts[chosen] & going[:, None]] = 0.0
    return taken


def polish(
    model: Model, kinds: IntArray, pods: IntArray, left: FloatArray, values: FloatArray, *, passes: int
) -> IntArray:
    """Return C × S pods, better where exchanging one pod for another of greater value is possible."""
    single = np.float32
    pods = pods.copy()
    each = np.arange(len(kinds))
    free = (model.rooms[kinds] - pods @ model.requests).astype(single)
    most = np.minimum(left, model.per_node) * model.accepted[kinds]
    worth = np.where(most > 0, values, -1.0).astype(single)
    extra = (model.requests[None, :, :] - model.requests[:, None, :]).astype(single)
    shapes = len(model.counts)
    for _ in range(passes):
        open_to = pods < most
        if model.conflicts is not None:
            open_to &= (pods > 0) @ model.conflicts.astype(np.int64) == 0
        able = (pods > 0)[:, :, None] & open_to[:, None, :]
        for resource in range(extra.shape[2]):
            able &= extra[None, :, :, resource] <= free[:, resource, None, None]
        gain = np.where(able, worth[:, None, :] - worth[:, :, None], 0).reshape(len(kinds), -1)
        best = gain.argmax(axis=1)
        going = np.flatnonzero(gain[each, best] > _LEAST_GAIN)
        if not len(going):
            break
        out, into = best[going] // shapes, best[going] % shapes
        pods[going, out] -= 1
        pods[going, into] += 1
        free[going] -= extra[out, into]
    return pods
