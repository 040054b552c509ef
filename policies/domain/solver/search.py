"""Local search on whole nodes: take some out, pack their pods again, keep what is cheaper."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray
from policies.domain.solver.duality import charged_prices
from policies.domain.solver.nodes import Node, Worth, downsize, pack, replaceable
from policies.domain.solver.reduction import Model

_GROUP_SIZES = (2, 3, 4, 5, 6)
_REPLICAS = 8
_LEAST = 1e-9
_SLACK = 1e-9
_FEWEST = 2
_ENOUGH = 2e-3
"""No search when the nodes cost this little more than their pods are worth, as a share."""
_RULED = 4
"""Where rules bind, the search is this many times longer."""
_GROUPS = 6
"""Groups of nodes that are repacked side by side."""


def improve(
    model: Model,
    worth: Worth,
    nodes: Sequence[Node],
    *,
    multipliers: FloatArray,
    rounds: int,
    chance: np.random.Generator,
    expired: Callable[[], bool],
) -> list[Node]:
    """Return nodes for the same pods that keep the rules and cost no more.

    Nodes are judged by their price and what the rules charge for them (``multipliers``): the price alone
    would never leave a pool that has its full share.
    """
    kinds = np.array([kind for kind, _ in nodes], np.int64)
    pods = np.array([pods for _, pods in nodes], np.int64).reshape(len(nodes), -1)
    kinds = downsize(model, kinds, pods)
    charged = replace(model, prices=charged_prices(model, multipliers))
    best = kinds, pods
    for _ in range(rounds * (_RULED if multipliers.any() else 1)):
        losses = charged.prices[kinds] - model.to_rows(kinds, pods) @ worth.values
        if expired() or len(kinds) < _FEWEST or losses.sum() <= _ENOUGH * model.prices[kinds].sum():
            break
        kinds, pods = _round(charged, worth, kinds, pods, chance)
        if model.prices[kinds].sum() < model.prices[best[0]].sum():
            best = kinds, pods
    return list(zip(best[0].tolist(), best[1], strict=True))


def _round(
    model: Model, worth: Worth, kinds: IntArray, pods: IntArray, chance: np.random.Generator
) -> tuple[IntArray, IntArray]:
    rows = model.to_rows(kinds, pods)
    losses = np.maximum(model.prices[kinds] - rows @ worth.values, 1e-6 * model.prices[kinds])
    groups = _groups(losses, chance)
    left = np.array([rows[group].sum(axis=0) for group in groups])
    used = np.bincount(kinds, minlength=len(model.kinds))
    packings = pack(model, worth, np.repeat(left, _REPLICAS, axis=0), used, chance)
    state = model.rules @ used
    uppers = np.array([rule.upper for rule in model.problem.rules])
    gone: list[int] = []
    new_kinds, new_pods = [], []
    for number, group in enumerate(groups):
        own = packings[number * _REPLICAS : (number + 1) * _REPLICAS]
        _, fresh, missing = min(own, key=lambda packing: (int(packing[2].sum()), packing[0]))
        if missing.any():
            continue
        fresh_pods = np.array([p for _, p in fresh], np.int64).reshape(len(fresh), -1)
        fresh_kinds = np.array([k for k, _ in fresh], np.int64)
        fresh_kinds = downsize(model, fresh_kinds, fresh_pods, within_rules=False)
        change = model.rules[:, fresh_kinds].sum(axis=1) - model.rules[:, kinds[group]].sum(axis=1)
        kept_rules = ((change <= _LEAST) | (state + change <= uppers)).all()
        taken = used + np.bincount(fresh_kinds, minlength=len(model.kinds))
        kept_rules &= (taken <= np.maximum(model.limits, used)).all()
        if kept_rules and model.prices[fresh_kinds].sum() < model.prices[kinds[group]].sum() - _LEAST:
            state, used = state + change, taken
            gone.extend(group.tolist())
            new_kinds.append(fresh_kinds)
            new_pods.append(fresh_pods)
    if not gone:
        return kinds, pods
    kept = np.setdiff1d(np.arange(len(kinds)), gone)
    return np.concatenate([kinds[kept], *new_kinds]), np.concatenate([pods[kept], *new_pods])


def _groups(losses: FloatArray, chance: np.random.Generator) -> list[IntArray]:
    """Return disjoint groups of nodes, those that lose most more often than others."""
    order = np.argsort(-losses * chance.exponential(1.0, len(losses)), kind="stable")
    groups: list[IntArray] = []
    start = 0
    while start + _FEWEST <= len(order) and len(groups) < _GROUPS:
        size = int(chance.choice(_GROUP_SIZES))
        groups.append(order[start : start + size])
        start += size
    return groups


def keep_rules(model: Model, nodes: Sequence[Node]) -> tuple[list[Node], list[str]]:
    """Return the nodes with kinds exchanged until the rules hold, and the names of rules that still do not.

    Each step exchanges the node whose kind brings the broken rules nearest for the least money.
    """
    kinds = np.array([kind for kind, _ in nodes], np.int64)
    pods = np.array([pods for _, pods in nodes], np.int64).reshape(-1, len(model.counts))
    uppers = np.array([rule.upper for rule in model.problem.rules])
    if not len(uppers):
        return list(nodes), []
    able = replaceable(model, kinds, pods)
    broken = np.zeros(len(uppers), bool)
    for _ in range(2 * len(kinds) + 1):
        state = model.rules @ np.bincount(kinds, minlength=len(model.kinds))
        excess = state - uppers
        broken = excess > _SLACK * np.maximum(1.0, np.abs(uppers))
        if not broken.any():
            return list(zip(kinds.tolist(), pods, strict=True)), []
        step = _best_exchange(model, kinds, able, excess)
        if step is None:
            break
        kinds[step[0]] = step[1]
    names = [rule.name for rule, bad in zip(model.problem.rules, broken.tolist(), strict=True) if bad]
    return list(zip(kinds.tolist(), pods, strict=True)), names


def _best_exchange(
    model: Model, kinds: IntArray, able: BoolArray, excess: FloatArray
) -> tuple[int, int] | None:
    """Return (node, new kind) that lessens the excess of rules at the least price for each unit."""
    best: tuple[float, int, int] | None = None
    over = np.maximum(excess, 0.0).sum()
    for kind in np.unique(kinds).tolist():
        change = model.rules - model.rules[:, [kind]]
        gain = over - np.maximum(excess[:, None] + change, 0.0).sum(axis=0)
        dearer = model.prices - model.prices[kind]
        for node in np.flatnonzero(kinds == kind).tolist():
            useful = able[node] & (gain > _LEAST)
            if not useful.any():
                continue
            rate = np.where(useful, np.maximum(dearer, _LEAST) / np.maximum(gain, _LEAST), np.inf)
            target = int(rate.argmin())
            if best is None or rate[target] < best[0]:
                best = (float(rate[target]), node, target)
    return best and best[1:]
