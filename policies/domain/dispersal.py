"""Swaps new nodes of a draft for others so that the loss of any one pool is bearable."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np

from policies.domain.diversification import allowances, pools_needed, within_share
from policies.domain.model import BoolArray, IntArray
from policies.domain.policy import Rules
from policies.domain.proposal import Draft
from policies.domain.selection import Pool, cell, effective_prices
from policies.domain.shapes import CapacityType, Offer
from policies.domain.target import Target

MOST_FOR_DISPERSAL = Decimal("0.02")
"""Spreading workloads over more pools may make the cluster so much dearer, as a share of its price."""
Holds = Callable[[Draft, int], BoolArray]
"""Tells which of the allowed offers would take what lands on a new node."""


def decrowded(draft: Draft, offers: Sequence[Offer], rules: Rules) -> Target | None:
    """Return the target with other nodes in place of those beyond a pool's share of the nodes.

    They are of at least equal size, from pools that have room. The answer is None when no pool is crowded.
    """
    shares = _Shares(draft, rules)
    crowded = [place for place in draft.launched if not shares.takes(draft.bought[place])]
    numbers = {offer.pool: index for index, offer in enumerate(offers)}
    chosen = {place: numbers[offer.pool] for place, offer in draft.bought.items()}
    for place in crowded:
        old = draft.bought[place]
        alike = [
            offer
            for offer in offers
            if offer.capacity_type is old.capacity_type
            and old.allocatable.fits_in(offer.allocatable)
            and shares.has_room(offer)
        ]
        if alike:
            cheapest = min(alike, key=lambda offer: offer.usd_per_hour)
            shares.takes(cheapest)
            chosen[place] = numbers[cheapest.pool]
    target = Target(tuple(drained.place for drained in draft.drained), tuple(chosen.values()))
    return target if crowded else None


class _Shares:
    """Nodes by pool, counted against the share that one pool may hold."""

    def __init__(self, draft: Draft, rules: Rules) -> None:
        stay = draft.staying
        self._pools: Counter[Pool] = Counter((node.instance_type, node.zone) for node in stay)
        self._total, self._share = len(stay) + len(draft.launched), rules.pool_share_percent / 100

    def has_room(self, offer: Offer) -> bool:
        """Tell whether the offer's pool may have one more node."""
        held = np.array(float(self._pools[offer.instance_type, offer.zone]))
        return bool(within_share(held, np.array(1.0), self._share, self._total))

    def takes(self, offer: Offer) -> bool:
        """Count one more node of the offer's pool, unless the pool is full."""
        has_room = self.has_room(offer)
        self._pools[offer.instance_type, offer.zone] += has_room
        return has_room


class Dispersal:
    """Spreads the pods of workloads that have a minimum over spot pools; ``allowed`` are the offers."""

    def __init__(self, allowed: Sequence[Offer], rules: Rules, holds: Holds) -> None:
        self._allowed, self._holds = allowed, holds
        self._prices = np.array(effective_prices(allowed, rules))

    def dispersed(self, draft: Draft) -> Draft:
        """Return the draft with nodes of other families where losing a pool would cost a minimum.

        Each new node is in the same zone and at least as large as the one that it stands for, so that the
        scheduler treats it alike; all together cost at most ``MOST_FOR_DISPERSAL`` more.
        """
        held, bought = _Held(draft), dict(draft.bought)
        allowance = float(draft.price_after * MOST_FOR_DISPERSAL)
        used = {cell(bought[place]) for place in draft.launched}
        for place in draft.launched:
            pods, old = draft.board.counts[:, place], bought[place]
            if old.capacity_type is not CapacityType.SPOT or held.takes(cell(old), pods):
                continue
            index = self._other(draft, place, used)
            more = np.inf if index is None else float(self._allowed[index].usd_per_hour - old.usd_per_hour)
            if index is None or more > allowance:
                held.add(cell(old), pods)
                continue
            allowance -= max(more, 0.0)
            bought[place] = self._allowed[index]
            used.add(cell(bought[place]))
            held.add(cell(bought[place]), pods)
        return replace(draft, bought=bought)

    def _other(self, draft: Draft, place: int, used: set[Hashable]) -> int | None:
        """Return the offer of least expected cost that may stand for the one of a launched place."""
        old = draft.bought[place]
        able = [
            index
            for index in np.flatnonzero(self._holds(draft, place)).tolist()
            if self._allowed[index].capacity_type is CapacityType.SPOT
            and self._allowed[index].zone == old.zone
            and cell(self._allowed[index]) not in used
            and old.allocatable.fits_in(self._allowed[index].allocatable)
        ]
        return min(able, key=lambda index: float(self._prices[index]), default=None)


class _Held:
    """Pods by workload that each family in each zone holds on spot nodes, and what it may hold."""

    def __init__(self, draft: Draft) -> None:
        workloads = draft.board.workloads
        self._replicas = np.array([workload.replicas for workload in workloads], np.int64)
        self._minimums = np.array([workload.minimum_healthy for workload in workloads], np.int64)
        self._helped = np.array(
            [pools_needed(each.replicas, each.minimum_healthy) is not None for each in workloads], bool
        )
        self._pods: dict[Hashable, IntArray] = {}
        gone = {drained.place for drained in draft.drained}
        for index, node in enumerate(draft.snapshot.nodes):
            if index not in gone and node.capacity_type is CapacityType.SPOT:
                family = node.instance_type.partition(".")[0]
                self.add((family, node.zone, node.capacity_type), draft.board.counts[:, index])

    def takes(self, key: Hashable, pods: IntArray) -> bool:
        """Add the pods if the pool may be lost with them, or if no other pool could bear them either."""
        held = self._pods.get(key, np.zeros_like(pods))
        here = allowances(self._replicas, self._minimums, held[:, None])[:, 0]
        anywhere = allowances(self._replicas, self._minimums, np.zeros_like(pods)[:, None])[:, 0]
        if (self._helped & (pods > here) & (pods <= anywhere)).any():
            return False
        self.add(key, pods)
        return True

    def add(self, key: Hashable, pods: IntArray) -> None:
        """Count pods that a pool holds."""
        self._pods[key] = self._pods.get(key, np.zeros_like(pods)) + pods
