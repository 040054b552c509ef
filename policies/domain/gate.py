"""Whether what a plan saves is worth what it disturbs, and which spot nodes are worth exchanging."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from policies.domain.consolidation import Drained
from policies.domain.model import RESOURCE_COUNT, vector
from policies.domain.policy import Rules
from policies.domain.proposal import Draft
from policies.domain.refusals import Code
from policies.domain.shapes import CapacityType, Offer

HOURS_PER_MONTH = 730
Shortfall = tuple[Code, str]
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


class SpotExchange:
    """Tells which spot nodes a draft would replace by other spot nodes without enough use.

    An exchange is worth it when the new nodes cost less by the policy's margin, counted by the CPU that
    they take over, and would still if each came from any of several pools.
    """

    def __init__(self, offers: Sequence[Offer], rules: Rules) -> None:
        """``offers`` are the pools that may be bought from."""
        self._rules = rules
        spot = [offer for offer in offers if offer.capacity_type is CapacityType.SPOT]
        rooms = [vector(offer.allocatable - offer.daemon_overhead) for offer in spot]
        self._rooms = np.array(rooms, np.int64).reshape(len(spot), RESOURCE_COUNT)
        self._prices = np.array([float(offer.usd_per_hour) for offer in spot])

    def in_vain(self, draft: Draft) -> frozenset[int]:
        """Return the places of the spot nodes whose pods would mostly go to new spot nodes in vain."""
        exchanged = [drained for drained in draft.drained if _is_exchanged(draft, drained)]
        old = sum(float(draft.snapshot.nodes[drained.place].usd_per_hour) for drained in exchanged)
        most = old * (1 - self._rules.spot_to_spot_saving_percent / 100)
        taken_over = _cpu_by_target(draft, exchanged)
        carried = _cpu_by_target(draft, draft.drained)
        new = {
            place: float(draft.bought[place].usd_per_hour) * millis / max(carried[place], 1)
            for place, millis in taken_over.items()
            if _is_new_spot(draft, place)
        }
        bearable = most / max(sum(new.values()), 1e-9)
        if not new or (bearable >= 1 and all(self._has_choice(draft, place, bearable) for place in new)):
            return frozenset()
        return frozenset(drained.place for drained in exchanged)

    def reason(self) -> Shortfall:
        """Return why such a node stays."""
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


def _is_exchanged(draft: Draft, drained: Drained) -> bool:
    landed = sum(_is_new_spot(draft, target) for _, _, target in drained.moves)
    is_spot = draft.snapshot.nodes[drained.place].capacity_type is CapacityType.SPOT
    return is_spot and landed > 0 and landed * 2 >= len(drained.moves)


def _cpu_by_target(draft: Draft, drained: Iterable[Drained]) -> Counter[int]:
    """Return the milli-CPU that moves to each place."""
    cpu: Counter[int] = Counter()
    for each in drained:
        for workload, _, target in each.moves:
            cpu[target] += int(draft.board.requests[workload, 0])
    return cpu
