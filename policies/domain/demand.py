"""Divides the pods to place into lots that may be planned alike, so that rules about pods are solved for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from policies.domain.matching import accepted_places
from policies.domain.model import HOSTNAME_KEY, BoolArray, IntArray, Place
from policies.domain.shapes import CapacityType, Workload
from policies.domain.topology import Topology


@dataclass(frozen=True, slots=True)
class Lot:
    """Some pods of one workload, and the places that are meant for them."""

    workload: int
    count: int
    places: BoolArray


class Demand:
    """What pods need of the places to plan with: first those that offers would be, then running nodes."""

    def __init__(self, workloads: Sequence[Workload], places: Sequence[Place], offers: int) -> None:
        self._workloads, self._offers = workloads, offers
        self._accepted = accepted_places(workloads, places)
        self._topology = Topology(workloads, places)
        self.rivals = self._topology.rivals(HOSTNAME_KEY)
        """For each workload that has some, the other workloads with which it may not share a node."""
        self._on_demand = np.array([p.capacity_type is CapacityType.ON_DEMAND for p in places], bool)

    def lots(self, counts: IntArray, settled: IntArray, moving: IntArray) -> Iterator[Lot]:
        """Yield the lots of ``counts`` pods by workload.

        ``settled`` are the pods that stay, workload × place, and ``moving`` those that leave their place.
        Pods that must be near others, or away from them, are meant for the domains where they run today:
        there the rules hold. Those that spread are shared out so that the domains become level.
        """
        today = settled + moving
        for index in np.flatnonzero(counts).tolist():
            places = self._accepted[index] & self._at_home(index, today)
            for part, count in self._by_capacity(index, int(counts[index]), places, settled[index]):
                yield from self._by_domain(index, count, part, settled)

    def _at_home(self, index: int, pods: IntArray) -> BoolArray:
        """Return the places in the domains of today's pods, for each key on which others matter."""
        home = np.ones(len(self._on_demand), bool)
        for key in self._topology.tied_keys(index) - {HOSTNAME_KEY}:
            domain = self._topology.domain(key)
            sought = [index] if pods[index].any() else self._topology.neighbours(index, key)
            today = np.unique(domain[pods[sought].any(axis=0)])
            if len(today):
                home &= np.isin(domain, today)
        return home

    def _by_capacity(
        self, index: int, count: int, places: BoolArray, settled: IntArray
    ) -> Iterator[tuple[BoolArray, int]]:
        """Yield (places, pods): first those that have to be on on-demand capacity, then the others."""
        steady = self._workloads[index].on_demand_minimum - int(settled[self._on_demand].sum())
        steady = min(max(steady, 0), count)
        if steady:
            yield places & self._on_demand, steady
        if count > steady:
            yield places, count - steady

    def _by_domain(self, index: int, count: int, places: BoolArray, settled: IntArray) -> Iterator[Lot]:
        """Yield the pods shared out over the domains of a spread rule, level with those that stay.

        A key that no running node has makes no domains: new nodes of one kind bring just one.
        """
        keys = self._topology.spread_keys(index) - {HOSTNAME_KEY}
        if not keys:
            yield Lot(index, count, places)
            return
        domain = self._topology.domain(min(keys))
        exists = (domain[self._offers :] > 0).any()
        numbers = [number for number in np.unique(domain[places]).tolist() if number and exists]
        carried = np.bincount(domain, weights=settled[self._topology.counted(index, min(keys))].sum(axis=0))
        shares = dict.fromkeys(numbers, 0)
        for _ in range(count if numbers else 0):
            shares[min(numbers, key=lambda n: (carried[n] + shares[n], n))] += 1
        for number, share in shares.items():
            if share:
                yield Lot(index, share, places & (domain == number))
        if not numbers:
            yield Lot(index, count, places)
