"""A simulated kube-scheduler: hard constraints filter, then the least allocated place wins."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from policies.domain.matching import accepted_places, signature
from policies.domain.model import (
    RESOURCE_COUNT,
    BoolArray,
    FloatArray,
    IntArray,
    Place,
    Vector,
    pod_vector,
    vector,
)
from policies.domain.obstacles import Hurdle, binding, fixed_hurdles, room_hurdles, rule_hurdles
from policies.domain.refusals import Code
from policies.domain.shapes import Workload
from policies.domain.topology import Topology

Obstacle = tuple[Code, str]
Move = tuple[int, int, int]
"""Workload index, place it left (-1 for a pending pod), place it went to."""


class Board:
    """Pods on places, counted by workload; indexes follow the order of ``workloads`` and ``places``."""

    def __init__(
        self,
        workloads: Sequence[Workload],
        places: Sequence[Place],
        pods: Mapping[str, Mapping[str, int]],
    ) -> None:
        self.workloads, self.places = workloads, places
        self.requests = _matrix([pod_vector(workload) for workload in workloads])
        self.allocatable = _matrix([vector(place.allocatable) for place in places])
        daemons = _matrix([vector(place.daemon_overhead) for place in places])
        self.free = np.ascontiguousarray((self.allocatable - daemons).T)
        """Free room by resource and place: rows are resources, so that filters read whole rows."""
        self.counts = np.zeros((len(workloads), len(places)), np.int64)
        self.accepted = accepted_places(workloads, places)
        self.present = np.ones(len(places), bool)
        self.open = np.array([place.schedulable for place in places], bool)
        self.ready = self.open.copy()
        self.topology = Topology(workloads, places)
        self.obstacle: Obstacle = (Code.NO_ROOM_ELSEWHERE, "")
        """Why the place that was last tried could not be emptied."""
        self._ruled = self.topology.is_ruled
        self._hurdles: dict[Hashable, list[Hurdle]] = {}
        self._size: FloatArray = np.maximum(self.allocatable[:, :2].T, 1).astype(np.float64)
        self._settle(pods)

    def _settle(self, pods: Mapping[str, Mapping[str, int]]) -> None:
        row = {workload.id: index for index, workload in enumerate(self.workloads)}
        column = {place.id: index for index, place in enumerate(self.places)}
        for place_id, carried in pods.items():
            for workload_id, count in carried.items():
                if place_id in column and workload_id in row:
                    self.counts[row[workload_id], column[place_id]] += count
        self.free -= self.requests.T @ self.counts

    def state(self) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
        """Return a copy of what moves change: pods, free room, open and ready places."""
        return self.counts.copy(), self.free.copy(), self.open.copy(), self.ready.copy()

    def restore(self, state: tuple[IntArray, IntArray, BoolArray, BoolArray]) -> None:
        """Go back to a state."""
        arrays = (self.counts, self.free, self.open, self.ready)
        for array, saved in zip(arrays, state, strict=True):
            array[...] = saved

    def choose(self, workload: int) -> int:
        """Return the place that the scheduler gives one more pod of the workload, or -1."""
        cpu, memory, pods, gpu, ephemeral = self.requests[workload].tolist()
        fits = self.open & self.accepted[workload]
        fits &= self.free[0] >= cpu
        fits &= self.free[1] >= memory
        fits &= self.free[2] >= pods
        if gpu:
            fits &= self.free[3] >= gpu
        if ephemeral:
            fits &= self.free[4] >= ephemeral
        if self._ruled[workload]:
            fits &= self._rules(workload)
        able = np.flatnonzero(fits)
        if not len(able):
            return -1
        left = (self.free[0, able] - cpu) / self._size[0, able]
        left += (self.free[1, able] - memory) / self._size[1, able]
        return int(able[left.argmax()])

    def could_take(self, workload: int, place: int) -> bool:
        """Tell whether an absent place would take a pod of the workload once it is there."""
        if not self.accepted[workload][place] or (self.free[:, place] < self.requests[workload]).any():
            return False
        if not self._ruled[workload]:
            return True
        self.present[place] = True
        allowed = bool(self._rules(workload)[place])
        self.present[place] = False
        return allowed

    def move(self, workload: int, source: int, target: int) -> None:
        """Move one pod; -1 stands for outside the board."""
        request = self.requests[workload]
        if source >= 0:
            self.counts[workload, source] -= 1
            self.free[:, source] += request
        if target >= 0:
            self.counts[workload, target] += 1
            self.free[:, target] -= request

    def undo(self, moves: Sequence[Move]) -> None:
        """Take back the moves, last first."""
        for workload, source, target in reversed(moves):
            self.move(workload, target, source)

    def empty(self, place: int) -> tuple[list[Move], int]:
        """Close a place and move each of its pods; return the moves and -1, or what found no place.

        When a pod finds no place, nothing has changed, the workload's index is the second value, and
        ``obstacle`` says what is in its way. Pods that follow others of the place wait for these.
        """
        moves: list[Move] = []
        was_open = bool(self.open[place])
        self.open[place] = False
        waiting = self._pods_on(place)
        while waiting:
            left = []
            for workload in waiting:
                if not self._relocate(workload, place, moves):
                    left.append(workload)
                    if not self._ruled[workload]:
                        break
            if left and (len(left) == len(waiting) or not self._ruled[left[-1]]):
                stuck = left[-1]
                self.obstacle = self._obstacle(stuck, place)
                return self._give_up(place, moves, stuck, was_open=was_open)
            waiting = left
        deserted = self._deserted(place, moves)
        if deserted >= 0:
            text = f"{self._name(deserted)} would be left without the pods that it must be near."
            self.obstacle = Code.NEIGHBOUR_NEEDED, text
            return self._give_up(place, moves, deserted, was_open=was_open)
        return moves, -1

    def _deserted(self, place: int, moves: Sequence[Move]) -> int:
        """Return a workload that the moves leave without a required neighbour, or -1."""
        gone = sorted({workload for workload, *_ in moves})
        found = (self.topology.deserted(workload, place, self.counts) for workload in gone)
        return next((dependent for dependent in found if dependent >= 0), -1)

    def _pods_on(self, place: int) -> list[int]:
        carried = self.counts[:, place]
        return np.repeat(np.arange(len(carried)), carried).tolist()

    def _relocate(self, workload: int, place: int, moves: list[Move]) -> bool:
        self.move(workload, place, -1)
        target = self.choose(workload)
        self.move(workload, -1, target if target >= 0 else place)
        if target >= 0:
            moves.append((workload, place, target))
        return target >= 0

    def _give_up(
        self, place: int, moves: Sequence[Move], workload: int, *, was_open: bool
    ) -> tuple[list[Move], int]:
        self.undo(moves)
        self.open[place] = was_open
        return [], workload

    def admit(self, workload: int, count: int) -> int:
        """Place up to ``count`` pending pods; return how many found no place."""
        for left in range(count, 0, -1):
            target = self.choose(workload)
            if target < 0:
                return left
            self.move(workload, -1, target)
        return 0

    def obstacle_of(self, workload: int) -> Obstacle:
        """Return which rule keeps one more pod of the workload from every open place, as ``: words``."""
        hurdle = binding(self._hurdles_of(workload), self.open)
        return (hurdle.code, f": {hurdle.words}") if hurdle else (Code.NO_ROOM_ELSEWHERE, "")

    def loads(self, places: Sequence[int]) -> list[tuple[BoolArray, IntArray]]:
        """Return which places accept, and what CPU and memory is asked by, the pods on ``places``.

        One entry for each set of pods that accept the same places, those with least choice first; the
        last is for all pods together.
        """
        pods = self.counts[:, list(places)].sum(axis=1)
        grouped: dict[bytes, tuple[BoolArray, IntArray]] = {}
        for workload in np.flatnonzero(pods).tolist():
            mask = self.accepted[workload]
            _, load = grouped.get(mask.tobytes(), (mask, np.zeros(2, np.int64)))
            grouped[mask.tobytes()] = (mask, load + pods[workload] * self.requests[workload, :2])
        groups = sorted(grouped.values(), key=lambda group: int(group[0].sum()))
        everywhere = np.logical_or.reduce([mask for mask, _ in groups]) if groups else None
        return groups if everywhere is None else [*groups, (everywhere, pods @ self.requests[:, :2])]

    def spare_shares(self, without: int = -1) -> FloatArray:
        """Return the free share of CPU and memory on usable places, leaving one out."""
        usable = self.present & self.ready
        if without >= 0:
            usable[without] = False
        total = np.maximum(self.allocatable[usable, :2].sum(axis=0), 1)
        shares: FloatArray = self.free[:2, usable].sum(axis=1) / total
        return shares

    def _rules(self, workload: int) -> BoolArray:
        """Return the places that the workload's rules about other pods allow one more pod."""
        return self.topology.allowed(workload, self.counts, self.present)

    def _name(self, workload: int) -> str:
        return f"{self.workloads[workload].namespace}/{self.workloads[workload].name}"

    def _obstacle(self, workload: int, place: int) -> Obstacle:
        """Return which rule keeps a pod of the workload, now at the place, from every open one."""
        self.move(workload, place, -1)
        code, why = self.obstacle_of(workload)
        self.move(workload, -1, place)
        return code, f"A pod of {self._name(workload)} would find no other place{why}."

    def _hurdles_of(self, workload: int) -> list[Hurdle]:
        subject = self.workloads[workload]
        key = signature(subject)
        if key not in self._hurdles:
            self._hurdles[key] = fixed_hurdles(subject, self.places)
        hurdles = [*self._hurdles[key], *room_hurdles(subject, self.free)]
        return hurdles + rule_hurdles(self.topology.masks(workload, self.counts, self.present))


def _matrix(rows: Sequence[Vector]) -> IntArray:
    return np.array(rows, np.int64).reshape(len(rows), RESOURCE_COUNT)
