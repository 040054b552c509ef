"""Plays many ways to empty nodes at once, as the scheduler would place the pods.

The scheduler puts each pod on the node with the largest free share of CPU and memory that holds it
(kube-scheduler's LeastAllocated), so not every target that can be packed can be reached. A candidate is
a list of nodes in the order in which they go, and a list of kinds to buy from when a pod finds no place.
All candidates take a step at the same time, one pod each, in arrays of candidates × nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policies.domain.model import BoolArray, IntArray
from policies.domain.solver.migration import Fleet

Float32Array = NDArray[np.float32]
_POD_SLOTS = 2
_SCARCE = 0.3
"""Pod slots are looked at in each step when this share of them is asked for, else at the end."""
_COMPACT = 0.7
"""Rows of finished candidates are dropped when less than this share of the rows is still at work."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Nodes to empty and kinds to buy, both in order."""

    removed: tuple[int, ...]
    bought: tuple[int, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of a candidate."""

    stuck: int = -1
    """The node with a pod that found no place, even on what could be bought; -1 when all did."""
    launches: list[int] = field(default_factory=list)
    """For each node bought, the position in ``removed`` before which it has to be there."""


class Player:
    """Plays candidates on one fleet; a node's pods leave it in the order of the shapes."""

    def __init__(self, fleet: Fleet) -> None:
        """Prepare what all candidates share."""
        self.fleet = fleet
        self.placements = 0
        """Pods placed so far: a measure of effort that does not depend on the machine."""
        self.pods = [np.repeat(np.arange(len(pods)), pods) for pods in fleet.pods]
        self.requests = fleet.requests.astype(np.float32)
        asked = fleet.pods.sum(axis=0) @ fleet.requests
        room = np.maximum((fleet.allocatable * fleet.movable[:, None]).sum(axis=0), 1)
        self.watched = [
            resource
            for resource in range(_POD_SLOTS, len(asked))
            if asked[resource] > (_SCARCE * room[resource] if resource == _POD_SLOTS else 0)
        ]
        both = np.hstack([fleet.stays_accepted, fleet.accepted])
        kinds_of_choice, self.group = np.unique(both, axis=0, return_inverse=True)
        self.blocked = ~kinds_of_choice[:, : len(fleet.paid)]
        self.kind_blocked = ~kinds_of_choice[:, len(fleet.paid) :]
        self.is_choosy = not kinds_of_choice.all()

    def play(self, candidates: Sequence[Candidate]) -> list[Outcome]:
        """Return what becomes of each candidate."""
        outcomes = [Outcome() for _ in candidates]
        rows = _Rows(self, candidates, outcomes)
        while rows.any_at_work():
            self.placements += rows.step()
        return outcomes


class _Rows:
    """The clusters of the candidates that are still at work, one row each."""

    def __init__(self, player: Player, candidates: Sequence[Candidate], outcomes: list[Outcome]) -> None:
        fleet, count = player.fleet, len(candidates)
        self._player, self._candidates, self._outcomes = player, list(candidates), outcomes
        self._nodes = nodes = len(fleet.paid)
        size = nodes + max((len(c.bought) for c in candidates), default=0)
        self._free = np.full((fleet.requests.shape[1], count, size), -1, np.float32)
        self._free[:, :, :nodes] = fleet.free.T[:, None, :]
        self._size = np.ones((2, count, size), np.float32)
        self._size[:, :, :nodes] = np.maximum(fleet.allocatable[:, :2].T[:, None, :], 1)
        self._blocked = np.zeros((count, len(player.blocked), size), bool)
        self._blocked[:, :, :nodes] = player.blocked
        carried = [[len(player.pods[node]) for node in c.removed] for c in candidates]
        self._first = [np.cumsum([0, *each]) for each in carried]
        """For each row, the first pod of each of its nodes."""
        self._length = np.array([first[-1] for first in self._first], np.int64)
        longest = int(self._length.max(initial=0)) + 1
        self._shapes, self._position, self._places = (np.zeros((count, longest), np.int64) for _ in range(3))
        self._spare = np.tile(fleet.supply.sum(axis=0) - fleet.needed, (count, 1))
        self._leaving = np.zeros((count, longest, 2))
        """What the cluster loses of its supply when the next pod is the first of its node."""
        for row, candidate in enumerate(candidates):
            self._line_up(row, candidate, carried[row])
        self._next = np.zeros(count, np.int64)
        """The pod that each row places next."""
        self._done = self._length == 0

    def _line_up(self, row: int, candidate: Candidate, carried: Sequence[int]) -> None:
        """Write down which pods move, in order; nodes without pods are gone from the start."""
        removed = list(candidate.removed)
        self._free[0, row, removed] = -np.inf
        if not self._length[row]:
            return
        end = slice(int(self._length[row]))
        self._shapes[row, end] = np.concatenate([self._player.pods[node] for node in removed])
        self._position[row, end] = np.repeat(np.arange(len(removed)), carried)
        supply = self._player.fleet.supply[removed]
        busy = np.array(carried) > 0
        self._leaving[row, self._first[row][:-1][busy]] = supply[busy]
        self._spare[row] -= supply[~busy].sum(axis=0)

    def any_at_work(self) -> bool:
        """Drop rows that are finished, when they are many; tell whether any is left."""
        at_work = ~self._done
        if at_work.sum() < _COMPACT * len(at_work):
            kept = np.flatnonzero(at_work)
            self._free, self._size = self._free[:, kept], self._size[:, kept]
            for name in ("_blocked", "_shapes", "_position", "_places", "_length", "_spare", "_leaving"):
                setattr(self, name, getattr(self, name)[kept])
            self._next, self._done = self._next[kept], self._done[kept]
            self._candidates = [self._candidates[row] for row in kept]
            self._outcomes = [self._outcomes[row] for row in kept]
            self._first = [self._first[row] for row in kept]
        return bool(at_work.any())

    def step(self) -> int:
        """Place the next pod of each row; return how many rows took part."""
        rows = np.arange(len(self._next))
        shapes = self._shapes[rows, self._next]
        requests = self._player.requests[shapes]
        left = self._spare - self._leaving[rows, self._next]
        score, refused = self._scores(shapes, requests)
        refused |= (left < 0).any(axis=1, keepdims=True)
        score[refused] = -np.inf
        places = score.argmax(axis=1)
        stuck = refused[rows, places]
        moved = rows[~(stuck | self._done)]
        self._places[moved, self._next[moved]] = places[moved]
        self._free[:, moved, places[moved]] -= requests[moved].T
        self._spare[moved] = left[moved]
        self._next[moved] += 1
        for row in np.flatnonzero(stuck & ~self._done).tolist():
            self._launch_or_fail(row)
        for row in np.flatnonzero((self._next >= self._length) & ~self._done).tolist():
            self._finish(row)
        return len(rows)

    def _scores(self, shapes: IntArray, requests: Float32Array) -> tuple[Float32Array, BoolArray]:
        """Return the free share that each place would be left with, and which places cannot take the pod."""
        cpu = self._free[0] - requests[:, 0:1]
        memory = self._free[1] - requests[:, 1:2]
        refused: BoolArray = np.minimum(cpu, memory) < 0
        for resource in self._player.watched:
            refused |= self._free[resource] < requests[:, resource, None]
        if self._player.is_choosy:
            refused |= self._blocked[np.arange(len(shapes)), self._player.group[shapes]]
        cpu /= self._size[0]
        memory /= self._size[1]
        cpu += memory
        return cpu, refused

    def _launch_or_fail(self, row: int) -> None:
        """Buy the next node and begin again with the node that is being emptied, or give up."""
        outcome, candidate, at = self._outcomes[row], self._candidates[row], int(self._next[row])
        position = int(self._position[row, at])
        if len(outcome.launches) >= len(candidate.bought):
            outcome.stuck, self._done[row] = candidate.removed[position], True
            return
        first = int(self._first[row][position])
        undone = slice(first, at)
        requests = self._player.requests[self._shapes[row, undone]]
        for place, request in zip(self._places[row, undone].tolist(), requests, strict=True):
            self._free[:, row, place] += request
        self._spare[row] += self._leaving[row, undone].sum(axis=0)
        self._next[row] = first
        fleet, column = self._player.fleet, self._nodes + len(outcome.launches)
        kind = candidate.bought[len(outcome.launches)]
        self._free[:, row, column] = fleet.rooms[kind]
        self._size[:, row, column] = np.maximum(fleet.kind_allocatable[kind, :2], 1)
        self._blocked[row, :, column] = self._player.kind_blocked[:, kind]
        self._spare[row] += fleet.kind_supply[kind]
        outcome.launches.append(position)

    def _finish(self, row: int) -> None:
        """End a row; resources that were not watched must not have been overdrawn."""
        self._done[row] = True
        open_places = self._free[0, row] >= 0
        if (self._free[:, row][:, open_places] < 0).any():
            self._outcomes[row].stuck = self._candidates[row].removed[-1]
