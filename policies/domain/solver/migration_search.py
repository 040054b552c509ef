"""Looks for a cheaper cluster near the optimum of the linear program, among those that can be reached.

Neighbourhood search with move costs: some nodes that go are kept after all, others go instead, a purchase
is added, left out or exchanged, and the order changes a little. Many neighbours are played at once; the
best that empties all its nodes within the moves allowed becomes the next centre when it is cheaper, or
little dearer at first. The choice of nodes follows their gains in the linear program.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from policies.domain.model import FloatArray, IntArray
from policies.domain.solver.migration import Fleet, FrontierProgram, Relaxed
from policies.domain.solver.migration_play import Candidate, Outcome, Player

WASTE = 0.5
"""Room that a node loses to fragments when the scheduler places pods, in average pods."""
ROWS = 32
"""Neighbours played at once."""
MOST_CHANGED = 3
"""Nodes that a neighbour keeps, and nodes that it removes, beside the centre's."""
_ROUNDS = 40
"""Rounds of column generation: a little short of the optimum does for a start."""
_STALE = 60
"""The search ends after so many rounds that found nothing better."""
_TOLERANCE = 0.002
"""Share of the bill by which a centre may be dearer than the last one, at first."""
_ORDER_NOISE = 0.1
_REORDERED = 0.5
"""How often a neighbour changes the order."""
_ADDED, _LEFT_OUT, _EXCHANGED = 0.15, 0.25, 0.40
"""How often, cumulated, a neighbour buys one node more, one less, or another one."""
_LARGEST = 5
"""How many of a node's largest pods decide when it goes."""
TRIES = 4
"""Neighbours drawn for each one that is played."""
_WORTH_SPREAD = 0.03
"""A kind that is worth this share of its price less is bought about a third as often."""
_HALF = 0.5
_LITTLE = 0.2
"""A kind is bought once more when the program wants more than this part of it."""
_SHARES_OF_A_WISH = (1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.85, 0.8, 0.7, 0.6)

Fitted = Callable[[Candidate], Candidate | None]
"""Makes a candidate keep the rules that a play does not see; None when that is impossible."""


@dataclass(frozen=True, slots=True)
class Target:
    """A migration that can be played to its end."""

    candidate: Candidate
    """Only what is bought in fact."""
    launches: tuple[int, ...]
    """For each node bought, the position among the removed before which it has to be there."""
    cost: float
    """USD per hour of movable nodes that stay and of new ones."""
    moved: int


class Search:
    """Searches on one fleet; the same seed and effort give the same answer."""

    def __init__(
        self, player: Player, *, seed: int = 0, fitted: Fitted = lambda candidate: candidate
    ) -> None:
        """Prepare what all shares of moves have in common."""
        self._player, self._fleet = player, player.fleet
        self._fitted = fitted
        self._chance = np.random.default_rng(seed)
        self._bill = float(self._fleet.paid[self._fleet.movable].sum())
        self._moved_by = self._fleet.moved_by
        self._urgency = self._by_largest_pods()
        self._order_noise = _ORDER_NOISE * np.abs(self._urgency).mean()
        self._seen: set[Candidate] = set()

    def start(self, relaxed: Relaxed, most_moves: int) -> Target:
        """Return the cheapest that can be reached of the program's optimum, if some nodes stay after all."""
        gains = relaxed.gains(self._fleet)
        wish = np.flatnonzero(self._fleet.movable & (relaxed.stays < _HALF))
        nodes = sorted(wish.tolist(), key=lambda node: -gains[node])
        while self._moved_by[nodes].sum() > most_moves:
            nodes.pop()
        counts = np.ceil(relaxed.bought - _LITTLE).astype(np.int64)
        dearest_first = np.argsort(-self._fleet.prices, kind="stable")
        kinds = tuple(np.repeat(dearest_first, np.maximum(counts, 0)[dearest_first]).tolist())
        candidates = [
            Candidate(tuple(sorted(nodes[:count], key=self._urgency.__getitem__)), kinds[:most])
            for count in sorted({round(share * len(nodes)) for share in _SHARES_OF_A_WISH})
            for most in sorted({0, len(kinds) // 2, len(kinds)})
        ]
        fitted = [fit for each in candidates if (fit := self._fitted(each)) is not None]
        reached, _ = self._played(fitted)
        return min([*reached, self.nothing()], key=lambda target: (target.cost, target.moved))

    def nothing(self) -> Target:
        """Return the migration that changes nothing."""
        return Target(Candidate(()), (), self._bill, 0)

    def improve(self, start: Target, most_moves: int, relaxed: Relaxed, effort: int) -> Target:
        """Return the best migration found near ``start`` by placing about ``effort`` pods in play."""
        centre = best = start
        retries: list[Candidate] = []
        self._seen.clear()
        first = self._player.placements
        stale = 0
        while (spent := (self._player.placements - first) / effort) < 1 and stale < _STALE:
            slack = _TOLERANCE * self._bill * (1 - spent)
            limit = centre.cost + slack
            again = [self._fitted(each) for each in retries if self._least_cost(each) < limit]
            candidates = [each for each in again if each is not None][: ROWS // 2]
            candidates += self._neighbours(centre, most_moves, limit, relaxed)[: ROWS - len(candidates)]
            if not candidates:
                break
            reached, retries = self._played(candidates)
            top = min(reached, key=lambda target: (target.cost, target.moved), default=centre)
            if top.cost <= centre.cost + slack * self._chance.random():
                centre = top
            stale += 1
            if (top.cost, top.moved) < (best.cost, best.moved):
                best, stale = top, 0
        return best

    def _played(self, candidates: Sequence[Candidate]) -> tuple[list[Target], list[Candidate]]:
        """Return what was reached, and the other candidates without the node that got stuck."""
        reached, retries = [], []
        for candidate, outcome in zip(candidates, self._player.play(candidates), strict=True):
            if outcome.stuck < 0:
                reached.append(self._target(candidate, outcome))
            else:
                retries.append(_without(candidate, outcome.stuck))
        return reached, retries

    def _neighbours(self, centre: Target, most_moves: int, limit: float, relaxed: Relaxed) -> list[Candidate]:
        """Return some new candidates near the centre that may cost less than ``limit``."""
        movable = np.flatnonzero(self._fleet.movable)
        removed = np.array(centre.candidate.removed, np.int64)
        gains = relaxed.gains(self._fleet)
        returned = self._draw(removed, -gains)
        added = self._draw(np.setdiff1d(movable, removed), 2 * gains)
        moved_by, removed_set = self._moved_by.tolist(), set(centre.candidate.removed)
        neighbours = []
        for back, new in zip(returned, added, strict=True):
            nodes = removed_set - set(back)
            moved = sum(moved_by[node] for node in nodes)
            for node in new:
                if moved + moved_by[node] <= most_moves:
                    nodes.add(node)
                    moved += moved_by[node]
            if self._bill - float(self._fleet.paid[list(nodes)].sum()) >= limit:
                continue
            candidate = self._fitted(
                Candidate(self._ordered(nodes), self._rebought(centre.candidate.bought, relaxed))
            )
            if candidate is not None and candidate not in self._seen:
                self._seen.add(candidate)
                neighbours.append(candidate)
        return neighbours

    def _draw(self, nodes: IntArray, weights: FloatArray) -> list[list[int]]:
        """Return for many neighbours up to ``MOST_CHANGED`` nodes each, those of large weight more often."""
        rows = TRIES * ROWS
        counts = self._chance.integers(MOST_CHANGED + 1, size=rows)
        if not len(nodes):
            return [[] for _ in range(rows)]
        spread = max(float(weights[self._fleet.movable].std()) / 2, 1e-9)
        keys = weights[nodes] / spread + self._chance.gumbel(size=(rows, len(nodes)))
        chosen = nodes[np.argsort(-keys, axis=1)[:, :MOST_CHANGED]]
        return [each[:count] for each, count in zip(chosen.tolist(), counts.tolist(), strict=True)]

    def _ordered(self, nodes: Collection[int]) -> tuple[int, ...]:
        """Return the nodes in the order in which they should go, half of the time a little changed."""
        urgency = self._urgency
        if self._chance.random() < _REORDERED:
            urgency = urgency + self._chance.normal(0, self._order_noise, len(urgency))
        return tuple(sorted(nodes, key=urgency.tolist().__getitem__))

    def _rebought(self, bought: tuple[int, ...], relaxed: Relaxed) -> tuple[int, ...]:
        """Return the purchases with one added, left out or exchanged, or as they are."""
        kinds, draw = list(bought), self._chance.random()
        if draw >= _EXCHANGED or not len(self._fleet.prices):
            return bought
        keys = relaxed.kind_worth / _WORTH_SPREAD + self._chance.gumbel(size=len(relaxed.kind_worth))
        kind, at = int(keys.argmax()), int(self._chance.integers(len(kinds) + 1))
        if draw < _ADDED:
            kinds.insert(at, kind)
        elif at < len(kinds):
            kinds[at : at + 1] = [kind] if draw >= _LEFT_OUT else []
        return tuple(kinds)

    def _least_cost(self, candidate: Candidate) -> float:
        """Return the cost if nothing needed to be bought."""
        return self._bill - float(self._fleet.paid[list(candidate.removed)].sum())

    def _target(self, candidate: Candidate, outcome: Outcome) -> Target:
        bought = candidate.bought[: len(outcome.launches)]
        cost = self._least_cost(candidate) + float(self._fleet.prices[list(bought)].sum())
        moved = int(self._moved_by[list(candidate.removed)].sum())
        return Target(Candidate(candidate.removed, bought), tuple(outcome.launches), cost, moved)

    def _by_largest_pods(self) -> FloatArray:
        """Return N: the lower, the earlier a node should go: nodes with large pods first."""
        fleet = self._fleet
        whole = np.maximum(fleet.allocatable[:, :2].mean(axis=0), 1)
        sizes = (fleet.requests[:, :2] / whole).max(axis=1)
        largest = [np.sort(np.repeat(sizes, np.minimum(pods, _LARGEST)))[::-1] for pods in fleet.pods]
        return np.array([-10 * each[:1].sum() - each[:_LARGEST].sum() for each in largest])


def _without(candidate: Candidate, node: int) -> Candidate:
    return Candidate(tuple(other for other in candidate.removed if other != node), candidate.bought)


def frontier(
    fleet: Fleet,
    shares: Sequence[float],
    *,
    effort: int,
    waste: float = WASTE,
    seed: int = 0,
    fitted: Fitted = lambda candidate: candidate,
) -> list[Target]:
    """Return the cheapest migration found for each largest share of pods moved (0 to 1), in rising order.

    ``effort`` is the number of pods placed in play for each share.
    """
    program = FrontierProgram(fleet.tightened(waste), rounds=_ROUNDS, certified=False)
    search = Search(Player(fleet), seed=seed, fitted=fitted)
    targets: list[Target] = []
    for share in sorted(shares):
        most_moves = int(share * fleet.moved_by.sum())
        relaxed = program.solve(share)
        found = search.improve(search.start(relaxed, most_moves), most_moves, relaxed, effort)
        targets.append(min([found, *targets[-1:]], key=lambda target: (target.cost, target.moved)))
    return targets
