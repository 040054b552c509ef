"""Writes a played migration down as a plan: launches, removals, money, risk and reasons."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import numpy as np

from policies.domain.consolidation import Drained, Migration
from policies.domain.matching import accepted_places
from policies.domain.model import RESOURCE_COUNT, BoolArray, place_of_offer, vector
from policies.domain.pending import pending_refusals
from policies.domain.plan import Breakdown, Launch, PlanProposal, Refusal, Removal, Wave
from policies.domain.policy import Rules
from policies.domain.refusals import Code, node_refusal
from policies.domain.scheduling import Board
from policies.domain.selection import substitutes
from policies.domain.shapes import CapacityType, ClusterSnapshot, Node, Offer

_STEP = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Draft:
    """A migration that was played to its end on a board."""

    snapshot: ClusterSnapshot
    board: Board
    migration: Migration
    bought: Mapping[int, Offer]
    """The offer behind each place that may be launched."""
    purchases: tuple[int, ...] = ()
    """Indexes of these offers among those that the target was chosen from."""

    @property
    def launched(self) -> list[int]:
        """Return the places launched, in order."""
        return [place for step in self.migration.steps for place in step.launched]

    @property
    def drained(self) -> list[Drained]:
        """Return the places emptied, in order."""
        return [drained for step in self.migration.steps for drained in step.drained]

    @property
    def staying(self) -> list[Node]:
        """Return the running nodes that are not emptied."""
        gone = {drained.place for drained in self.drained}
        return [node for index, node in enumerate(self.snapshot.nodes) if index not in gone]

    @property
    def price_before(self) -> Decimal:
        """Return the price of the running nodes, USD per hour."""
        return sum((node.usd_per_hour for node in self.snapshot.nodes), Decimal(0))

    @property
    def price_after(self) -> Decimal:
        """Return the price of the nodes after the plan, USD per hour."""
        gone = sum((self.snapshot.nodes[d.place].usd_per_hour for d in self.drained), Decimal(0))
        new = sum((self.bought[place].usd_per_hour for place in self.launched), Decimal(0))
        return self.price_before - gone + new

    @property
    def pods_moved(self) -> int:
        """Return the number of pods that lose their node."""
        return sum(len(drained.moves) for drained in self.drained)


class ProposalWriter:
    """Writes drafts about one snapshot."""

    def __init__(
        self,
        *,
        snapshot: ClusterSnapshot,
        offers: Sequence[Offer],
        allowed: Sequence[Offer],
        rules: Rules,
        now: datetime,
        refused: Mapping[str, Refusal],
        bound: Decimal,
    ) -> None:
        self._snapshot, self._allowed, self._rules, self._now = snapshot, allowed, rules, now
        self._refused, self._bound = refused, bound
        self._before = sum((node.usd_per_hour for node in snapshot.nodes), Decimal(0))
        self._on_demand = {
            o.instance_type: o.usd_per_hour for o in offers if o.capacity_type is CapacityType.ON_DEMAND
        }
        self._risk = {(o.instance_type, o.zone, o.capacity_type): o.interruption_risk for o in offers}
        rows = [vector(offer.allocatable - offer.daemon_overhead) for offer in allowed]
        self._rooms = np.array(rows, np.int64).reshape(-1, RESOURCE_COUNT)
        self._offered = [place_of_offer(offer, f"offer-{index}") for index, offer in enumerate(allowed)]
        self._accepted: list[BoolArray] | None = None

    def write(self, draft: Draft, refusals: Sequence[Refusal]) -> PlanProposal:
        """Return the draft as a proposal."""
        names = {place: f"n{number}" for number, place in enumerate(draft.launched, start=1)}
        full = self._full_pools(draft)
        waves = tuple(
            Wave(
                tuple(self._launch(draft, place, names[place], full) for place in sorted(step.launched)),
                tuple(self._removal(draft, drained) for drained in step.drained),
            )
            for step in draft.migration.steps
        )
        after = draft.price_after
        nodes_after = len(self._snapshot.nodes) - len(draft.drained) + len(draft.launched)
        return PlanProposal(
            cluster_id=self._snapshot.cluster_id,
            quoted_at=self._now,
            waves=waves,
            refusals=(
                *refusals,
                *self._refused.values(),
                *self._kept(draft),
                *pending_refusals(draft.board, draft.migration.unplaced, self._allowed),
            ),
            usd_per_hour_before=self._before,
            usd_per_hour_after=after,
            lower_bound_usd_per_hour=min(self._bound, after),
            breakdown=self._breakdown(draft),
            risk=self._mean_risk(draft),
            nodes_before=len(self._snapshot.nodes),
            nodes_after=nodes_after,
            pods_moved=draft.pods_moved,
        )

    def write_empty(self, refusals: Sequence[Refusal]) -> PlanProposal:
        """Return the proposal to do nothing, for the reasons given."""
        nodes = len(self._snapshot.nodes)
        draft = Draft(self._snapshot, Board((), (), {}), Migration([], {}, {}), {})
        return PlanProposal(
            cluster_id=self._snapshot.cluster_id,
            quoted_at=self._now,
            waves=(),
            refusals=(*refusals, *self._refused.values()),
            usd_per_hour_before=self._before,
            usd_per_hour_after=self._before,
            lower_bound_usd_per_hour=min(self._bound, self._before),
            breakdown=Breakdown(Decimal(0), Decimal(0)),
            risk=self._mean_risk(draft),
            nodes_before=nodes,
            nodes_after=nodes,
            pods_moved=0,
        )

    def _launch(self, draft: Draft, place: int, name: str, full: BoolArray) -> Launch:
        offer = draft.bought[place]
        board = draft.board
        carried = np.flatnonzero(board.counts[:, place]).tolist()
        return Launch(
            id=name,
            instance_type=offer.instance_type,
            zone=offer.zone,
            zone_id=offer.zone_id,
            capacity_type=offer.capacity_type,
            usd_per_hour=offer.usd_per_hour,
            interruption_risk=offer.interruption_risk,
            alternatives=substitutes(offer, self._allowed, self.holds(draft, place) & ~full, self._rules),
            pods=tuple((board.workloads[w].id, int(board.counts[w, place])) for w in carried),
        )

    def holds(self, draft: Draft, place: int) -> BoolArray:
        """Return which allowed offers hold the pods that land on the place."""
        board, carried = draft.board, np.flatnonzero(draft.board.counts[:, place]).tolist()
        if self._accepted is None:
            self._accepted = accepted_places(board.workloads, self._offered)
        load = (board.requests * board.counts[:, [place]]).sum(axis=0)
        holds: BoolArray = (self._rooms >= load).all(axis=1)
        for workload in carried:
            holds &= self._accepted[workload]
            for key in board.topology.keys(workload):
                own = board.places[place].labels.get(key)
                holds &= np.array([offered.labels.get(key) == own for offered in self._offered], bool)
        return holds

    def _full_pools(self, draft: Draft) -> BoolArray:
        """Return which allowed offers belong to a pool that has its full share after the plan."""
        gone = {drained.place for drained in draft.drained}
        pools = Counter(
            (n.instance_type, n.zone) for i, n in enumerate(self._snapshot.nodes) if i not in gone
        )
        pools.update((draft.bought[p].instance_type, draft.bought[p].zone) for p in draft.launched)
        cap = max(1, sum(pools.values()) * self._rules.pool_share_percent // 100)
        return np.array([pools[(o.instance_type, o.zone)] >= cap for o in self._allowed], bool)

    def _removal(self, draft: Draft, drained: Drained) -> Removal:
        node = self._snapshot.nodes[drained.place]
        landed = sum(target in draft.bought for _, _, target in drained.moves)
        spot_landed = sum(
            target in draft.bought and draft.bought[target].capacity_type is CapacityType.SPOT
            for _, _, target in drained.moves
        )
        total = len(drained.moves)
        pods, s = ("Its pod", "s") if total == 1 else (f"Its {total} pods", "")
        if not total:
            code, reason = "empty", "Runs nothing but daemon sets."
        elif landed * 2 < total:
            code, reason = "underused", f"{pods} fit{s} on nodes that run anyway."
        elif node.capacity_type is CapacityType.ON_DEMAND and spot_landed * 2 >= landed:
            code, reason = "replaced_by_spot", f"{pods} run{s} for less, mostly on new spot nodes."
        else:
            code, reason = "replaced_by_cheaper", f"{pods} run{s} for less, mostly on new nodes."
        return Removal(node.id, node.instance_id, node.usd_per_hour, code, reason, total)

    def _kept(self, draft: Draft) -> list[Refusal]:
        """Return why each node stays that could have gone."""
        gone = {drained.place for drained in draft.drained}
        refusals = []
        for index, node in enumerate(self._snapshot.nodes):
            if index in draft.migration.kept:
                refusals.append(node_refusal(node, *draft.migration.kept[index]))
            elif index not in gone and node.id not in self._refused:
                reason = "Kept: nothing that could replace it costs enough less."
                refusals.append(node_refusal(node, Code.WORTH_KEEPING, reason))
        return refusals

    def _breakdown(self, draft: Draft) -> Breakdown:
        """Split the saving: spot for on-demand at equal size first, then fewer and smaller nodes."""
        saved = self._before - draft.price_after
        new = [draft.bought[place] for place in draft.launched]
        listed = [self._on_demand.get(offer.instance_type, offer.usd_per_hour) for offer in new]
        total = sum(listed, Decimal(0))
        discount = sum(
            (
                price - offer.usd_per_hour
                for price, offer in zip(listed, new, strict=True)
                if offer.capacity_type is CapacityType.SPOT
            ),
            Decimal(0),
        )
        replaced = sum(
            (
                self._snapshot.nodes[drained.place].usd_per_hour
                for drained in draft.drained
                if self._snapshot.nodes[drained.place].capacity_type is CapacityType.ON_DEMAND
            ),
            Decimal(0),
        )
        by_spot = (replaced * discount / total).quantize(_STEP) if total else Decimal(0)
        by_spot = max(Decimal(0), min(by_spot, saved))
        return Breakdown(spot_replacement=by_spot, bin_packing=saved - by_spot)

    def _mean_risk(self, draft: Draft) -> float:
        """Return the price-weighted mean interruption risk of the nodes after the draft."""
        gone = {drained.place for drained in draft.drained}
        priced = [
            (float(n.usd_per_hour), self._risk.get((n.instance_type, n.zone, n.capacity_type), 0.0))
            for index, n in enumerate(self._snapshot.nodes)
            if index not in gone
        ]
        new = [draft.bought[place] for place in draft.launched]
        priced += [(float(offer.usd_per_hour), offer.interruption_risk) for offer in new]
        total = sum(price for price, _ in priced)
        return sum(price * risk for price, risk in priced) / total if total else 0.0
