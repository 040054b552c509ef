"""Solves a packing problem: column generation, whole nodes, local search, and a proof."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from policies.domain.model import FloatArray, IntArray
from policies.domain.solver.certificate import certify
from policies.domain.solver.duality import cheapest_spread
from policies.domain.solver.first_fit import first_fit
from policies.domain.solver.generation import Generator
from policies.domain.solver.master import Master, Relaxed
from policies.domain.solver.nodes import Node, worth_of
from policies.domain.solver.problem import UNLIMITED, Answer, Binding, Infeasible, Problem, Unplaced
from policies.domain.solver.reduction import Model, expand, reduce
from policies.domain.solver.rounding import Plan, dive
from policies.domain.solver.search import improve, keep_rules

_DIVED_AGAIN = 60.0
"""With so many nodes or more, one dive is as good as several."""

Way = tuple[list[Node], IntArray, list[str]]
"""Whole nodes, pods by row that found none, and the names of rules that are broken."""
Clock = Callable[[], float]
"""Seconds on any scale that only grows, such as ``time.perf_counter``."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work a solution is worth; the work decides, and ``seconds`` only guards against more."""

    seconds: float = 1.0
    """After this, no new pattern is sought and no node set repacked."""
    rounds: int = 60
    """Rounds of column generation for the whole problem."""
    tolerance: float = 5e-4
    """Relative distance of linear program and estimated bound that is near enough."""
    fixing_rounds: int = 3
    """Rounds of column generation whenever some nodes have been fixed."""
    dives: int = 3
    """Ways to whole nodes that are compared when these are few."""
    few_nodes: float = 4.0
    """So few nodes are not left to the linear program, but packed several times at random."""
    packings: int = 32
    """Random packings of the last few nodes."""
    searches: int = 16
    """Rounds of local search on whole nodes."""
    proof_seconds: float | None = None
    """Time for the proof of the bound; 0 for a single look; without it the bound is 0."""
    proof_tolerance: float = 3e-4


def solve(problem: Problem, clock: Clock, effort: Effort = Effort(), seed: int = 0) -> Answer:
    """Return the cheapest node set found for the pods, with a proven lower bound.

    Pods that no allowed node set holds are in ``unplaced`` with what is in the way. Raises Infeasible when a
    rule on nodes cannot be kept. The same problem, effort and seed give the same answer unless the time
    runs out.
    """
    return _Run(problem, clock, effort, seed).answer()


class _Run:
    """One solution of one problem."""

    def __init__(self, problem: Problem, clock: Clock, effort: Effort, seed: int) -> None:
        self._started = clock()
        self._clock, self._effort = clock, effort
        self._seed, self._chance = seed, np.random.default_rng(seed)
        self._problem, self._model = problem, reduce(problem)
        self._master = Master(self._model)
        self._generator = Generator(self._model, self._master, self._chance)
        self._demand = np.minimum(self._model.row_most, np.ceil(_level(self._model) + 1e-6))
        self._trail: list[tuple[float, float]] = []

    def answer(self) -> Answer:
        model = self._model
        if not model.rows:
            return Answer((), 0.0, 0.0, model.unplaced)
        nodes, missing = self._pack()
        found = self._elapsed()
        columns = expand(model, [(kind, pods, 1) for kind, pods in nodes])
        cost = float(sum(self._problem.prices[column.kind] * column.copies for column in columns))
        seconds = self._effort.proof_seconds
        bound = 0.0 if seconds is None else self._bound(seconds)
        return Answer(
            columns=columns,
            cost=cost,
            bound=min(bound, cost) if not missing.any() else 0.0,
            unplaced=(*model.unplaced, *_unplaced(model, missing)),
            first_seconds=found,
            certified_seconds=self._elapsed(),
            trail=tuple(self._trail),
        )

    def _pack(self) -> tuple[list[Node], IntArray]:
        """Return whole nodes for all pods, and pods by row that found none; keep what the proof needs."""
        effort, generator = self._effort, self._generator
        generator.start(self._demand)
        apart = self._apart()
        relaxed = generator.run(self._demand, effort.rounds, effort.tolerance, self._late)
        return self._whole(relaxed, apart)

    def _apart(self) -> list[Way]:
        """Pack the parts of the problem alone, add their patterns, and return the union of their nodes."""
        problem, model = self._problem, self._model
        if problem.parts is None or problem.rules or (problem.limits < UNLIMITED).any():
            return []
        numbers = np.unique(problem.parts[np.concatenate(model.members)])
        if len(numbers) <= 1:
            return []
        nodes: list[Node] = []
        missing = np.zeros(model.rows, np.int64)
        for number in numbers:
            alone, shapes = problem.part(number)
            part = _Run(alone, self._clock, self._effort, self._seed)
            own, left = part._pack()
            kinds, groups, rows = _places(model, part._model, shapes)
            nodes += [(int(kinds[kind]), _regrouped(model, groups, pods)) for kind, pods in own]
            np.add.at(missing, rows, left)
            patterns = np.array([_regrouped(model, groups, pods) for pods in part._master.pods])
            self._master.add(kinds[part._master.kinds], patterns)
        self._note(nodes)
        return [(nodes, missing, [])]

    def _whole(self, relaxed: Relaxed, ways: list[Way]) -> tuple[list[Node], IntArray]:
        """Return the cheapest of the given ways, first fit and dives, improved by search."""
        model, generator = self._model, self._generator
        demand = cheapest_spread(model, relaxed.values, relaxed.demand).astype(np.int64)
        worth = worth_of(model, generator.centre.values, generator.attraction)
        multipliers = generator.centre.multipliers
        if not ways:  # where there are parts, a dive for the whole hardly ever beats their union
            several = relaxed.used.sum() <= _DIVED_AGAIN or len(model.rules) > 0
            ways = self._dives(demand, self._effort.dives if several else 1)
        ways = [*ways, self._way(*first_fit(model, demand))]
        nodes, missing, broken = min(ways, key=lambda w: (len(w[2]), int(w[1].sum()), self._cost(w[0])))
        if broken:
            raise Infeasible(Binding.RULES, broken[0])
        self._note(nodes)
        nodes = improve(
            model,
            worth,
            nodes,
            multipliers=multipliers,
            rounds=self._effort.searches,
            chance=self._chance,
            expired=self._late,
        )
        self._note(nodes)
        return nodes, missing

    def _dives(self, demand: IntArray, count: int) -> list[Way]:
        effort, generator = self._effort, self._generator
        plan = Plan(effort.fixing_rounds, effort.few_nodes, effort.packings, self._chance, self._late)
        centre, attraction = generator.centre, generator.attraction.copy()
        ways: list[Way] = []
        while not ways or (len(ways) < count and not self._late()):
            ways.append(self._way(*dive(self._master, generator, demand, plan)))
            generator.centre, generator.attraction = centre, attraction.copy()
        return ways

    def _way(self, nodes: Sequence[Node], missing: IntArray) -> Way:
        kept, broken = keep_rules(self._model, nodes)
        return kept, missing, broken

    def _bound(self, seconds: float) -> float:
        """Return the proven bound, from a fresh program that has all patterns found so far."""
        root = Master(self._model)
        root.add(self._master.kinds, self._master.pods)
        self._generator.master = root
        deadline = self._clock() + seconds
        return certify(
            self._model,
            self._generator,
            self._demand,
            self._effort.proof_tolerance,
            lambda: self._clock() >= deadline,
        )

    def _note(self, nodes: Sequence[Node]) -> None:
        self._trail.append((self._elapsed(), self._cost(nodes)))

    def _cost(self, nodes: Sequence[Node]) -> float:
        return float(sum(self._model.prices[kind] for kind, _ in nodes))

    def _late(self) -> bool:
        return self._elapsed() >= self._effort.seconds

    def _elapsed(self) -> float:
        return self._clock() - self._started


def _level(model: Model) -> FloatArray:
    """Return I: pods by row when zones share alike."""
    zones = np.maximum(np.bincount(model.row_shape), 1)[model.row_shape]
    answer: FloatArray = model.counts[model.row_shape] / zones
    return answer


def _places(model: Model, part: Model, shapes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return the kinds, groups and rows of the model that those of a part's model stand for."""
    group_of = np.full(len(model.problem.counts), -1)
    for group, members in enumerate(model.members):
        group_of[list(members)] = group
    kinds = np.searchsorted(model.kinds, part.kinds)
    groups = group_of[shapes[[members[0] for members in part.members]]]
    rows = model.row_of[groups[part.row_shape]]
    zoned = rows[np.arange(part.rows), part.row_zone]
    return kinds, groups, np.where(part.row_zone >= 0, zoned, rows.max(axis=1))


def _regrouped(model: Model, groups: IntArray, pods: IntArray) -> IntArray:
    answer = np.zeros(len(model.counts), np.int64)
    np.add.at(answer, groups, pods)
    return answer


def _unplaced(model: Model, missing: IntArray) -> list[Unplaced]:
    answer = []
    for row in np.flatnonzero(missing).tolist():
        group, zone = int(model.row_shape[row]), int(model.row_zone[row])
        binding, detail = (Binding.LIMITS, "every node that would hold the pod is used up")
        if zone >= 0:
            binding, detail = (Binding.ZONE_SPREAD, f"zone {zone} has no room for its part")
        answer.append(Unplaced(model.members[group][0], int(missing[row]), binding, detail))
    return answer
