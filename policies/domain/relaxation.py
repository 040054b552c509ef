"""The linear relaxation of packing: a proven lower bound, and what each pod is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray

MAX_GROUPS = 24
"""Groups of pods that get rows of their own; more would only tighten the bound a little."""


class Infeasible(ValueError):
    """No node set whatever holds the pods."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The nodes that a packing may use: price, room, and how many of each there may be."""

    prices: FloatArray
    rooms: IntArray
    upper: FloatArray
    balance: FloatArray | None = None
    """Weights of a sum over the columns used that must not exceed 0."""


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The optimum when nodes and pods may be split: cost, nodes used, and the value of a pod."""

    cost: float
    used: FloatArray
    values: FloatArray
    """USD per hour that one pod of each class adds, in the order of the classes."""


def relax(requests: IntArray, counts: IntArray, accepted: Sequence[BoolArray], columns: Columns) -> Relaxed:
    """Solve the relaxation; no set of whole nodes that holds all pods costs less than ``cost``.

    For every group of pods that accept the same columns, the room of these columns must cover what the
    pods confined to them request, resource by resource. Raises Infeasible when even that is impossible.
    """
    groups = _groups(requests, counts, accepted)
    rows = [
        (columns.rooms[:, resource] * mask, float(load[resource]))
        for mask, _, load in groups
        for resource in range(requests.shape[1])
        if load[resource] > 0
    ]
    if not rows:
        return Relaxed(0.0, np.zeros(len(columns.prices)), np.zeros(len(requests)))
    scales = [max(load, 1.0) for _, load in rows]
    matrix = np.array([row / scale for (row, _), scale in zip(rows, scales, strict=True)])
    lower = np.array([load / scale for (_, load), scale in zip(rows, scales, strict=True)])
    cost, used, duals = _solve(columns, matrix, lower)
    return Relaxed(cost, used, _values(requests, groups, duals[: len(scales)] / np.array(scales)))


def _groups(
    requests: IntArray, counts: IntArray, accepted: Sequence[BoolArray]
) -> list[tuple[BoolArray, BoolArray, IntArray]]:
    """Return (columns of the group, classes confined to them, their total request) for each group."""
    keys = [mask.tobytes() for mask in accepted]
    masks = {key: mask for key, mask, count in zip(keys, accepted, counts, strict=True) if count > 0}
    if not masks:
        return []
    everywhere = np.logical_or.reduce(list(masks.values()))
    masks.setdefault(everywhere.tobytes(), everywhere)
    groups = []
    for mask in masks.values():
        inside = {key for key, other in masks.items() if not (other & ~mask).any()}
        confined = np.array([key in inside for key in keys], bool)
        groups.append((mask, confined, (requests[confined] * counts[confined, None]).sum(axis=0)))
    groups.sort(key=lambda group: -int(group[2][0]))
    return groups[:MAX_GROUPS]


def _solve(columns: Columns, matrix: FloatArray, lower: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # the binding's constructor has no types
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    upper = np.full(len(lower), np.inf)
    if columns.balance is not None:
        matrix = np.vstack([matrix, columns.balance])
        lower, upper = np.append(lower, -np.inf), np.append(upper, 0.0)
    model = highspy.HighsLp()
    model.num_row_, model.num_col_ = matrix.shape
    model.col_cost_ = columns.prices
    model.col_lower_ = np.zeros(len(columns.prices))
    model.col_upper_ = columns.upper
    model.row_lower_ = lower
    model.row_upper_ = upper
    rows, places = np.nonzero(matrix)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(lower)))))
    model.a_matrix_.index_ = places
    model.a_matrix_.value_ = matrix[rows, places]
    solver.passModel(model)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise Infeasible("The allowed pools cannot hold these pods.")
    solution = solver.getSolution()
    used = np.array(solution.col_value)
    return float(columns.prices @ used), used, np.array(solution.row_dual)


def _values(
    requests: IntArray, groups: list[tuple[BoolArray, BoolArray, IntArray]], duals: FloatArray
) -> FloatArray:
    values = np.zeros(len(requests))
    row = 0
    for _, confined, load in groups:
        for resource in range(requests.shape[1]):
            if load[resource] > 0:
                values += confined * requests[:, resource] * max(duals[row], 0.0)
                row += 1
    return values
