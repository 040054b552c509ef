"""Targets along the frontier of cost against pods moved, for one snapshot under its rules."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from policies.domain.consolidation import headroom_shares, ready_floor
from policies.domain.matching import accepted_places
from policies.domain.mix import mix_holds, spot_limit_percent
from policies.domain.model import (
    RESOURCE_COUNT,
    BoolArray,
    FloatArray,
    IntArray,
    Place,
    Vector,
    place_of_offer,
    vector,
)
from policies.domain.policy import Rules
from policies.domain.scheduling import Board
from policies.domain.selection import effective_prices
from policies.domain.shapes import CapacityType, Offer
from policies.domain.solver.migration import Fleet
from policies.domain.solver.migration_play import Candidate
from policies.domain.solver.migration_search import frontier
from policies.domain.target import Target
from policies.domain.topology import Topology


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Pods by shape: equal ones together, but those that rules about pods tie to a domain apart by domain."""

    pods: IntArray
    """Places × shapes: the pods that move when the place is emptied."""
    requests: IntArray
    accepted: BoolArray
    """Shapes × (offers, then places)."""


class Frontier:
    """Finds targets for one board; ``movable`` are the places that may be emptied."""

    def __init__(
        self, board: Board, *, movable: Sequence[int], offers: Sequence[Offer], rules: Rules
    ) -> None:
        """Take the pods as they are on the board, where pending ones may have been admitted."""
        self._board, self._places, self._offers, self._rules = board, board.places, offers, rules
        self._new = [place_of_offer(offer, f"offer-{index}") for index, offer in enumerate(offers)]
        self._movable = np.isin(np.arange(len(self._places)), movable)
        self._on_demand = self._on_demand_twins()
        self._fits: dict[tuple[frozenset[int], tuple[int, ...]], tuple[int, ...] | None] = {}
        self.fleet = self._fleet()

    def targets(self, shares: Sequence[float], *, effort: int) -> list[Target]:
        """Return the cheapest target found for each largest share (0 to 1) of movable pods moved.

        ``effort`` is the number of pods placed in play for each share.
        """
        found = frontier(self.fleet, shares, effort=effort, fitted=self._fitted)
        return [
            Target(
                target.candidate.removed,
                target.candidate.bought,
                tuple(target.candidate.removed[position] for position in target.launches),
            )
            for target in found
        ]

    def _fleet(self) -> Fleet:
        board, shapes, count = self._board, self._shapes(), len(self._new)
        headroom = np.array(headroom_shares(self._rules))
        running, ready = board.counts.sum(axis=1), board.ready
        return Fleet(
            requests=shapes.requests,
            pods=shapes.pods,
            free=np.where(board.open[:, None], np.maximum(board.free.T, 0), 0),
            paid=np.array([float(place.usd_per_hour) for place in self._places]) * self._movable,
            movable=self._movable,
            allocatable=board.allocatable,
            stays_accepted=shapes.accepted[:, count:],
            rooms=_matrix([vector(place.room) for place in self._new]),
            prices=np.array(effective_prices(self._offers, self._rules)),
            kind_allocatable=_matrix([vector(place.allocatable) for place in self._new]),
            accepted=shapes.accepted[:, :count],
            supply=_supply(self._places, headroom) * ready[:, None],
            kind_supply=_supply(self._new, headroom),
            balance=self._balance(),
            needed=((running - board.counts[:, ~ready].sum(axis=1)) @ board.requests[:, :2]).astype(float),
        )

    def _balance(self) -> FloatArray:
        """Return what each new node's price adds to spot beyond the share of spot that the rules allow."""
        prices = np.array([float(offer.usd_per_hour) for offer in self._offers])
        spot = np.array([offer.capacity_type is CapacityType.SPOT for offer in self._offers], bool)
        balance: FloatArray = prices * (spot - spot_limit_percent(self._rules) / 100)
        return balance

    def _shapes(self) -> _Shapes:
        everywhere = [*self._new, *self._places]
        accepted = accepted_places(self._board.workloads, everywhere)
        topology = Topology(self._board.workloads, everywhere)
        masks: dict[Hashable, tuple[int, BoolArray]] = {}
        pods: dict[Hashable, IntArray] = {}
        for index in range(len(self._board.workloads)):
            home, carried = topology.home(index), self._board.counts[index] * self._movable
            here = home[len(self._new) :]
            for domain in np.unique(here[carried > 0]).tolist():
                mask = accepted[index] & (home == domain)
                key = (tuple(self._board.requests[index]), mask.tobytes())
                masks.setdefault(key, (index, mask))
                pods[key] = pods.get(key, np.zeros(len(here), np.int64)) + carried * (here == domain)
        return _Shapes(
            pods=np.array(list(pods.values()), np.int64).reshape(-1, len(self._places)).T,
            requests=self._board.requests[[index for index, _ in masks.values()]],
            accepted=np.array([mask for _, mask in masks.values()], bool).reshape(-1, len(everywhere)),
        )

    def _fitted(self, candidate: Candidate) -> Candidate | None:
        """Return the candidate with enough on-demand nodes among the new ones; None when rules forbid it."""
        key = frozenset(candidate.removed), candidate.bought
        if key not in self._fits:
            self._fits[key] = self._purchases(*key)
        bought = self._fits[key]
        return None if bought is None else Candidate(candidate.removed, bought)

    def _purchases(self, gone: frozenset[int], wished: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return what is bought when these nodes go; the search asks for the same again and again."""
        stay = [place for index, place in enumerate(self._places) if index not in gone]
        base = sum(place.capacity_type is CapacityType.ON_DEMAND for place in stay)
        bought = self._with_on_demand(list(wished), base)
        if bought is None or len(stay) + len(bought) < ready_floor(self._rules):
            return None
        kept_in = {place.zone for place in stay} | {self._offers[kind].zone for kind in bought}
        if self._rules.az_spread and not {place.zone for place in self._places} <= kept_in:
            return None
        if not self._shares_hold(stay, bought):
            return None
        return tuple(bought)

    def _with_on_demand(self, bought: list[int], base: int) -> list[int] | None:
        """Return the purchases with spot nodes turned into on-demand ones until the mix holds.

        On-demand ones come first, so that the mix holds too when the last ones are not needed.
        """
        spot = [i for i, kind in enumerate(bought) if self._on_demand[kind] != kind]
        while not mix_holds([self._offers[kind] for kind in bought], base, self._rules):
            if not spot:
                return None
            place = spot.pop()
            bought[place] = self._on_demand[bought[place]]
        return sorted(bought, key=lambda kind: self._offers[kind].capacity_type is CapacityType.SPOT)

    def _on_demand_twins(self) -> list[int]:
        """Return for each offer the cheapest on-demand one of its zone with at least its room, or itself."""
        rooms = _matrix([vector(place.room) for place in self._new])
        twins = []
        for index, offer in enumerate(self._offers):
            able = [
                other
                for other in np.flatnonzero((rooms >= rooms[index]).all(axis=1)).tolist()
                if self._offers[other].capacity_type is CapacityType.ON_DEMAND
                and self._offers[other].zone == offer.zone
            ]
            is_spot = offer.capacity_type is CapacityType.SPOT
            best = min(able, key=lambda other: self._offers[other].usd_per_hour, default=index)
            twins.append(best if is_spot else index)
        return twins

    def _shares_hold(self, stay: Sequence[Place], bought: Sequence[int]) -> bool:
        """Tell whether no pool that is bought from gets more than its share of the nodes."""
        pools = Counter((place.instance_type, place.zone) for place in stay)
        new = [(self._offers[kind].instance_type, self._offers[kind].zone) for kind in bought]
        pools.update(new)
        most = max(1, sum(pools.values()) * self._rules.pool_share_percent // 100)
        return all(pools[pool] <= most for pool in new)


def _supply(places: Sequence[Place], headroom: FloatArray) -> FloatArray:
    """Return what each place adds to the CPU and memory that running pods and headroom may take."""
    allocatable = _matrix([vector(place.allocatable) for place in places])[:, :2]
    daemons = _matrix([vector(place.daemon_overhead) for place in places])[:, :2]
    supply: FloatArray = allocatable * (1 - headroom) - daemons
    return supply


def _matrix(rows: Sequence[Vector]) -> IntArray:
    return np.array(rows, np.int64).reshape(len(rows), RESOURCE_COUNT)
