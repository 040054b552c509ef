"""Chooses whole nodes to buy for classes of pods: the rules of the policy, stated for the solver."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies.domain.mix import spot_limit_percent
from policies.domain.model import BoolArray, FloatArray, IntArray
from policies.domain.packing import PodClasses
from policies.domain.policy import Rules
from policies.domain.shapes import CapacityType, Offer
from policies.domain.solver.problem import UNLIMITED, Infeasible, NodeRule, Problem, share_caps
from policies.domain.solver.solve import Effort, solve

_EFFORT = Effort(
    seconds=math.inf, rounds=12, tolerance=5e-3, fixing_rounds=3, dives=1, packings=8, searches=2
)
"""The scheduler decides where pods go, so that the last half percent of cost would not survive it."""
_MARGIN_USD = 1e-6
"""The spot share is kept by this much, so that rounding cannot break it."""
_WHOLE_PERCENT = 100
_ZONE_LEAD = 1
"""Nodes that a zone may have beyond its even share."""


@dataclass(frozen=True, slots=True)
class Market:
    """What may be bought, one entry for each offer, and the nodes that the cluster has besides."""

    offers: Sequence[Offer]
    prices: FloatArray
    """As the strategy counts them, USD per hour."""
    rooms: IntArray
    """Room for pods when empty, with headroom and slack taken off."""
    full_rooms: IntArray
    """Room for pods when empty."""
    pools: IntArray
    """Number of the pool (instance type and zone)."""
    zones: IntArray
    standing_pools: IntArray
    """Nodes that stay, by pool."""
    standing_zones: IntArray
    on_demand_kept: int
    """On-demand nodes that run and stay."""
    held: Sequence[Offer] = ()
    """Offers of nodes that are bought anyway; they are among the standing ones."""


def buy(classes: PodClasses, market: Market, rules: Rules) -> list[int]:
    """Return the offers (indexes, one for each node) that hold the pods for the least money.

    Pods that no offer holds are left out. Zone balance, then pool shares give way where no set of nodes
    keeps them; a pool may always have one node.
    """
    problem, offers = _problem(classes, market)
    mix = _mix_rules(market, rules, offers)
    zoned = _zone_rules(market, rules, offers)
    shares, single = _pool_rules(market, rules, offers), _single_rules(market, offers)
    attempts = [[*mix, *shares, *zoned], [*mix, *single, *zoned], [*mix, *shares], [*mix, *single], mix]
    if _fewest_nodes(classes, market) * rules.pool_share_percent < _WHOLE_PERCENT:
        attempts = [attempts[1], attempts[0], *attempts[2:]]
    for chosen in attempts:
        try:
            answer = solve(replace(problem, rules=tuple(chosen)), _no_clock, _EFFORT)
        except Infeasible:
            continue
        return [int(offers[column.kind]) for column in answer.columns for _ in range(column.copies)]
    return []


def pool_cap(node_count: int, rules: Rules) -> int:
    """Return how many of ``node_count`` nodes one pool may have."""
    return max(1, node_count * rules.pool_share_percent // 100)


def _fewest_nodes(classes: PodClasses, market: Market) -> int:
    """Return the number of nodes that there will be at least."""
    load = classes.counts @ classes.requests
    largest = np.maximum(market.rooms.max(axis=0, initial=1), 1)
    return int(market.standing_pools.sum()) + int(np.ceil(load / largest).max(initial=0))


def _no_clock() -> float:
    """Stand still: the work is bounded by rounds, so that equal snapshots lead to equal plans."""
    return 0.0


def _problem(classes: PodClasses, market: Market) -> tuple[Problem, IntArray]:
    """State pods and kinds, and the offer of each kind; offers paid for already come twice."""
    prepaid = np.array([offer.prepaid for offer in market.offers], np.int64)
    twice = np.flatnonzero(prepaid)
    kinds = np.append(np.arange(len(market.offers)), twice)
    requests, accepted = _fitting(classes, market)
    families: dict[str, int] = {}
    numbers = [families.setdefault(offer.family, len(families)) for offer in market.offers]
    problem = Problem(
        requests=requests,
        counts=classes.counts,
        accepted=accepted[:, kinds],
        rooms=market.rooms[kinds],
        prices=np.append(market.prices, np.zeros(len(twice))),
        zones=market.zones[kinds],
        pools=market.pools[kinds],
        families=np.array(numbers, np.int64)[kinds],
        limits=np.append(np.full(len(market.offers), UNLIMITED), prepaid[twice]),
        skews=np.zeros(len(classes.counts), np.int64),
        per_node=np.minimum(classes.limits, UNLIMITED),
        conflicts=classes.conflicts,
    )
    return problem, kinds


def _fitting(classes: PodClasses, market: Market) -> tuple[IntArray, BoolArray]:
    """Return requests and acceptance; a pod larger than any room less slack may use one node's slack."""
    requests, accepted = classes.requests.copy(), np.array(classes.accepted, bool)
    accepted = accepted.reshape(len(requests), len(market.offers))
    for index, request in enumerate(classes.requests):
        if (accepted[index] & (market.rooms >= request).all(axis=1)).any():
            continue
        holding = accepted[index] & (market.full_rooms >= request).all(axis=1)
        accepted[index] = holding
        if holding.any():
            requests[index] = np.minimum(request, market.rooms[holding].min(axis=0))
    return requests, accepted


def _pool_rules(market: Market, rules: Rules, offers: IntArray) -> list[NodeRule]:
    share = rules.pool_share_percent / 100
    if share >= 1:
        return []
    pools = market.pools[offers]
    return list(
        share_caps("pool", pools, share, np.ones(len(pools)), standing=market.standing_pools.tolist())
    )


def _single_rules(market: Market, offers: IntArray) -> list[NodeRule]:
    """Return the rule that no pool has two nodes."""
    pools = market.pools[offers]
    return [
        NodeRule(
            f"pool:{pool}", (pools == pool).astype(float), float(max(0, 1 - market.standing_pools[pool]))
        )
        for pool in np.unique(pools).tolist()
    ]


def _zone_rules(market: Market, rules: Rules, offers: IntArray) -> list[NodeRule]:
    if not rules.az_spread:
        return []
    zones, standing = market.zones[offers], market.standing_zones
    even = share_caps("zone", zones, 1 / len(standing), np.ones(len(zones)), standing=standing.tolist())
    return [replace(rule, upper=rule.upper + _ZONE_LEAD) for rule in even]


def _mix_rules(market: Market, rules: Rules, offers: IntArray) -> list[NodeRule]:
    """Return the rules on the spot share of the new nodes' price and on the number of on-demand nodes."""
    usd = np.array([float(offer.usd_per_hour) for offer in market.offers])[offers]
    spot = np.array([offer.capacity_type is CapacityType.SPOT for offer in market.offers], bool)[offers]
    limit = spot_limit_percent(rules) / 100
    held_spot = sum(float(o.usd_per_hour) for o in market.held if o.capacity_type is CapacityType.SPOT)
    held = sum(float(offer.usd_per_hour) for offer in market.held)
    found = []
    if limit < 1:
        upper = limit * held - held_spot - _MARGIN_USD
        found.append(NodeRule("spot share", usd * (spot - limit), upper if limit > 0 else -held_spot))
    bought_anyway = sum(o.capacity_type is CapacityType.ON_DEMAND for o in market.held)
    missing = rules.on_demand_base - market.on_demand_kept - bought_anyway
    if missing > 0:
        found.append(NodeRule("on-demand base", np.where(spot, 0.0, -1.0), float(-missing)))
    return found
