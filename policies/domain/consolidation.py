"""From the running cluster to its target in waves, each of which leaves every pod a place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from policies.domain.model import BoolArray, IntArray
from policies.domain.policy import Rules
from policies.domain.refusals import NO_PLACE, Code
from policies.domain.scheduling import Board, Move
from policies.domain.shapes import CapacityType

MIN_READY_NODES = 3
"""No plan leaves fewer ready nodes than this, whatever the policy says."""


@dataclass(slots=True)
class Drained:
    """A place that was emptied, and where its pods went."""

    place: int
    moves: list[Move]


@dataclass(slots=True)
class Step:
    """Places that appear, then places that are emptied."""

    launched: list[int] = field(default_factory=list)
    drained: list[Drained] = field(default_factory=list)


@dataclass(slots=True)
class Migration:
    """The way to the target: steps, and why some places stay after all."""

    steps: list[Step]
    kept: dict[int, tuple[Code, str]]
    unplaced: dict[int, int]
    """Pending pods, by workload, that found no place."""


def ready_floor(rules: Rules) -> int:
    """Return the number of ready nodes that a plan never goes below."""
    return max(MIN_READY_NODES, rules.min_nodes)


def wave_limit(node_count: int, rules: Rules) -> int:
    """Return how many of ``node_count`` nodes may be disrupted at once: at least one."""
    return max(1, node_count * rules.max_disrupted_percent // 100)


def headroom_shares(rules: Rules) -> tuple[float, float]:
    """Return the shares of CPU and memory that stay free."""
    return rules.headroom_cpu_percent / 100, rules.headroom_memory_percent / 100


class Mover:
    """Empties the doomed places of a board one by one, adding launches only when they are needed.

    With ``due``, a doomed place for each launch, a launch is there before that place is emptied and a
    wave ends where the next one has to begin with a launch: what is free anyway is filled first.
    """

    def __init__(
        self,
        board: Board,
        *,
        doomed: Sequence[int],
        launches: Sequence[int],
        rules: Rules,
        due: Sequence[int] | None = None,
    ) -> None:
        self._board, self._rules = board, rules
        self._due = None if due is None else dict(zip(launches, due, strict=True))
        self._doomed = list(doomed)
        self._unlaunched = list(launches)
        self._running = len(board.places) - len(self._unlaunched)
        self._headroom = np.array(headroom_shares(rules))
        self._kept: dict[int, tuple[Code, str]] = {}
        board.present[self._unlaunched] = False
        board.open[self._unlaunched] = False
        board.ready[self._unlaunched] = False
        board.open[self._doomed] = False

    def run(self, pending: Mapping[int, int], required: frozenset[int] = frozenset()) -> Migration:
        """Return the steps; ``required`` launches are part of the plan whether or not room needs them."""
        steps: list[Step] = []
        waiting, queue = dict(pending), list(self._doomed)
        launched = [self._launch(place) for place in sorted(required)]
        while True:
            launched = self._provide(launched, queue) if self._due is None else launched
            step, waiting, queue = self._wave(launched, waiting, queue)
            if step.drained or step.launched:
                steps.append(step)
            if not step.drained:
                break
            self._board.present[[drained.place for drained in step.drained]] = False
            launched = []
        self._drop_idle(steps, required)
        return Migration([step for step in steps if step.launched or step.drained], self._kept, waiting)

    def _provide(self, launched: Sequence[int], queue: Sequence[int]) -> list[int]:
        """Launch until the places that stay have room for the next wave and the headroom besides.

        This holds for each set of pods that accept the same places, so that pods with little choice
        are not crowded out by the others.
        """
        board, step = self._board, Step(list(launched))
        coming = list(queue[: wave_limit(int(board.present.sum()), self._rules)])
        for mask, load in board.loads(coming):
            while not self._provides(mask, load):
                able = next((place for place in self._unlaunched if mask[place]), None)
                if able is None or not self._add(able, step):
                    break
        return step.launched

    def _provides(self, mask: BoolArray, load: IntArray) -> bool:
        usable = self._board.open & mask
        total = self._board.allocatable[usable, :2].sum(axis=0)
        free = self._board.free[:2, usable].sum(axis=1)
        return bool((free - load >= self._headroom * total).all())

    def _wave(
        self, launched: list[int], waiting: Mapping[int, int], queue: list[int]
    ) -> tuple[Step, dict[int, int], list[int]]:
        """Play one wave until its launches, all ready before its first drain, are enough."""
        start, kept = self._board.state(), dict(self._kept)
        while True:
            step = Step(list(launched))
            left = self._admit(waiting, step)
            later = self._drain_wave(queue, step)
            if step.launched == launched:
                return step, left, later
            launched = step.launched
            self._board.restore(start)
            self._board.open[launched] = self._board.ready[launched] = True
            self._kept = dict(kept)

    def _admit(self, waiting: Mapping[int, int], step: Step) -> dict[int, int]:
        """Place pending pods, launching for them; return those still waiting."""
        left: dict[int, int] = {}
        for workload, count in waiting.items():
            remaining = self._board.admit(workload, count)
            while remaining and self._launch_for(workload, -1, step):
                remaining = self._board.admit(workload, remaining)
            if remaining:
                left[workload] = remaining
        return left

    def _drain_wave(self, queue: list[int], step: Step) -> list[int]:
        """Empty places until the wave is full; return the places that wait for a later wave."""
        for position, place in enumerate(queue):
            if len(step.drained) >= wave_limit(int(self._board.present.sum()), self._rules):
                return queue[position:]
            due = [launch for launch in self._unlaunched if self._due and self._due[launch] == place]
            if due and step.drained:
                return queue[position:]
            if not all(self._add(launch, step) for launch in due):
                self._due = None
            refusal = self._drain(place, step)
            if refusal is not None:
                self._kept[place] = refusal
                self._board.open[place] = self._board.places[place].schedulable
        return []

    def _drain(self, place: int, step: Step) -> tuple[Code, str] | None:
        """Empty one place, launching what that takes; return why it must stay, if it must."""
        floor = ready_floor(self._rules)
        if not self._launch_until(lambda: self._ready_count() > floor, step):
            return Code.NODE_FLOOR, f"Kept: the cluster would fall below {floor} ready nodes."
        if self._rules.az_spread and not self._zone_covered_without(place, step):
            zone = self._board.places[place].zone
            return (
                Code.LAST_IN_ZONE,
                f"Kept: it is the last node in {zone}, and the policy spreads over zones.",
            )
        if not self._keeps_base_without(place, step):
            base = self._rules.on_demand_base
            return Code.ON_DEMAND_BASE, f"Kept: the policy keeps {base} on-demand nodes."
        moves, stuck = self._board.empty(place)
        while stuck >= 0 and self._is_short_of_places() and self._launch_for(stuck, place, step):
            moves, stuck = self._board.empty(place)
        if stuck >= 0:
            code, reason = self._board.obstacle
            return code, f"Kept: {reason[0].lower()}{reason[1:]}"
        self._board.ready[place] = False
        if not self._launch_until(self._has_headroom, step):
            self._board.ready[place] = True
            self._board.undo(moves)
            return Code.HEADROOM, "Kept: without it the policy's free headroom would be missed."
        step.drained.append(Drained(place, moves))
        return None

    def _is_short_of_places(self) -> bool:
        """Tell whether more places may help the pod that was last stuck."""
        return self._board.obstacle[0] in NO_PLACE

    def _ready_count(self) -> int:
        return int((self._board.present & self._board.ready).sum())

    def _has_headroom(self) -> bool:
        return bool((self._board.spare_shares() >= self._headroom).all())

    def _zone_covered_without(self, place: int, step: Step) -> bool:
        zone = self._board.places[place].zone
        live = np.flatnonzero(self._board.present & self._board.ready).tolist()
        if any(self._board.places[other].zone == zone for other in live if other != place):
            return True
        candidate = next((p for p in self._unlaunched if self._board.places[p].zone == zone), None)
        return candidate is not None and self._add(candidate, step)

    def _keeps_base_without(self, place: int, step: Step) -> bool:
        """Tell whether enough on-demand nodes stay, launching one if that is what it takes."""
        if self._board.places[place].capacity_type is not CapacityType.ON_DEMAND:
            return True
        live = np.flatnonzero(self._board.present & self._board.ready).tolist()
        others = sum(self._board.places[other].capacity_type is CapacityType.ON_DEMAND for other in live) - 1
        if others >= self._rules.on_demand_base:
            return True
        spare = (p for p in self._unlaunched if self._board.places[p].capacity_type is CapacityType.ON_DEMAND)
        candidate = next(spare, None)
        return candidate is not None and self._add(candidate, step)

    def _launch_until(self, satisfied: Callable[[], bool], step: Step) -> bool:
        while not satisfied():
            if not self._unlaunched or not self._add(self._unlaunched[0], step):
                return False
        return True

    def _launch_for(self, workload: int, source: int, step: Step) -> bool:
        """Launch a place that takes a pod of the workload, in the zone that it leaves if possible."""
        helpful = [place for place in self._unlaunched if self._board.could_take(workload, place)]
        zone = self._board.places[source].zone if source >= 0 else ""
        helpful.sort(key=lambda place: self._board.places[place].zone != zone)
        return bool(helpful) and self._add(helpful[0], step)

    def _add(self, place: int, step: Step) -> bool:
        limit = self._rules.max_nodes
        if limit is not None and int(self._board.present.sum()) >= limit:
            return False
        step.launched.append(self._launch(place))
        return True

    def _launch(self, place: int) -> int:
        self._unlaunched.remove(place)
        self._board.present[place] = self._board.open[place] = self._board.ready[place] = True
        return place

    def _drop_idle(self, steps: Sequence[Step], required: frozenset[int]) -> None:
        """Leave out launches that carry nothing at the end, as long as the rules hold without them."""
        for step in steps:
            for place in list(step.launched):
                if place in required or self._board.counts[:, place].any():
                    continue
                enough = (self._board.spare_shares(without=place) >= self._headroom).all()
                if (
                    enough
                    and self._ready_count() > ready_floor(self._rules)
                    and not self._last_in_zone(place)
                    and self._keeps_pace(steps, place)
                ):
                    step.launched.remove(place)
                    self._board.present[place] = self._board.ready[place] = self._board.open[place] = False

    def _keeps_pace(self, steps: Sequence[Step], idle: int) -> bool:
        """Tell whether every wave stays small enough for the nodes that there are without one launch."""
        count = self._running
        for step in steps:
            count += len(step.launched) - (idle in step.launched)
            if len(step.drained) > wave_limit(count, self._rules):
                return False
            count -= len(step.drained)
        return True

    def _last_in_zone(self, place: int) -> bool:
        zone = self._board.places[place].zone
        live = np.flatnonzero(self._board.present & self._board.ready).tolist()
        return self._rules.az_spread and all(
            self._board.places[other].zone != zone for other in live if other != place
        )
