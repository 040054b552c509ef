"""Makes a packing problem smaller without changing its optimum, and readies it for fast arithmetic."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray
from policies.domain.solver.problem import RESOURCES, UNLIMITED, Binding, Column, Problem, Unplaced


@dataclass(frozen=True, slots=True)
class Model:
    """A reduced problem: ``S`` groups of equal shapes, ``K`` kinds worth buying, ``I`` rows of demand.

    A row is a group of shapes, or one zone of a shape that must spread over zones.
    """

    problem: Problem
    members: tuple[tuple[int, ...], ...]
    """S: the shapes of the problem that each group merges."""
    kinds: IntArray
    """K: numbers of the kinds in the problem."""
    requests: FloatArray
    """S × R, only resources that are asked for."""
    counts: IntArray
    rooms: FloatArray
    """K × R."""
    prices: FloatArray
    zones: IntArray
    accepted: BoolArray
    """K × S: which empty nodes hold a pod."""
    limits: IntArray
    per_node: IntArray
    skews: IntArray
    settled: IntArray
    """S × Z."""
    conflicts: BoolArray | None
    """S × S."""
    rules: FloatArray
    """Rules × K: coefficients."""
    row_of: IntArray
    """S × Z: the row that a pod on a node in the zone counts for; zones without a place have row -1."""
    row_shape: IntArray
    row_zone: IntArray
    """I: zone of the row, -1 where any zone will do."""
    row_most: IntArray
    """I: most pods that the zone spread can ask for in the row."""
    unplaced: tuple[Unplaced, ...]

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.row_shape)

    def most(self, kinds: IntArray, rows: FloatArray | IntArray) -> FloatArray:
        """Return C × S: a number of pods by row, as it stands for the groups on nodes of the kinds."""
        answer: FloatArray = np.append(rows, 0)[self.row_of[:, self.zones[kinds]].T]
        return answer

    def row_values(self, values: FloatArray) -> FloatArray:
        """Return K × S: what a pod is worth on each kind, given what it is worth by row."""
        padded = np.append(values, 0.0)
        answer: FloatArray = padded[self.row_of[:, self.zones].T]
        return answer

    def to_rows(self, kinds: IntArray, pods: IntArray) -> IntArray:
        """Return C × I from C × S: the rows that the pods of each node count for."""
        answer = np.zeros((len(kinds), self.rows + 1), np.int64)
        np.put_along_axis(answer, self.row_of[:, self.zones[kinds]].T, pods, axis=1)
        return answer[:, :-1]


def reduce(problem: Problem) -> Model:
    """Return the problem with equal shapes merged, and without kinds that another beats in every way."""
    fits = problem.fits()
    unplaced, placeable = _placeable(problem, fits)
    groups = _groups(problem, fits, placeable)
    first = np.array([group[0] for group in groups], np.int64)
    spread = problem.skews[first] > 0
    kinds = _undominated(problem, fits[first], zoned=bool(spread.any()))
    used = np.flatnonzero((problem.requests[first] > 0).any(axis=0))
    zone_count = int(problem.zones.max(initial=-1)) + 1
    settled = (
        problem.settled
        if problem.settled is not None
        else np.zeros((len(problem.counts), zone_count), np.int64)
    )
    row_of, row_shape, row_zone = _rows(spread, fits[first], settled[first], problem.zones)
    counts = np.array([problem.counts[list(group)].sum() for group in groups], np.int64)
    return Model(
        problem=problem,
        members=tuple(groups),
        kinds=kinds,
        requests=problem.requests[np.ix_(first, used)].astype(float),
        counts=counts,
        rooms=problem.rooms[np.ix_(kinds, used)].astype(float),
        prices=problem.prices[kinds],
        zones=problem.zones[kinds],
        accepted=np.ascontiguousarray(fits[np.ix_(first, kinds)].T),
        limits=problem.limits[kinds],
        per_node=problem.per_node[first],
        skews=problem.skews[first],
        settled=settled[first],
        conflicts=_conflict_matrix(problem, groups),
        rules=np.array([rule.coefficients[kinds] for rule in problem.rules]).reshape(
            len(problem.rules), len(kinds)
        ),
        row_of=row_of,
        row_shape=row_shape,
        row_zone=row_zone,
        row_most=_most(row_shape, row_zone, counts, problem.skews[first], settled[first]),
        unplaced=unplaced,
    )


def expand(model: Model, columns: Sequence[tuple[int, IntArray, int]]) -> tuple[Column, ...]:
    """Return the columns (kind of the model, pods by group, copies) in the terms of the problem."""
    left = model.problem.counts.copy()
    grouped: dict[tuple[int, bytes], int] = defaultdict(int)
    for kind, pods, copies in columns:
        for pattern, times in _split(model, pods, copies, left):
            grouped[int(model.kinds[kind]), pattern.tobytes()] += times
    return tuple(
        Column(kind, np.frombuffer(pattern, np.int64), copies)
        for (kind, pattern), copies in sorted(grouped.items())
    )


def _split(model: Model, pods: IntArray, copies: int, left: IntArray) -> list[tuple[IntArray, int]]:
    """Hand the pods of groups out to their shapes; equal nodes stay equal as long as shapes last."""
    answer: list[tuple[IntArray, int]] = []
    while copies:
        pattern = np.zeros(len(left), np.int64)
        for group in np.flatnonzero(pods).tolist():
            missing = int(pods[group])
            for shape in model.members[group]:
                taken = min(missing, int(left[shape]))
                pattern[shape] = taken
                missing -= taken
        used = pattern > 0
        times = min(copies, int((left[used] // pattern[used]).min())) if used.any() else copies
        left -= times * pattern
        answer.append((pattern, times))
        copies -= times
    return answer


def _placeable(problem: Problem, fits: BoolArray) -> tuple[tuple[Unplaced, ...], list[int]]:
    """Return the shapes that no kind takes, each with its reason, and the numbers of the others."""
    unplaced: list[Unplaced] = []
    able: list[int] = []
    for shape, count in enumerate(problem.counts.tolist()):
        if count <= 0:
            continue
        if fits[shape].any():
            able.append(shape)
        else:
            unplaced.append(Unplaced(shape, count, *_obstacle(problem, shape)))
    return tuple(unplaced), able


def _obstacle(problem: Problem, shape: int) -> tuple[Binding, str]:
    accepted = problem.accepted[shape]
    if not accepted.any():
        return Binding.NOT_ACCEPTED, "no kind of node accepts the pod"
    holds = accepted & (problem.requests[shape] <= problem.rooms).all(axis=1)
    if holds.any():
        return Binding.LIMITS, "every node that would hold the pod is used up"
    lacking = (problem.requests[shape] > problem.rooms[accepted]).sum(axis=0)
    return Binding.TOO_LARGE, RESOURCES[int(lacking.argmax())]


def _groups(problem: Problem, fits: BoolArray, placeable: Sequence[int]) -> list[tuple[int, ...]]:
    conflicting = {shape for pair in problem.conflicts for shape in pair}
    merged: dict[Hashable, list[int]] = defaultdict(list)
    for shape in placeable:
        alone = (
            problem.skews[shape] > 0
            or problem.per_node[shape] < problem.counts[shape]
            or shape in conflicting
        )
        merged[problem.requests[shape].tobytes(), fits[shape].tobytes(), shape if alone else -1].append(shape)
    return [tuple(shapes) for shapes in merged.values()]


def _undominated(problem: Problem, fits: BoolArray, *, zoned: bool) -> IntArray:
    """Return the kinds that no kind of unlimited number beats in price, room, pods accepted and rules."""
    coefficients = np.array([rule.coefficients for rule in problem.rules]).reshape(-1, len(problem.prices))
    candidates = np.flatnonzero(fits.any(axis=0))
    kept: list[int] = []
    for zone in np.unique(problem.zones[candidates]) if zoned else [None]:
        own = candidates if zone is None else candidates[problem.zones[candidates] == zone]
        better = problem.prices[own][:, None] <= problem.prices[own][None, :]
        better &= (problem.limits[own] >= UNLIMITED)[:, None]
        for row in [*problem.rooms[own].T, *(-coefficients[:, own])]:
            better &= row[:, None] >= row[None, :]
        able = fits[:, own].astype(float)
        better &= (able.T @ (1 - able) == 0).T  # what the second takes, the first takes
        better &= ~(better.T & (own[:, None] > own[None, :]))  # of equals, the first is better
        np.fill_diagonal(better, val=False)
        kept.extend(own[~better.any(axis=0)].tolist())
    return np.array(sorted(kept), np.int64)


def _rows(
    spread: BoolArray, fits: BoolArray, settled: IntArray, zones: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Return the row of each group and zone, and the group and zone of each row."""
    row_of = np.full((len(spread), settled.shape[1]), -1)
    shapes: list[int] = []
    row_zones: list[int] = []
    for shape in range(len(spread)):
        able = np.unique(zones[fits[shape]])
        for zone in able if spread[shape] else [None]:
            row_of[shape, able if zone is None else zone] = len(shapes)
            shapes.append(shape)
            row_zones.append(-1 if zone is None else int(zone))
    return row_of, np.array(shapes, np.int64), np.array(row_zones, np.int64)


def _most(
    row_shape: IntArray, row_zone: IntArray, counts: IntArray, skews: IntArray, settled: IntArray
) -> IntArray:
    """Return the most pods that may be placed in each row: its zone may lead the lowest by the skew."""
    most = counts[row_shape]
    for shape in np.unique(row_shape[row_zone >= 0]).tolist():
        rows = np.flatnonzero(row_shape == shape)
        there = settled[shape][row_zone[rows]]
        for row, own in zip(rows.tolist(), there.tolist(), strict=True):
            low, high = 0, int(counts[shape])
            while low < high:  # the largest number that leaves the other zones enough to keep up
                added = (low + high + 1) // 2
                level = added + own - int(skews[shape])
                needed = int(np.maximum(level - there, 0).sum()) - max(level - own, 0)
                low, high = (added, high) if added + needed <= counts[shape] else (low, added - 1)
            most[row] = low
    return most


def _conflict_matrix(problem: Problem, groups: Sequence[tuple[int, ...]]) -> BoolArray | None:
    if not problem.conflicts:
        return None
    number = {shape: group for group, shapes in enumerate(groups) for shape in shapes}
    matrix = np.zeros((len(groups), len(groups)), bool)
    for one, other in problem.conflicts:
        if one in number and other in number:
            matrix[number[one], number[other]] = matrix[number[other], number[one]] = True
    return matrix
