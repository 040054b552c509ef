"""The restricted master problem: which patterns to use how often, as a linear program kept in HiGHS."""

from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np

from policies.domain.model import FloatArray, IntArray
from policies.domain.solver.problem import UNLIMITED
from policies.domain.solver.reduction import Model

_PENALTY = 20.0
"""Price of leaving a pod out, as a multiple of the dearest node."""
_TOLERANCE = 1e-7
_PRIMAL_SIMPLEX = 4


@dataclass(frozen=True, slots=True)
class Relaxed:
    """An optimum of the linear program."""

    cost: float
    values: FloatArray
    """I: what one more pod of each row costs (duals of the demand)."""
    multipliers: FloatArray
    """Duals of the rules on nodes, at least 0."""
    charges: FloatArray
    """K: duals of the limits of kinds, at least 0."""
    used: FloatArray
    """How often each pattern is used, in the order they were added."""
    demand: FloatArray
    """I: pods by row, as the zone spread divides them."""
    missing: FloatArray
    """I: pods for which there is no room."""
    excess: FloatArray
    """By how much each rule on nodes is broken, because it cannot be kept."""


class Master:
    """One HiGHS object; patterns are added to it, and each solve starts from the last basis.

    Columns: missing pods by row, excess by rule, what the zone spread needs, then patterns. Rows: demand by
    row, zone spread, kinds of limited number, and those rules on nodes that a solution has broken so far.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.kinds: IntArray = np.zeros(0, np.int64)
        self.pods: IntArray = np.zeros((0, len(model.counts)), np.int64)
        self._limited = np.flatnonzero(model.limits < UNLIMITED)
        self._limit_row = np.full(len(model.kinds), -1)
        self.uppers = np.array([rule.upper for rule in model.problem.rules])
        self._active: list[int] = []
        self._seen: set[bytes] = set()
        self._demand = np.where(model.row_zone < 0, model.counts[model.row_shape], 0).astype(float)
        self._zoned: IntArray = np.flatnonzero(model.row_zone >= 0)
        self._solver = _quiet()
        self._build()

    def _build(self) -> None:
        model, solver = self.model, self._solver
        rows = model.rows
        dearest = float(model.prices.max(initial=1.0))
        self._rows(self._demand, np.full(rows, np.inf))
        self._columns(np.full(rows, _PENALTY * dearest), np.eye(rows))
        largest = np.maximum(np.abs(model.rules).max(axis=1, initial=0.0), 1e-9)
        self._columns(_PENALTY * dearest / largest, np.zeros((len(model.rules), rows)))
        self._spread_column = solver.getNumCol()
        if len(self._zoned):
            self._add_spread()
        self._limit_start = solver.getNumRow()
        self._limit_row[self._limited] = self._limit_start + np.arange(len(self._limited))
        self._rows(np.full(len(self._limited), -np.inf), model.limits[self._limited].astype(float))
        self._rule_row = solver.getNumRow()
        self._first = solver.getNumCol()

    def _add_spread(self) -> None:
        """Add pods by zone of each spread shape: they sum to its count, and differ by the skew at most."""
        model, solver = self.model, self._solver
        place = {int(row): self._spread_column + i for i, row in enumerate(self._zoned)}
        self._columns(np.zeros(len(place)), -np.eye(model.rows)[self._zoned])
        for shape in np.unique(model.row_shape[self._zoned]).tolist():
            rows = [int(row) for row in self._zoned if model.row_shape[row] == shape]
            columns = [place[row] for row in rows]
            self._row(model.counts[shape], model.counts[shape], columns, [1.0] * len(rows))
            level = solver.getNumCol()
            solver.addCol(0.0, 0.0, np.inf, 0, [], [])
            skew, there = float(model.skews[shape]), model.settled[shape].tolist()
            lowest = min(there[int(model.row_zone[row])] for row in rows)
            for row, column in zip(rows, columns, strict=True):
                settled = there[int(model.row_zone[row])]
                self._row(-settled, np.inf, [column, level], [1.0, -1.0])
                self._row(-np.inf, skew - min(settled, lowest + skew), [column, level], [1.0, -1.0])
            for settled in (n for zone, n in enumerate(there) if n and model.row_of[shape, zone] < 0):
                self._row(-np.inf, settled, [level], [1.0])

    def _row(self, lower: float, upper: float, columns: Sequence[int], values: Sequence[float]) -> None:
        self._solver.addRow(
            float(lower), float(upper), len(columns), np.array(columns, np.int32), np.array(values)
        )

    def _rows(self, lower: FloatArray, upper: FloatArray) -> None:
        count = len(lower)
        if count:
            empty = np.zeros(0, np.int32)
            self._solver.addRows(count, lower, upper, 0, np.zeros(count, np.int32), empty, np.zeros(0))

    def _columns(self, prices: FloatArray, matrix: FloatArray) -> None:
        """Add columns; ``matrix`` has one line for each, over the first rows of the program."""
        count = len(prices)
        lines, rows = np.nonzero(matrix)
        starts = np.concatenate(([0], np.cumsum(np.bincount(lines, minlength=count))[:-1])).astype(np.int32)
        lower, upper = np.zeros(count), np.full(count, np.inf)
        values = matrix[lines, rows].astype(float)
        self._solver.addCols(count, prices, lower, upper, len(rows), starts, rows.astype(np.int32), values)

    def add(self, kinds: IntArray, pods: IntArray) -> int:
        """Add patterns (C kinds, C × S pods) that are new; return how many were."""
        fresh = []
        for index, key in enumerate(np.column_stack([kinds, pods])):
            if key.tobytes() not in self._seen:
                self._seen.add(key.tobytes())
                fresh.append(index)
        if not fresh:
            return 0
        kinds, pods = kinds[fresh], pods[fresh]
        model = self.model
        matrix = np.zeros((len(kinds), self._rule_row + len(self._active)))
        matrix[:, : model.rows] = model.to_rows(kinds, pods)
        limited = np.flatnonzero(self._limit_row[kinds] >= 0)
        matrix[limited, self._limit_row[kinds[limited]]] = 1.0
        matrix[:, self._rule_row :] = model.rules[self._active][:, kinds].T
        self._columns(model.prices[kinds], matrix)
        self.kinds = np.concatenate([self.kinds, kinds])
        self.pods = np.concatenate([self.pods, pods])
        return len(fresh)

    def solve(self) -> Relaxed:
        """Return the optimum over the patterns so far, with all rules kept."""
        while True:
            relaxed = self._solve()
            broken = self._broken(relaxed.used)
            if not len(broken):
                return relaxed
            for rule in broken.tolist():
                columns = [self.model.rows + rule, *range(self._first, self._first + len(self.kinds))]
                values = [-1.0, *self.model.rules[rule, self.kinds].tolist()]
                self._row(-np.inf, self.uppers[rule], columns, values)
                self._active.append(rule)

    def _broken(self, used: FloatArray) -> IntArray:
        """Return the rules that the solution breaks and that have no row yet."""
        if not len(self.model.rules):
            return np.zeros(0, np.int64)
        by_kind = np.bincount(self.kinds, weights=used, minlength=len(self.model.kinds))
        excess = self.model.rules @ by_kind - self.uppers
        excess[self._active] = 0.0
        return np.flatnonzero(excess > _TOLERANCE * np.maximum(1.0, np.abs(self.uppers)))

    def _solve(self) -> Relaxed:
        model, solver = self.model, self._solver
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise ArithmeticError(f"HiGHS ended with {solver.modelStatusToString(solver.getModelStatus())}.")
        solution = solver.getSolution()
        values, duals = np.array(solution.col_value), np.array(solution.row_dual)
        multipliers, charges = np.zeros(len(model.rules)), np.zeros(len(model.kinds))
        multipliers[self._active] = np.maximum(-duals[self._rule_row :], 0.0)
        charges[self._limited] = np.maximum(-duals[self._limit_row[self._limited]], 0.0)
        demand = self._demand.copy()
        demand[self._zoned] = values[self._spread_column : self._spread_column + len(self._zoned)]
        return Relaxed(
            cost=float(solver.getObjectiveValue()),
            values=np.maximum(duals[: model.rows], 0.0),
            multipliers=multipliers,
            charges=charges,
            used=values[self._first :],
            demand=demand,
            missing=values[: model.rows],
            excess=values[model.rows : model.rows + len(model.rules)],
        )

    def restrict(self, demand: FloatArray, kinds_used: IntArray) -> None:
        """Ask for what is left: pods by row, fixed from now on, beside nodes of each kind already chosen."""
        rows = self.model.rows
        self._demand = demand.astype(float)
        for row in range(rows):  # a row that asks for nothing would only make pivots idle
            lower = self._demand[row] if self._demand[row] > 0 else -np.inf
            self._solver.changeRowBounds(row, lower, np.inf)
        for row in range(rows, self._limit_start):
            self._solver.changeRowBounds(row, -np.inf, np.inf)
        for column in range(self._spread_column, self._first):
            self._solver.changeColBounds(column, 0.0, 0.0)
        self._zoned = np.zeros(0, np.int64)
        for kind in self._limited.tolist():
            left = max(0, int(self.model.limits[kind]) - int(kinds_used[kind]))
            self._solver.changeRowBounds(int(self._limit_row[kind]), -np.inf, float(left))
        used = self.model.rules @ kinds_used if len(self.model.rules) else np.zeros(0)
        self.uppers = np.array([rule.upper for rule in self.model.problem.rules]) - used
        for index, rule in enumerate(self._active):
            self._solver.changeRowBounds(self._rule_row + index, -np.inf, float(self.uppers[rule]))


def _quiet() -> highspy.Highs:
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # the binding's constructor has no types
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("presolve", "off")
    solver.setOptionValue("simplex_strategy", _PRIMAL_SIMPLEX)
    return solver
