"""Whether what a plan saves is worth what it disturbs, and which spot nodes are worth exchanging."""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np

from policies.domain.consolidation import Drained
from policies.domain.eligibility import is_own_on_demand
from policies.domain.model import RESOURCE_COUNT, vector
from policies.domain.policy import Rules
from policies.domain.proposal import Draft
from policies.domain.refusals import Code
from policies.domain.reversion import LEAST_GAIN, worth_reverting
from policies.domain.selection import effective_prices
from policies.domain.shapes import CapacityType, Offer

HOURS_PER_MONTH = 730
Shortfall = tuple[Code, str]
_RETURN_IN_VAIN: Shortfall = (
    Code.FALLBACK,
    f"Kept: spot nodes, interruptions charged, would not be {LEAST_GAIN:.0%} cheaper than it.",
)
NOTHING_CHEAPER = Code.NOTHING_CHEAPER, "No allowed set of nodes that holds these pods costs less."


def shortfall(draft: Draft, pods: int, rules: Rules) -> Shortfall | None:
    """Return why the policy does not want the plan, or None; ``pods`` run in the whole cluster.

    A plan that only deletes empty nodes disturbs nobody, so that its saving may be any share of the bill.
    """
    saved, before = draft.price_before - draft.price_after, draft.price_before
    if saved <= 0:
        return NOTHING_CHEAPER
    best = f"The best plan saves {saved:.4f} USD per hour"
    if saved < rules.min_saving_usd_per_hour:
        return Code.SAVING_TOO_SMALL, f"{best}, less than the policy asks for."
    if not draft.pods_moved:
        return None
    per_month = rules.min_saving_usd_per_month
    is_much = per_month is not None and saved * HOURS_PER_MONTH >= per_month
    if not is_much and saved * 100 < before * rules.min_saving_percent:
        return Code.SAVING_TOO_SMALL, f"{best}, less than the policy asks for."
    saving_share, moved_share = float(saved / before), draft.pods_moved / max(pods, 1)
    if saving_share < rules.min_saving_per_disruption * moved_share:
        return Code.DISRUPTS_TOO_MUCH, (
            f"{best}, {saving_share:.1%} of the bill, by moving {moved_share:.1%} of the pods; "
            f"the policy asks for {rules.min_saving_per_disruption:g} times the share of pods moved."
        )
    return None


class Exchange:
    """Tells which nodes a draft would replace by new spot nodes without enough use.

    Replacing spot nodes is worth it when the new ones cost less by the policy's margin, counted by the CPU
    that they take over, and would still if each came from any of several pools. Replacing on-demand nodes
    that Spotopt launched is worth it when the new ones cost less with their interruptions charged.
    """

    def __init__(self, offers: Sequence[Offer], rules: Rules) -> None:
        """``offers`` are the pools that may be bought from."""
        self._rules = rules
        spot = [offer for offer in offers if offer.capacity_type is CapacityType.SPOT]
        rooms = [vector(offer.allocatable - offer.daemon_overhead) for offer in spot]
        self._rooms = np.array(rooms, np.int64).reshape(len(spot), RESOURCE_COUNT)
        self._prices = np.array([float(offer.usd_per_hour) for offer in spot])
        self._expected = {
            o.pool: Decimal(usd) for o, usd in zip(offers, effective_prices(offers, rules), strict=True)
        }

    def in_vain(self, draft: Draft) -> dict[int, Shortfall]:
        """Return why to keep each node whose pods would mostly go to new spot nodes in vain, by place."""
        nodes = draft.snapshot.nodes
        moved = [drained for drained in draft.drained if _goes_to_new_spot(draft, drained)]
        spot = [each for each in moved if nodes[each.place].capacity_type is CapacityType.SPOT]
        fallback = [each for each in moved if is_own_on_demand(nodes[each.place])]
        vain: dict[int, Shortfall] = {}
        if spot and not self._is_spot_worth_it(draft, spot):
            vain |= dict.fromkeys((each.place for each in spot), self._spot_reason())
        if fallback and not self._is_return_worth_it(draft, fallback):
            vain |= dict.fromkeys((each.place for each in fallback), _RETURN_IN_VAIN)
        return vain

    def _is_spot_worth_it(self, draft: Draft, exchanged: Sequence[Drained]) -> bool:
        old = sum(float(draft.snapshot.nodes[drained.place].usd_per_hour) for drained in exchanged)
        most = old * (1 - self._rules.spot_to_spot_saving_percent / 100)
        shares = _shares_taken_over(draft, exchanged)
        new = sum(float(draft.bought[place].usd_per_hour) * share for place, share in shares.items())
        bearable = most / max(new, 1e-9)
        return bearable >= 1 and all(self._has_choice(draft, place, bearable) for place in shares)

    def _is_return_worth_it(self, draft: Draft, returning: Sequence[Drained]) -> bool:
        old = sum((draft.snapshot.nodes[drained.place].usd_per_hour for drained in returning), Decimal(0))
        shares = _shares_taken_over(draft, returning)
        new = sum(
            (self._expected[draft.bought[place].pool] * Decimal(share) for place, share in shares.items()),
            Decimal(0),
        )
        return worth_reverting(usd_per_hour=old, replacement_usd_per_hour=new)

    def _spot_reason(self) -> Shortfall:
        return Code.SPOT_TO_SPOT, (
            f"Kept: other spot nodes would not be {self._rules.spot_to_spot_saving_percent} % cheaper "
            f"from each of {self._rules.spot_to_spot_pools} pools."
        )

    def _has_choice(self, draft: Draft, place: int, bearable: float) -> bool:
        """Tell whether enough pools hold what the place carries at no more than so many times its price."""
        load = draft.board.requests.T @ draft.board.counts[:, place]
        holds = (self._rooms >= load).all(axis=1)
        cheap = self._prices <= float(draft.bought[place].usd_per_hour) * bearable
        return int((holds & cheap).sum()) >= self._rules.spot_to_spot_pools


def _is_new_spot(draft: Draft, place: int) -> bool:
    return place in draft.bought and draft.bought[place].capacity_type is CapacityType.SPOT


def _goes_to_new_spot(draft: Draft, drained: Drained) -> bool:
    landed = sum(_is_new_spot(draft, target) for _, _, target in drained.moves)
    return landed > 0 and landed * 2 >= len(drained.moves)


def _shares_taken_over(draft: Draft, drained: Sequence[Drained]) -> dict[int, float]:
    """Return which part of the CPU that each new spot node takes on comes from the drained nodes."""
    carried = _cpu_by_target(draft, draft.drained)
    return {
        place: millis / max(carried[place], 1)
        for place, millis in _cpu_by_target(draft, drained).items()
        if _is_new_spot(draft, place)
    }


def _cpu_by_target(draft: Draft, drained: Iterable[Drained]) -> Counter[int]:
    """Return the milli-CPU that moves to each place."""
    cpu: Counter[int] = Counter()
    for each in drained:
        for workload, _, target in each.moves:
            cpu[target] += int(draft.board.requests[workload, 0])
    return cpu
