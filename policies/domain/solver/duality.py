"""Lower bounds from prices of pods: what no node set can go below."""

import numpy as np

from policies.domain.model import FloatArray
from policies.domain.solver.problem import UNLIMITED
from policies.domain.solver.reduction import Model


def charged_prices(model: Model, multipliers: FloatArray) -> FloatArray:
    """Return K: the price of a node with what the rules on nodes charge for it."""
    answer: FloatArray = model.prices + multipliers @ model.rules
    return answer


def dual_bound(model: Model, values: FloatArray, multipliers: FloatArray, ceilings: FloatArray) -> float:
    """Return a lower bound in USD per hour on the cost of any node set that holds all pods.

    ``values`` (I) and ``multipliers`` (rules) are any prices of at least 0; ``ceilings`` (K) says what the
    pods of one node of each kind are worth at most in these values. The bound is valid if the ceilings
    are. Values are scaled until no kind of unlimited number is worth more than it costs (Farley 1990);
    a kind of limited number may be, at its number times the difference (Lagrange).
    """
    charged = charged_prices(model, multipliers)
    unlimited = model.limits >= UNLIMITED
    scale = 1.0
    if unlimited.any():
        ratios = ceilings[unlimited] / np.maximum(charged[unlimited], 1e-12)
        scale = float(ratios.max())
    if scale <= 0:
        return 0.0
    limited = np.minimum(charged - ceilings / scale, 0.0)[~unlimited] * model.limits[~unlimited]
    uppers = np.array([rule.upper for rule in model.problem.rules])
    bound = least_demand(model, values / scale) - float(multipliers @ uppers) + float(limited.sum())
    return max(0.0, bound)


def least_demand(model: Model, values: FloatArray) -> float:
    """Return what the pods are worth at least, over all ways to spread them over zones as they must be."""
    anywhere = model.row_zone < 0
    total = float(values[anywhere] @ model.counts[model.row_shape[anywhere]])
    for shape in np.unique(model.row_shape[~anywhere]).tolist():
        total += min((cost for cost, _ in _spreads(model, shape, values)), default=0.0)
    return total


def cheapest_spread(model: Model, values: FloatArray, wanted: FloatArray) -> FloatArray:
    """Return I: whole pods by row, as near to ``wanted`` as the zone spread allows, cheap zones first."""
    demand = np.where(model.row_zone < 0, model.counts[model.row_shape], 0).astype(float)
    for shape in np.unique(model.row_shape[model.row_zone >= 0]).tolist():
        rows = _zone_rows(model, shape)
        options = [pods for _, pods in _spreads(model, shape, values, wanted)]
        if options:
            demand[rows] = min(
                options, key=lambda pods: (float(np.abs(pods - wanted[rows]).sum()), pods.tolist())
            )
    return demand


def _zone_rows(model: Model, shape: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.flatnonzero((model.row_shape == shape) & (model.row_zone >= 0))


def _spreads(
    model: Model, shape: int, values: FloatArray, wanted: FloatArray | None = None
) -> list[tuple[float, FloatArray]]:
    """Return (worth, pods by zone row) for each lowest level that keeps the skew, the least worth first.

    With ``wanted``, pods beyond the lowest level go where most are wanted.
    """
    rows = _zone_rows(model, shape)
    settled = model.settled[shape][model.row_zone[rows]].astype(float)
    elsewhere = [
        n for zone, n in enumerate(model.settled[shape].tolist()) if n and model.row_of[shape, zone] < 0
    ]
    count, skew = float(model.counts[shape]), float(model.skews[shape])
    answer = []
    highest = min([int((count + settled.sum()) // len(rows)) + 1, *elsewhere])
    for level in range(highest, -1, -1):
        pods = np.maximum(level - settled, 0.0)
        room = np.maximum(level + skew - settled - pods, 0.0)
        rest = count - pods.sum()
        if rest > room.sum():
            break
        if rest < 0:
            continue
        order = np.argsort(values[rows] if wanted is None else pods - wanted[rows], kind="stable")
        for index in order.tolist():
            added = min(rest, float(room[index]))
            pods[index] += added
            rest -= added
        answer.append((float(values[rows] @ pods), pods))
    return answer
