"""Which node takes the place of one that AWS takes back: safe first, cheap second, never many alike."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import numpy as np

from policies.domain.diversification import first_of_each, within_share
from policies.domain.interruption_cost import expected_usd_per_hour, losses_per_hour
from policies.domain.matching import accepts
from policies.domain.model import ZONE_KEY, BoolArray, place_of_offer, pod_vector
from policies.domain.plan import Launch
from policies.domain.policy import Rules
from policies.domain.selection import MAX_ALTERNATIVES, Pool, allowed_offers, cell, effective_prices
from policies.domain.shapes import CapacityType, ClusterSnapshot, Node, Offer, Resources, Workload

RESTART_HOURS = 48.0
"""What one interruption costs here, in hours of the node's price, beside what the policy charges anyway: a
second loss soon costs most."""
CROWD_WEIGHT = 2.0
"""What a pool's share of the replacements adds to its price, so that one pool never takes many of them."""
LARGEST_SHARE = 0.25
"""Of the replacements chosen together, at most this share may come from one pool while others have room,
whichever of a launch's pools AWS takes."""
TYPE_WEIGHT = 0.5
"""What a type's share of the replacements adds: AWS often runs short of a type in several zones at once."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A node that goes, and the pods that it carried when AWS said so."""

    node: Node
    pods: Mapping[str, int]
    """By workload id, as the newest report has them: some may have left already."""
    pods_at_notice: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What replaces a lost node: a launch, or why there is none."""

    node_id: str
    launch: Launch | None
    reason: str = ""


def replacements(
    *,
    snapshot: ClusterSnapshot,
    lost: Sequence[Lost],
    offers: Sequence[Offer],
    rules: Rules,
    shunned: frozenset[tuple[str, str]],
    now: datetime,
) -> list[Choice]:
    """Choose one node for each lost one that carries pods, in order; each holds all of the node's pods.

    Spot pools in ``shunned`` (zone id, type), those that took nodes just now, and pools that would exceed the
    policy's share of the cluster are passed over; where no spot pool is left, on-demand serves if the policy
    falls back to it.
    """
    allowed, _ = allowed_offers(offers, rules, now)
    market = _Market(snapshot, lost, allowed, rules, shunned)
    workloads = {workload.id: workload for workload in snapshot.workloads}
    return [_choose(number, each, market, workloads) for number, each in enumerate(lost, start=1)]


class _Market:
    """The allowed offers, ranked anew as choices are made."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        lost: Sequence[Lost],
        allowed: Sequence[Offer],
        rules: Rules,
        shunned: frozenset[tuple[str, str]],
    ) -> None:
        gone = {each.node.id for each in lost}
        staying = [node for node in snapshot.nodes if node.id not in gone]
        self._pools: Counter[Pool] = Counter((node.instance_type, node.zone) for node in staying)
        self._size = max(1, len(staying) + len(lost))
        self._lost = max(1, len(lost))
        self._taken: Counter[Pool] = Counter()
        """Launches chosen so far that may come from each pool."""
        self._types: Counter[str] = Counter()
        self._rules = rules
        usable = [o for o in allowed if not _is_spot(o) or (o.zone_id, o.instance_type) not in shunned]
        self._priced = [
            (o, expected_usd_per_hour(usd, losses_per_hour(o.interruption_risk), RESTART_HOURS))
            for o, usd in zip(usable, effective_prices(usable, rules), strict=True)
        ]

    def ranked(self, capacity_type: CapacityType) -> list[Offer]:
        """Return the offers of a capacity type, best first."""
        of_type = [(offer, usd) for offer, usd in self._priced if offer.capacity_type is capacity_type]
        able = self._roomy([offer for offer, _ in of_type])
        roomy = [priced for priced, has_room in zip(of_type, able, strict=True) if has_room]
        return [offer for offer, _ in sorted(roomy or of_type, key=self._charge)]

    def take(self, first: Offer, others: Sequence[Offer]) -> None:
        """Count a choice against its pool, and each pool that AWS may take instead as one that could."""
        self._pools[first.instance_type, first.zone] += 1
        self._taken.update((offer.instance_type, offer.zone) for offer in (first, *others))
        self._types[first.instance_type] += 1

    @property
    def falls_back(self) -> bool:
        """Tell whether on-demand capacity may serve where spot is short."""
        return self._rules.fallback_on_demand

    def _roomy(self, offers: Sequence[Offer]) -> BoolArray:
        """Return which offers are of pools that may take one more node."""
        pools = [(offer.instance_type, offer.zone) for offer in offers]
        taken = np.array([self._taken[pool] for pool in pools], float)
        held = np.array([self._pools[pool] for pool in pools], float)
        one, share = np.ones(len(pools)), self._rules.pool_share_percent / 100
        spread: BoolArray = within_share(taken, one, 1.0, math.ceil(LARGEST_SHARE * self._lost))
        return spread & within_share(held, one, share, self._size)

    def _charge(self, priced: tuple[Offer, float]) -> tuple[float, str]:
        offer, usd = priced
        crowd = CROWD_WEIGHT * self._taken[offer.instance_type, offer.zone]
        alike = TYPE_WEIGHT * self._types[offer.instance_type]
        return usd * (1 + (crowd + alike) / self._lost), offer.pool


def _choose(number: int, lost: Lost, market: _Market, workloads: Mapping[str, Workload]) -> Choice:
    if not lost.pods_at_notice and not lost.pods:
        return Choice(lost.node.id, None, "The node carried no pods that would need a place.")
    carried = [workloads[workload_id] for workload_id in lost.pods if workload_id in workloads]
    need = _need(lost, workloads)
    if lost.node.capacity_type is CapacityType.SPOT:
        ranked = _near(market.ranked(CapacityType.SPOT), lost.node, carried)
        spot = _able(ranked, need, carried, MAX_ALTERNATIVES + 1)
        has_fallback = market.falls_back
    else:
        spot, has_fallback = [], True
    on_demand = _near(market.ranked(CapacityType.ON_DEMAND), lost.node, carried)
    reserve = _able(on_demand, need, carried, 1) if has_fallback else []
    found = [*spot, *reserve]
    if not found:
        return Choice(lost.node.id, None, "No pool that the policy allows holds the node's pods.")
    first, *others = found
    market.take(first, others)
    launch = Launch(
        id=f"r{number}",
        instance_type=first.instance_type,
        zone=first.zone,
        zone_id=first.zone_id,
        capacity_type=first.capacity_type,
        usd_per_hour=first.usd_per_hour,
        interruption_risk=first.interruption_risk,
        alternatives=tuple(offer.pool for offer in others),
        pods=tuple(sorted(lost.pods.items())),
    )
    return Choice(lost.node.id, launch)


def _need(lost: Lost, workloads: Mapping[str, Workload]) -> Resources:
    """Return the room that the node's pods take; the node's whole room once some of them have left."""
    whole = lost.node.allocatable - lost.node.daemon_overhead
    known = sum(count for workload_id, count in lost.pods.items() if workload_id in workloads)
    if known < lost.pods_at_notice or known < sum(lost.pods.values()):
        return whole
    need = Resources()
    for workload_id, count in lost.pods.items():
        need += Resources(*pod_vector(workloads[workload_id])).times(count)
    return need


def _near(offers: Sequence[Offer], node: Node, carried: Sequence[Workload]) -> Sequence[Offer]:
    """Put the lost node's zone first where pods are spread over zones: elsewhere they could not be placed."""
    is_spread = any(rule.topology_key == ZONE_KEY for workload in carried for rule in workload.spread)
    return sorted(offers, key=lambda offer: offer.zone != node.zone) if is_spread else offers


def _able(offers: Sequence[Offer], need: Resources, carried: Sequence[Workload], enough: int) -> list[Offer]:
    """Return the first ``enough`` offers whose node would hold the pods, one for each family and zone."""

    def fitting() -> Iterator[Offer]:
        for offer in offers:
            if need.fits_in(offer.allocatable - offer.daemon_overhead):
                place = place_of_offer(offer, "replacement")
                if all(accepts(workload, place) for workload in carried):
                    yield offer

    return list(islice(first_of_each(fitting(), cell), enough))


def _is_spot(offer: Offer) -> bool:
    return offer.capacity_type is CapacityType.SPOT
