"""Proves a lower bound: what a node of each kind can be worth at most, by exact integer programs."""

from collections.abc import Callable
from dataclasses import dataclass

import highspy
import numpy as np

from policies.domain.model import FloatArray, IntArray
from policies.domain.solver.duality import charged_prices, dual_bound
from policies.domain.solver.generation import Duals, Generator, first_values
from policies.domain.solver.reduction import Model

_GAP = 5e-4
_SECONDS_EACH = 2.0
_TOLERANCE = 1e-6
_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Ways to weigh the first resource of a node against the second that are tried first."""
_STEPS = (0.125, 0.0625, 0.03125)
"""How far from the best weight so far others are tried, in turn."""
_ENOUGH = 24
_HOPELESS = 1.02
"""Once a node turns out to be worth this multiple of its price, prices of pods are improved first."""
_SMOOTHING = 0.7
_LEAST_SMOOTHING = 0.05
_ROUNDS = 12
_FEASIBLE = 2
"""HiGHS's status of a feasible solution."""


@dataclass(frozen=True, slots=True)
class _Exact:
    """What exact pricing of the kinds found at some prices of pods."""

    ceilings: FloatArray
    kinds: IntArray
    pods: IntArray
    worst: float
    """Largest worth of a node, as a share of its price."""


def certify(
    model: Model, generator: Generator, demand: FloatArray, tolerance: float, expired: Callable[[], bool]
) -> float:
    """Return a proven lower bound in USD per hour on the cost of the problem.

    Exact pricing and column generation take turns until bound and linear program meet within
    ``tolerance`` or the time is up; the bound is valid at any moment.
    """
    master = generator.master
    centre, smoothing = generator.centre, _SMOOTHING
    best = max(_glance(model, Duals(first_values(model), 0 * centre.multipliers)), _glance(model, centre))
    while True:
        relaxed = generator.run(demand, _ROUNDS, tolerance / 2, expired)
        outer = Duals(relaxed.values, relaxed.multipliers)
        duals = centre.mixed(outer, smoothing)
        exact = _price_exactly(model, duals, expired)
        bound = dual_bound(model, duals.values, duals.multipliers, exact.ceilings * (1 + _TOLERANCE))
        if bound > best:
            best, centre = bound, duals
        added = master.add(exact.kinds, exact.pods)
        if expired() or relaxed.cost - best <= tolerance * relaxed.cost:
            return best
        if not added:
            smoothing *= 0.5
            if smoothing < _LEAST_SMOOTHING:
                return best


def _glance(model: Model, duals: Duals) -> float:
    """Return the bound that the linear relaxation of each kind proves."""
    ceilings = relaxed_ceilings(model, model.row_values(duals.values))
    return dual_bound(model, duals.values, duals.multipliers, ceilings * (1 + _TOLERANCE))


def _price_exactly(model: Model, duals: Duals, expired: Callable[[], bool]) -> _Exact:
    """Return proven ceilings of all kinds, and the best patterns met on the way."""
    worth = model.row_values(duals.values)
    charged = np.maximum(charged_prices(model, duals.multipliers), 1e-9)
    ceilings = relaxed_ceilings(model, worth)
    kinds: list[int] = []
    patterns: list[IntArray] = []
    scale = 1.0
    for kind in np.argsort(-ceilings / charged, kind="stable").tolist():
        if ceilings[kind] <= scale * charged[kind]:
            break
        if expired() or (scale > _HOPELESS and len(kinds) >= _ENOUGH):
            break
        ceiling, pods = exact_ceiling(model, kind, worth[kind], scale * charged[kind])
        ceilings[kind] = min(ceilings[kind], ceiling)
        scale = max(scale, float(ceilings[kind] / charged[kind]))
        if pods is not None:
            kinds.append(kind)
            patterns.append(pods)
    return _Exact(
        ceilings,
        np.array(kinds, np.int64),
        np.array(patterns, np.int64).reshape(-1, len(model.counts)),
        scale,
    )


def relaxed_ceilings(model: Model, worth: FloatArray) -> FloatArray:
    """Return K: what a node may be worth when pods may be split, by several ways to value its room.

    A weighted mean of the shares that a pod takes of two resources makes one resource of them (surrogate
    relaxation, Glover 1965), whose linear program is solved by taking pods in the order of their density.
    """
    most = _most_pods(model)
    shares = model.requests[None, :, :2] / np.maximum(model.rooms[:, None, :2], 1.0)
    best, weight = np.full(len(worth), np.inf), np.zeros(len(worth))
    for step in (0.0, *_STEPS):
        centre = weight
        for tried in (centre - step, centre + step) if step else _WEIGHTS:
            mixed = np.clip(np.broadcast_to(tried, best.shape), 0.0, 1.0)
            sizes = mixed[:, None] * shares[:, :, 0] + (1 - mixed)[:, None] * shares[:, :, -1]
            ceilings = _split_ceilings(worth, most, np.maximum(sizes, 1e-12))
            best, weight = np.minimum(best, ceilings), np.where(ceilings < best, mixed, weight)
    return best


def _split_ceilings(worth: FloatArray, most: FloatArray, sizes: FloatArray) -> FloatArray:
    """Return K: the most that split pods of these sizes (K × S) in a room of 1 are worth."""
    order = np.argsort(-worth / sizes, axis=1)
    size, count, value = (np.take_along_axis(array, order, axis=1) for array in (sizes, most, worth))
    full = size * count
    room = 1.0 - (np.cumsum(full, axis=1) - full)
    answer: FloatArray = (value * np.clip(room / size, 0.0, count)).sum(axis=1)
    return answer


def _most_pods(model: Model) -> FloatArray:
    """Return K × S: pods of a group that one node may carry alone."""
    fits = (model.rooms[:, None, :] / np.maximum(model.requests, 1e-9)[None]).min(axis=2)
    answer: FloatArray = np.minimum(np.floor(fits + 1e-6), _pods_at_most(model)) * model.accepted
    return answer


def _pods_at_most(model: Model) -> FloatArray:
    """Return K × S: pods of a group that one node may carry by rules other than its room."""
    answer: FloatArray = np.minimum(model.most(np.arange(len(model.kinds)), model.row_most), model.per_node)
    return answer


def exact_ceiling(
    model: Model, kind: int, values: FloatArray, target: float
) -> tuple[float, IntArray | None]:
    """Return at most what a node of the kind is worth, and the pods that are worth the most.

    If nothing above ``target`` can be packed, the target is the answer, without pods.
    """
    shapes = np.flatnonzero(model.accepted[kind] & (values > 0))
    if not len(shapes):
        return 0.0, None
    solver = _program(model, kind, shapes, values[shapes], target)
    solver.run()
    if solver.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        return target, None
    ceiling = float(-solver.getInfo().mip_dual_bound)
    if solver.getInfo().primal_solution_status != _FEASIBLE:
        return ceiling, None
    pods = np.zeros(len(model.counts), np.int64)
    pods[shapes] = np.round(solver.getSolution().col_value)
    return ceiling, pods


def _program(model: Model, kind: int, shapes: IntArray, values: FloatArray, target: float) -> highspy.Highs:
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # the binding's constructor has no types
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("mip_rel_gap", _GAP),
        ("time_limit", _SECONDS_EACH),
    ):
        solver.setOptionValue(option, value)
    matrix = np.vstack([model.requests[shapes].T, values])
    rows, columns = np.nonzero(matrix)
    room = model.rooms[kind]
    fits = np.floor((room / np.maximum(model.requests[shapes], 1e-9)).min(axis=1) + 1e-6)
    program = highspy.HighsLp()
    program.num_row_, program.num_col_ = matrix.shape
    program.col_cost_ = -values
    program.col_lower_ = np.zeros(len(shapes))
    program.col_upper_ = np.minimum(fits, _pods_at_most(model)[kind, shapes])
    program.row_lower_ = np.append(np.full(len(room), -np.inf), target)
    program.row_upper_ = np.append(room, np.inf)
    program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    program.a_matrix_.start_ = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(matrix)))))
    program.a_matrix_.index_ = columns
    program.a_matrix_.value_ = matrix[rows, columns]
    program.integrality_ = [highspy.HighsVarType.kInteger] * len(shapes)
    solver.passModel(program)
    return solver
