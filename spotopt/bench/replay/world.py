"""The replayed world: it takes capacity away, boots nodes, binds pods, and keeps the only true records.

Nothing here knows how a policy decides. Time is in seconds since the week began. A pool whose recording falls
gives its nodes two minutes' notice; then they are gone, and their pods are down until they run elsewhere.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from spotopt.bench.replay.facts import IntArray, NodeView, Order, Policy, Pool, Workload
from spotopt.bench.replay.ledger import Ledger

NOTICE_SECONDS = 120.0
BOOT_SECONDS = (25.0, 70.0)
START_SECONDS = 10.0
"""Scheduling, image and container start of a pod on a ready node."""
ATTEMPT_SECONDS = 1.0
"""What a launch that finds no capacity costs."""
RETRY_SECONDS = 15.0
TICK_SECONDS = 600.0


class Broken(ValueError):
    """A policy asked for something that the cluster forbids."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How this world treats its nodes."""

    seed: int = 0
    lead_seconds: float = 0.0
    """How long before the loss the replacements are ordered: 0 at the loss, 120 at the notice."""


@dataclass(eq=False, slots=True)
class Waiting:
    """Pods, by workload, that are down since then and will run on the node that holds this."""

    since: float
    pods: IntArray


@dataclass(eq=False, slots=True)
class Machine:
    """One node of the world."""

    number: int
    pool: Pool
    launched: float
    ready: float
    running: IntArray
    waiting: list[Waiting] = field(default_factory=list)
    lost_at: float | None = None
    evacuated: bool = False
    """True once its pods were given up, though they run until it is lost."""
    reserved: bool = False
    """True while it boots to replace a node that still runs."""
    alive: bool = True

    @property
    def pods(self) -> IntArray:
        """Return the pods by workload, those that wait included."""
        total: IntArray = sum((batch.pods for batch in self.waiting), self.running)
        return total


class World:
    """One week of one cluster under one policy."""

    def __init__(
        self,
        *,
        pools: Sequence[Pool],
        workloads: Sequence[Workload],
        outages: Sequence[Sequence[tuple[float, float]]],
        trace_of_cell: Sequence[int],
        policy: Policy,
        terms: Terms = Terms(),  # it is frozen
    ) -> None:
        self._pools, self._workloads, self._policy, self._terms = pools, workloads, policy, terms
        self._trace_of_cell = trace_of_cell
        self._outages = outages
        self._levels = [changes[0][1] for changes in outages]
        self._chance = random.Random(terms.seed)  # noqa: S311  # a simulation
        self._requests = np.array([workload.request for workload in workloads], np.int64)
        self._zones = len({pool.zone for pool in pools})
        self._machines: list[Machine] = []
        self._homeless: list[Waiting] = []
        self._now = 0.0
        self._order = count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._deciding_at: float | None = None
        self.ledger = Ledger(workloads)

    def run(self, seconds: float) -> Ledger:
        """Start the cluster with every pod up, live through the time, and return the records."""
        for trace, changes in enumerate(self._outages):
            for second, level in changes[1:]:
                self._at(second, lambda trace=trace, level=level: self._change(trace, level))  # type: ignore[misc]  # bound early
        self._homeless = [Waiting(0.0, np.array([w.replicas for w in self._workloads], np.int64))]
        self._decide()
        self._at(TICK_SECONDS, self._tick)
        while self._agenda and self._agenda[0][0] <= seconds:
            self._now, _, act = heapq.heappop(self._agenda)
            act()
        self._now = seconds
        for machine in self._alive():
            self._end(machine)
        still_down = [*self._homeless, *(batch for m in self._machines for batch in m.waiting)]
        self.ledger.close(seconds, [(batch.since, batch.pods) for batch in still_down])
        return self.ledger

    def _at(self, second: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (second, next(self._order), act))

    def _alive(self) -> list[Machine]:
        return [machine for machine in self._machines if machine.alive]

    def _staying(self) -> list[Machine]:
        return [machine for machine in self._machines if machine.alive and machine.lost_at is None]

    # capacity

    def _level(self, pool: Pool) -> float:
        return self._levels[self._trace_of_cell[pool.cell]] if pool.is_spot else 1.0

    def _change(self, trace: int, level: float) -> None:
        """Let a recording rise or fall; of the nodes that it drives, the part that fell gets its notice."""
        before, self._levels[trace] = self._levels[trace], level
        if level >= before:
            return
        driven = [
            machine
            for machine in self._staying()
            if machine.pool.is_spot and self._trace_of_cell[machine.pool.cell] == trace
        ]
        share = (before - level) / before
        taken = self._chance.sample(driven, int(np.ceil(len(driven) * share - 1e-9)))
        for machine in taken:
            machine.lost_at = self._now + NOTICE_SECONDS
            self._at(machine.lost_at - self._terms.lead_seconds, lambda m=machine: self._evacuate(m))  # type: ignore[misc]  # bound early
            self._at(machine.lost_at, lambda m=machine: self._lose(m))  # type: ignore[misc]  # bound early
        for number in sorted({machine.pool.number for machine in taken}):
            self._policy.lost(number, self._now)

    def _evacuate(self, machine: Machine) -> None:
        """Make the pods of a doomed node homeless as of its loss; those that waited for it, as they were."""
        assert machine.lost_at is not None  # noqa: S101  # only doomed nodes are evacuated
        self._homeless += machine.waiting
        machine.waiting, machine.evacuated = [], True
        if machine.running.any():
            self._homeless.append(Waiting(machine.lost_at, machine.running.copy()))
        self._decide_soon(self._now)

    def _lose(self, machine: Machine) -> None:
        if machine.alive:
            self.ledger.interrupted(self._now, machine.running)
            self._end(machine)

    def _end(self, machine: Machine) -> None:
        if not machine.alive:
            return
        machine.alive = False
        self.ledger.billed(machine.pool, machine.launched, self._now)

    # binding and launching

    def _decide_soon(self, second: float) -> None:
        """Decide once for everything that happens at this instant."""
        if self._deciding_at != second:
            self._deciding_at = second
            self._at(second, self._decide)

    def _decide(self) -> None:
        self._deciding_at = None
        if not self._homeless:
            return
        self._bind_to_free_room()
        pods = self._homeless_pods()
        if pods.any():
            for order in self._policy.orders(pods, self._views(), self._now):
                machine = self._launch(order)
                if machine is not None:
                    self._assign(machine, order.pods)
            self._check_spread()
        if self._homeless:
            self._decide_soon(self._now + (RETRY_SECONDS if self._now else 0.0))

    def _homeless_pods(self) -> IntArray:
        total: IntArray = sum(
            (batch.pods for batch in self._homeless), np.zeros(len(self._workloads), np.int64)
        )
        return total

    def _launch(self, order: Order) -> Machine | None:
        """Launch in the first pool that has capacity; None when none has."""
        for failed, number in enumerate(order.pools):
            pool = self._pools[number]
            if (order.pods @ self._requests > pool.room).any():
                raise Broken(f"The pods do not fit on {pool.instance_type}.")
            if self._level(pool) <= 0:
                self._policy.short(number, self._now)
                continue
            boot = self._chance.uniform(*BOOT_SECONDS) + failed * ATTEMPT_SECONDS if self._now else 0.0
            nothing = np.zeros(len(self._workloads), np.int64)
            machine = Machine(len(self._machines), pool, self._now, self._now + boot, nothing)
            self._machines.append(machine)
            return machine
        return None

    def _assign(self, machine: Machine, pods: IntArray) -> None:
        """Give homeless pods, the longest homeless first, to a node; they run when it is ready."""
        left = pods.copy()
        taken: list[Waiting] = []
        for batch in self._homeless:
            part = np.minimum(batch.pods, left)
            if part.any():
                taken.append(Waiting(batch.since, part))
                batch.pods = batch.pods - part
                left -= part
        if left.any():
            raise Broken("The policy placed pods that are not homeless.")
        self._homeless = [batch for batch in self._homeless if batch.pods.any()]
        for batch in taken:
            machine.waiting.append(batch)
            start = START_SECONDS if self._now else 0.0
            up = max(machine.ready, self._now, batch.since) + start
            self._at(up, lambda b=batch: self._up(machine, b))  # type: ignore[misc]  # bound early

    def _up(self, machine: Machine, batch: Waiting) -> None:
        if machine.alive and any(batch is waiting for waiting in machine.waiting):
            machine.waiting.remove(batch)
            machine.running = machine.running + batch.pods
            self.ledger.up_again(self._now, batch.since, batch.pods)

    def _bind_to_free_room(self) -> None:
        """Bind as the scheduler does: large pods first, each where fewest of its kind and most room are."""
        open_nodes = [machine for machine in self._staying() if not machine.reserved]
        if not open_nodes:
            return
        rooms = np.array([machine.pool.room for machine in open_nodes], np.int64)
        pods = np.array([machine.pods for machine in open_nodes], np.int64)
        free = rooms - pods @ self._requests
        zones = np.array([machine.pool.zone for machine in open_nodes])
        bound = np.zeros_like(pods)
        left = self._homeless_pods()
        by_zone = self._by_zone()
        for workload in np.argsort(-self._requests[:, 0], kind="stable").tolist():
            request = self._requests[workload]
            for _ in range(int(left[workload])):
                fits = (free >= request).all(axis=1)
                if self._workloads[workload].is_spread:
                    fits &= (by_zone[workload] == by_zone[workload].min())[zones]
                if not fits.any():
                    break
                fullness = 1 - free[:, 0] / rooms[:, 0]
                score = np.where(fits, pods[:, workload] + fullness, np.inf)
                chosen = int(score.argmin())
                free[chosen] -= request
                pods[chosen, workload] += 1
                by_zone[workload, zones[chosen]] += 1
                bound[chosen, workload] += 1
        for machine, part in zip(open_nodes, bound, strict=True):
            if part.any():
                self._assign(machine, part)

    def _check_spread(self) -> None:
        """Refuse placements that leave spread pods more uneven than one, unless some are still homeless."""
        by_zone = self._by_zone()
        skews = by_zone.max(axis=1) - by_zone.min(axis=1)
        for workload in np.flatnonzero((skews > 1) & (self._homeless_pods() == 0)).tolist():
            if self._workloads[workload].is_spread:
                raise Broken(f"{self._workloads[workload].name} is unevenly spread: {by_zone[workload]}.")

    def _by_zone(self) -> IntArray:
        """Return the pods by workload and zone that have a node, on nodes that got their notice too."""
        by_zone = np.zeros((len(self._workloads), self._zones), np.int64)
        for machine in self._machines:
            if machine.alive and not machine.evacuated:
                by_zone[:, machine.pool.zone] += machine.pods
        return by_zone

    def _views(self) -> list[NodeView]:
        return [
            NodeView(
                machine.number,
                machine.pool.number,
                machine.launched,
                machine.pods,
                machine.ready <= self._now and not machine.waiting,
                machine.lost_at is not None,
            )
            for machine in self._alive()
            if not machine.reserved and not machine.evacuated
        ]

    # moves of the policy's own will

    def _tick(self) -> None:
        for move in self._policy.moves(self._views(), self._now):
            old = self._machines[move.node]
            new = self._launch(replace(move.order, pods=old.running))
            if new is not None:
                new.reserved = True
                self._at(new.ready, lambda o=old, n=new: self._swap(o, n))  # type: ignore[misc]  # bound early
        self._at(self._now + TICK_SECONDS, self._tick)

    def _swap(self, old: Machine, new: Machine) -> None:
        """Move a node's pods to its replacement, in as many waves as the minimums of its workloads ask for.

        The replacement is given up when either node is about to be lost, or a workload has no pod to spare.
        """
        spare = self.ledger.spare()
        needs = old.running > 0
        stays = old.alive and old.lost_at is None and not old.waiting
        fits = (old.running @ self._requests <= new.pool.room).all()
        same_zone = new.pool.zone == old.pool.zone
        new.reserved = False
        if not (stays and new.lost_at is None and fits and same_zone) or (spare[needs] < 1).any():
            self._end(new)
            return
        waves = int(np.ceil(old.running[needs] / spare[needs]).max(initial=0))
        new.running, old.running = old.running, np.zeros_like(old.running)
        self.ledger.moved(new.running, START_SECONDS)
        old.lost_at = self._now + waves * START_SECONDS
        self._at(old.lost_at, lambda: self._end(old))
