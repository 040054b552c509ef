"""Column generation: finds the patterns of pods worth using, and what each pod is worth."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policies.domain.model import FloatArray, IntArray
from policies.domain.relaxation import Columns, relax
from policies.domain.solver.duality import charged_prices
from policies.domain.solver.filling import Fillings, fill, polish
from policies.domain.solver.master import Master, Relaxed
from policies.domain.solver.problem import UNLIMITED
from policies.domain.solver.reduction import Model

BALANCES = np.array([4.0, 2.0, 8.0, 4.0, 4.0, 2.0])
"""How strongly scarce resources are weighed up, in turn over the fillings of a kind."""
_SMOOTHING = 0.8
"""Weight of the best values so far against the master's (Wentges 1997)."""
_NOISE = 0.10
"""Spread of the logarithm of the values that fillings of one kind are varied by."""
_FIRST_NOISE = 0.30
_FIRST_PATTERNS = 250
_KEPT = 40
"""Most patterns added in one round."""
_VARIANTS = 10
_POLISHED = 8
"""Fillings, the best of a round, that are polished by exchanging single pods."""
_EXCHANGES = 4
_DRAWN_SHARE = 0.3
"""Fillings whose weights of resources are drawn at random instead of fitted."""
_PATIENCE = 3
"""Rounds without a new pattern before the linear program counts as solved."""
_ATTRACTIVE = 0.9
"""A kind is filled in each round if its best filling was lately worth this share of its price."""
_FADING = 0.99
_FULL_EVERY = 8
"""In each eighth round, kinds that were not attractive lately are filled too."""
_FULL = 300
"""Most kinds that are filled then."""
_IMPROVING = 1e-5
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Duals:
    """Prices to fill nodes by: by row of demand and by rule on nodes."""

    values: FloatArray
    multipliers: FloatArray

    def mixed(self, other: "Duals", weight: float) -> "Duals":
        """Return ``weight`` parts of these and the rest of the other."""
        return Duals(
            weight * self.values + (1 - weight) * other.values,
            weight * self.multipliers + (1 - weight) * other.multipliers,
        )


class Generator:
    """Adds patterns to a master until the linear program hardly improves."""

    def __init__(self, model: Model, master: Master, chance: np.random.Generator) -> None:
        self.model, self.master, self._chance = model, master, chance
        self.centre = Duals(first_values(model), np.zeros(len(model.rules)))
        """The best prices so far."""
        self.estimate = 0.0
        """About what the dual bound of the centre is; not proven, because fillings are not optimal."""
        self.attraction: FloatArray = np.ones(len(model.kinds))
        self._round = 0

    def start(self, demand: FloatArray) -> None:
        """Add single-shape patterns, so that there is a solution, and many full nodes of mixed content."""
        singles = single_patterns(self.model)
        self.master.add(*singles)
        kinds = np.arange(len(self.model.kinds))
        variants = max(2, min(16, 600 // max(1, len(kinds))))
        self._price(np.repeat(kinds, variants), self.centre, demand)

    def run(self, demand: FloatArray, rounds: int, tolerance: float, expired: Callable[[], bool]) -> Relaxed:
        """Return the linear program's optimum over good patterns; stop early within ``tolerance``."""
        smoothing = _SMOOTHING
        self.estimate = 0.0
        relaxed = self.master.solve()
        idle = 0
        for _ in range(rounds):
            if expired() or relaxed.cost - self.estimate <= tolerance * relaxed.cost or idle > _PATIENCE:
                break
            self._round += 1
            outer = Duals(relaxed.values, relaxed.multipliers)
            mixed = self.centre.mixed(outer, smoothing)
            added = self._price(self._candidates(), mixed, demand, outer)
            idle, smoothing = (0, smoothing) if added else (idle + 1, smoothing * 0.6)
            if added:
                relaxed = self.master.solve()
        return relaxed

    def _candidates(self) -> IntArray:
        """Return the kinds to fill in this round, with repetitions."""
        if self._round <= 1 or self._round % _FULL_EVERY == 0:
            kinds = np.arange(len(self.model.kinds))
            if self._round > 1 and len(kinds) > _FULL:
                kinds = np.sort(self._chance.choice(kinds, _FULL, replace=False))
            return np.repeat(kinds, 2)
        return np.repeat(np.flatnonzero(self.attraction > _ATTRACTIVE), _VARIANTS)

    def _price(self, kinds: IntArray, duals: Duals, demand: FloatArray, outer: Duals | None = None) -> int:
        """Fill nodes and add the patterns that improve on the outer prices; return how many were added.

        Without outer prices, the best patterns are added.
        """
        model = self.model
        left = model.most(kinds, np.ceil(demand - _ROUNDING))
        noise = _FIRST_NOISE if outer is None else _NOISE
        pods = fill_varied(model, kinds, duals.values, left, noise=noise, chance=self._chance)
        worth = model.row_values(duals.values)[kinds]
        charged = np.maximum(charged_prices(model, duals.multipliers)[kinds], 1e-9)
        ratios = (pods * worth).sum(axis=1) / charged
        if outer is None:
            best = np.argsort(-ratios, kind="stable")[:_FIRST_PATTERNS]
            return self.master.add(kinds[best], pods[best])
        best = np.argsort(-ratios, kind="stable")[:_POLISHED]
        better = polish(model, kinds[best], pods[best], left[best], worth[best], passes=_EXCHANGES)
        ratios = np.append(ratios, (better * worth[best]).sum(axis=1) / charged[best])
        kinds, pods = np.append(kinds, kinds[best]), np.concatenate([pods, better])
        self._learn(kinds, ratios, duals, demand)
        true = (pods * model.row_values(outer.values)[kinds]).sum(axis=1)
        reduced = 1 - true / np.maximum(charged_prices(model, outer.multipliers)[kinds], 1e-9)
        good = np.flatnonzero(reduced < -_IMPROVING)
        good = good[np.argsort(reduced[good], kind="stable")][:_KEPT]
        return self.master.add(kinds[good], pods[good])

    def _learn(self, kinds: IntArray, ratios: FloatArray, duals: Duals, demand: FloatArray) -> None:
        self.attraction *= _FADING
        np.maximum.at(self.attraction, kinds, ratios)
        scale = max(1e-9, float(ratios.max(initial=0.0)))
        estimate = float(duals.values @ demand) / scale - float(duals.multipliers @ self.master.uppers)
        if estimate > self.estimate:
            self.estimate, self.centre = estimate, duals


def fill_varied(
    model: Model,
    kinds: IntArray,
    values: FloatArray,
    left: FloatArray,
    *,
    noise: float,
    chance: np.random.Generator,
) -> IntArray:
    """Fill nodes by values that vary from node to node; the first node of each kind by the true ones."""
    worth = model.row_values(values)[kinds]
    varied = worth * np.exp(chance.normal(0.0, noise, worth.shape))
    repeated = np.append(False, kinds[1:] == kinds[:-1])
    run = np.arange(len(kinds)) - np.maximum.accumulate(np.where(repeated, 0, np.arange(len(kinds))))
    varied[~repeated] = worth[~repeated]
    balance = BALANCES[run % len(BALANCES)]
    weights = varied_weights(model, kinds, values, chance)
    return fill(model, Fillings(kinds, left, varied, weights, balance))


def varied_weights(
    model: Model, kinds: IntArray, values: FloatArray, chance: np.random.Generator
) -> FloatArray:
    """Return C × R: ways to weigh resources, most by what pods are worth, some by random shares."""
    fitted = np.repeat(resource_weights(model, values)[None], len(kinds), axis=0)
    shares = chance.dirichlet(np.ones(model.rooms.shape[1]), len(kinds)) + 0.02
    drawn = chance.random(len(kinds)) < _DRAWN_SHARE
    fitted[drawn] = (shares / np.maximum(model.rooms[kinds], 1.0))[drawn]
    return fitted


def resource_weights(model: Model, values: FloatArray) -> FloatArray:
    """Return R: about what a unit of each resource is worth, fitted to what pods are worth."""
    weight = np.sqrt(np.maximum(model.counts, 1))[:, None]
    by_shape = np.zeros(len(model.counts))
    np.maximum.at(by_shape, model.row_shape, values)
    fitted = np.linalg.lstsq(model.requests * weight, by_shape * weight[:, 0], rcond=None)[0]
    floor = 1e-3 * float(model.prices.mean()) / np.maximum(model.rooms.mean(axis=0), 1.0)
    answer: FloatArray = np.maximum(fitted, floor)
    return answer


def single_patterns(model: Model) -> tuple[IntArray, IntArray]:
    """Return for each row the cheapest kind by pod, filled with this shape alone."""
    fits = np.floor((model.rooms[:, None, :] / np.maximum(model.requests, 1e-9)[None]).min(axis=2) + 1e-9)
    fits = np.minimum(fits, np.minimum(model.per_node, model.counts)) * model.accepted
    kinds, pods = [], []
    for shape, zone in zip(model.row_shape.tolist(), model.row_zone.tolist(), strict=True):
        able = (fits[:, shape] > 0) & ((model.zones == zone) | (zone < 0))
        kind = int(np.where(able, model.prices / np.maximum(fits[:, shape], 1), np.inf).argmin())
        kinds.append(kind)
        pods.append(np.zeros(len(model.counts), np.int64))
        pods[-1][shape] = int(fits[kind, shape])
    return np.array(kinds, np.int64), np.array(pods, np.int64).reshape(-1, len(model.counts))


def first_values(model: Model) -> FloatArray:
    """Return I: what pods are worth when pods and nodes may be split at will."""
    able = model.accepted[:, model.row_shape] & (
        (model.row_zone[None, :] < 0) | (model.zones[:, None] == model.row_zone[None, :])
    )
    zones = np.maximum(np.bincount(model.row_shape), 1)[model.row_shape]
    counts = np.ceil(model.counts[model.row_shape] / zones).astype(np.int64)
    requests = model.requests[model.row_shape].astype(np.int64)
    upper = np.where(model.limits >= UNLIMITED, np.inf, model.limits.astype(float))
    columns = Columns(
        np.append(model.prices, 1000 * model.prices.max(initial=1.0)),
        np.vstack([model.rooms, model.rooms.max(axis=0, initial=1.0)]).astype(np.int64),
        np.append(upper, np.inf),
    )
    return relax(requests, counts, [np.append(row, True) for row in able.T], columns).values
