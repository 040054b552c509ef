"""Turns spot launches into on-demand ones until the policy's shares hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from policies.domain.model import BoolArray, IntArray
from policies.domain.packing import Caps, NodeKinds, PodClasses
from policies.domain.policy import Rules
from policies.domain.shapes import CapacityType, Offer

Bought = tuple[int, IntArray]
"""Offer index, pods by class."""


def spot_limit_percent(rules: Rules) -> int:
    """Return the largest share of the new nodes' price that may be spot, in percent."""
    limits = {"on_demand": 0, "hybrid": rules.template.hybrid_spot_percentage}
    return min(rules.spot_percentage, limits.get(rules.template.capacity_type, 100))


def mix_holds(bought: Sequence[Offer], on_demand_kept: int, rules: Rules) -> bool:
    """Tell whether the new nodes keep the policy's share of spot and number of on-demand nodes."""
    spot = [offer.usd_per_hour for offer in bought if offer.capacity_type is CapacityType.SPOT]
    total = sum((offer.usd_per_hour for offer in bought), Decimal(0))
    enough = on_demand_kept + len(bought) - len(spot) >= rules.on_demand_base
    return enough and sum(spot, Decimal(0)) * 100 <= total * spot_limit_percent(rules)


@dataclass(slots=True)
class Mixer:
    """Replaces bought spot nodes by the cheapest on-demand node that holds the same pods."""

    offers: Sequence[Offer]
    classes: PodClasses
    kinds: NodeKinds
    caps: Caps
    rules: Rules
    held: Sequence[Offer] = ()
    """Offers of nodes that the plan buys anyway."""

    def apply(self, bought: Sequence[Bought], on_demand_kept: int) -> list[Bought]:
        """Return the nodes with enough on-demand among them, as far as the offers allow."""
        nodes = list(bought)
        swaps = {i: s for i in range(len(nodes)) if (s := self._swap(nodes[i])) is not None}
        while swaps and not self._enough(nodes, on_demand_kept):
            index = self._next(nodes, swaps, on_demand_kept)
            kind = swaps.pop(index)
            self.caps.add(self.kinds, nodes[index][0], -1)
            self.caps.add(self.kinds, kind, 1)
            nodes[index] = (kind, nodes[index][1])
        return nodes

    def _enough(self, nodes: Sequence[Bought], on_demand_kept: int) -> bool:
        bought = [*self.held, *(self.offers[kind] for kind, _ in nodes)]
        return mix_holds(bought, on_demand_kept, self.rules)

    def _next(self, nodes: Sequence[Bought], swaps: dict[int, int], on_demand_kept: int) -> int:
        """Return the cheapest swap that is enough alone, else the one that brings most on-demand."""

        def extra(index: int) -> Decimal:
            return self.offers[swaps[index]].usd_per_hour - self.offers[nodes[index][0]].usd_per_hour

        def sufficient(index: int) -> bool:
            after = list(nodes)
            after[index] = (swaps[index], nodes[index][1])
            return self._enough(after, on_demand_kept)

        alone = [index for index in swaps if sufficient(index)]
        if alone:
            return min(alone, key=lambda index: (extra(index), index))
        return max(swaps, key=lambda index: (self.offers[swaps[index]].usd_per_hour, -index))

    def _swap(self, node: Bought) -> int | None:
        kind, pods = node
        if not self._is_spot(kind):
            return None
        fits = self._holds(pods) & self._free_pools(kind)
        options = [int(i) for i in np.flatnonzero(fits) if not self._is_spot(int(i))]
        return min(options, key=lambda i: (self.offers[i].usd_per_hour, i), default=None)

    def _holds(self, pods: IntArray) -> BoolArray:
        load = (self.classes.requests * pods[:, None]).sum(axis=0)
        fits: BoolArray = (self.kinds.full_rooms >= load).all(axis=1)
        for index in np.flatnonzero(pods).tolist():
            fits &= self.classes.accepted[index]
        return fits

    def _free_pools(self, kind: int) -> BoolArray:
        same: BoolArray = self.kinds.pools == self.kinds.pools[kind]
        return same | (self.caps.left(self.kinds) > 0)

    def _is_spot(self, kind: int) -> bool:
        return self.offers[kind].capacity_type is CapacityType.SPOT
