"""Proposes the cheapest safe way from a running cluster to a smaller bill."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import numpy as np

from policies.domain.bound import lower_bound
from policies.domain.checker import check
from policies.domain.consolidation import Mover
from policies.domain.dispersal import Dispersal, decrowded
from policies.domain.eligibility import pods_by_node, refused_nodes, refused_workloads, under_policy
from policies.domain.frontier import Frontier
from policies.domain.gate import NOTHING_CHEAPER, Exchange, Shortfall, shortfall
from policies.domain.mix import mix_holds
from policies.domain.model import DAEMON_KINDS, place_of_node, place_of_offer
from policies.domain.pending import pending_refusals
from policies.domain.plan import Breakdown, PlanProposal, Refusal
from policies.domain.policy import Rules
from policies.domain.proposal import Draft, ProposalWriter
from policies.domain.refusals import NO_PLACE, Code, node_refusal
from policies.domain.scheduling import Board
from policies.domain.selection import allowed_offers, effective_prices, worthwhile
from policies.domain.shapes import CapacityType, ClusterSnapshot, Offer
from policies.domain.target import Approach, Target, TargetFinder
from policies.domain.watch import Watch, unwatched

_ATTEMPTS = (
    (Approach.GUIDED, 0.0),
    (Approach.GUIDED, 0.02),
    (Approach.GUIDED, 0.05),
    (Approach.FRESH, 0.0),
    (Approach.SHRINK, 0.0),
    (Approach.GUIDED, 0.12),
    (Approach.FRESH, 0.08),
    (Approach.SHRINK, 0.08),
    (Approach.FRESH, 0.20),
)
"""Ways to look for a target: which nodes stay, and the share left free beyond the headroom."""
_ATTEMPTS_WHEN_LARGE = ((Approach.FRESH, 0.02), (Approach.GUIDED, 0.05), (Approach.FRESH, 0.05))
_LARGE_PODS = 4_000
_SHARES = (0.15, 0.35, 1.0)
"""Largest shares of the movable pods that the targets along the frontier move."""
_EFFORT = 12
"""Plays of the whole cluster that the search spends for each of these shares."""
_TOP_UPS = 2
"""How often a target is tried again with more purchases for pods that found no place."""
_WORTH_SOLVING = 6
"""From so many purchases on, targets whose purchases are solved for are tried as well."""
_SPARE_PODS = (0.5, 1.5)
"""Room for so many mean pods is left free on each node of these."""
_SHORTENED = 2
"""How many drafts that are not valid as a whole are tried again with fewer waves."""


@dataclass(frozen=True, slots=True)
class Potential:
    """What a cluster could save now, in USD per hour."""

    usd_per_hour_before: Decimal
    usd_per_hour_after: Decimal
    breakdown: Breakdown


def propose(
    *,
    snapshot: ClusterSnapshot,
    offers: Sequence[Offer],
    rules: Rules,
    now: datetime,
    watch: Watch = unwatched,
) -> PlanProposal:
    """Return the cheapest plan found that the checker accepts, or an empty one that says why.

    The plan's price after is never above its price before, and it never raises for lack of pools.
    ``watch`` hears of each step before it begins; what it raises ends the search.
    """
    return _Search(snapshot, offers, rules, now, watch).run()


def potential(
    *, snapshot: ClusterSnapshot, offers: Sequence[Offer], rules: Rules, now: datetime
) -> Potential:
    """Return what ``propose`` would save, however little, without the thresholds of the policy."""
    plan = propose(snapshot=snapshot, offers=offers, rules=rules.without_thresholds(), now=now)
    return Potential(plan.usd_per_hour_before, plan.usd_per_hour_after, plan.breakdown)


def plans_along_frontier(
    *,
    snapshot: ClusterSnapshot,
    offers: Sequence[Offer],
    rules: Rules,
    now: datetime,
    shares: Sequence[float],
    effort: int,
) -> list[PlanProposal]:
    """Return for each largest share of movable pods moved (0 to 1) the cheapest plan found, checked or not.

    ``effort`` is the number of pods placed in play for each share; no threshold of the policy applies.
    """
    return _Search(snapshot, offers, rules, now, unwatched).along_frontier(shares, effort)


class _Search:
    """One run of the optimizer on one snapshot."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        offers: Sequence[Offer],
        rules: Rules,
        now: datetime,
        watch: Watch,
    ) -> None:
        self._watch = watch
        self._snapshot = under_policy(snapshot, rules)
        self._offers, self._rules, self._now = offers, rules, now
        self._workloads = [w for w in self._snapshot.workloads if w.kind not in DAEMON_KINDS]
        self._pods = pods_by_node(self._snapshot)
        self._refused = refused_nodes(self._snapshot, rules, now)
        self._allowed, self._pool_refusals = allowed_offers(offers, rules, now)
        prices = effective_prices(self._allowed, rules)
        enough = max(2, -(-100 // max(1, rules.pool_share_percent)) // 2)
        self._buyable = worthwhile(self._allowed, prices, self._workloads, enough)
        self._places = [place_of_node(node) for node in self._snapshot.nodes]
        self._pod_count = sum(sum(pods.values()) for pods in self._pods.values())
        self._exchange = Exchange(self._allowed, rules)
        self._row = {workload.id: index for index, workload in enumerate(self._workloads)}

    def run(self) -> PlanProposal:
        """Return the best valid proposal."""
        self._watch("Bounding the cost from below", 0.0)
        writer = self._writer(lower_bound(self._snapshot, self._allowed, self._refused, self._rules))
        common = [*refused_workloads(self._snapshot, self._rules), *self._pool_refusals]
        drafts = list(self._drafts())
        queue = [draft for draft in drafts if self._worth_it(draft)]
        failed = 0
        while queue:
            draft = min(queue, key=lambda draft: (draft.price_after, draft.pods_moved))
            queue.remove(draft)
            self._watch("Checking the plan step by step", 0.9)
            for variant in self._variants(draft, writer):
                proposal = writer.write(variant, common)
                if not check(
                    snapshot=self._snapshot, proposal=proposal, offers=self._offers, rules=self._rules
                ):
                    return proposal
            failed += 1
            if failed <= _SHORTENED:
                queue += self._shorter(draft)
        reasons = [*self._stay_reasons(drafts, unsafe=failed > 0), *self._waiting_reasons()]
        return writer.write_empty([*common, *reasons])

    def _variants(self, draft: Draft, writer: ProposalWriter) -> Iterator[Draft]:
        """Yield the draft with its workloads spread over more pools, if that is wanted, then as it is."""
        if self._rules.spread_over_pools:
            dispersed = Dispersal(self._allowed, self._rules, writer.holds).dispersed(draft)
            if dispersed.bought != draft.bought and self._worth_it(dispersed):
                yield dispersed
        yield draft

    def along_frontier(self, shares: Sequence[float], effort: int) -> list[PlanProposal]:
        """Return the plan for each share of pods moved."""
        writer = self._writer(Decimal(0))
        return [writer.write(self._draft(target), []) for target in self._frontier(shares, effort)]

    def _frontier(self, shares: Sequence[float], effort: int) -> list[Target]:
        """Return the targets for shares of movable pods moved, once pending pods have their places."""
        board = Board(self._workloads, self._places, self._pods)
        for workload, count in self._pending().items():
            board.admit(workload, count)
        found = Frontier(board, movable=self._movable(), offers=self._buyable, rules=self._rules)
        return found.targets(shares, effort=effort)

    def _movable(self) -> list[int]:
        return [i for i, node in enumerate(self._snapshot.nodes) if node.id not in self._refused]

    def _writer(self, bound: Decimal) -> ProposalWriter:
        return ProposalWriter(
            snapshot=self._snapshot,
            offers=self._offers,
            allowed=self._allowed,
            rules=self._rules,
            now=self._now,
            refused=self._refused,
            bound=bound,
        )

    def _shorter(self, draft: Draft) -> Iterator[Draft]:
        """Yield what is left of a draft when later waves are dropped, if that is worth proposing."""
        steps = draft.migration.steps
        for length in sorted({len(steps) * 3 // 4, len(steps) // 2, len(steps) // 4}, reverse=True):
            doomed = tuple(drained.place for step in steps[:length] for drained in step.drained)
            shorter = self._draft(Target(doomed, draft.purchases))
            if self._worth_it(shorter):
                yield shorter

    def _drafts(self) -> Iterator[Draft]:
        """Yield what each attempt leads to."""
        movable = self._movable()
        if not movable:
            return
        finder = TargetFinder(
            workloads=self._workloads,
            places=self._places,
            movable=movable,
            counts=Board(self._workloads, self._places, self._pods).counts,
            pending=self._pending(),
            offers=self._buyable,
            rules=self._rules,
        )
        large = self._pod_count > _LARGE_PODS
        yield from self._drafts_with_few_moves(movable, large=large)
        seen: set[Target] = set()
        attempts = _ATTEMPTS_WHEN_LARGE if large else _ATTEMPTS
        purchases = 0
        for number, (approach, slack) in enumerate(attempts):
            self._watch("Searching for cheaper nodes", 0.1 + 0.8 * number / len(attempts))
            target = finder.find(approach, slack)
            if target.doomed and target not in seen:
                seen.add(target)
                draft = self._topped_up(finder, target, slack, buys=approach is not Approach.SHRINK)
                yield draft
                purchases = max(purchases, len(target.purchases))
                if large and not draft.migration.kept and self._worth_it(draft):
                    break
        if purchases >= _WORTH_SOLVING:
            for spare_pods in _SPARE_PODS[-1:] if large else _SPARE_PODS:
                yield self._topped_up(finder, finder.solve(spare_pods), 0.0, buys=True)

    def _drafts_with_few_moves(self, movable: Sequence[int], *, large: bool) -> Iterator[Draft]:
        """Yield what deleting empty nodes leads to, and targets along the frontier of cost against moves."""
        carried = [sum(self._pods.get(self._snapshot.nodes[place].id, {}).values()) for place in movable]
        empty = tuple(place for place, pods in zip(movable, carried, strict=True) if not pods)
        if empty:
            yield self._draft(Target(empty, (), due=()))
        if large or not any(carried):
            return
        self._watch("Weighing savings against moves", 0.05)
        for target in self._frontier(_SHARES, effort=_EFFORT * sum(carried)):
            if target.doomed:
                yield self._draft(target)

    def _topped_up(self, finder: TargetFinder, target: Target, slack: float, *, buys: bool) -> Draft:
        """Play the target; while places keep pods for want of room, try it with more purchases."""
        best = self._draft(target)
        for _ in range(_TOP_UPS if buys else 0):
            kept = best.migration.kept.items()
            stuck = [place for place, (code, _) in kept if code in {*NO_PLACE, Code.HEADROOM}]
            if not stuck:
                break
            target = finder.top_up(target, stuck, slack)
            draft = self._draft(target)
            if draft.price_after >= best.price_after:
                break
            best = draft
        return best

    def _draft(self, target: Target) -> Draft:
        """Play the way to the target, without nodes that new spot nodes would replace in vain."""
        vain: dict[int, Shortfall] = {}
        while True:
            left = tuple(place for place in target.doomed if place not in vain)
            draft = self._mixed_draft(Target(left, target.purchases) if vain else target)
            found = self._exchange.in_vain(draft)
            if not found:
                draft.migration.kept.update(sorted(vain.items()))
                return draft
            vain |= found

    def _mixed_draft(self, target: Target) -> Draft:
        """Play the way to the target on a board, with on-demand nodes first where the mix needs them."""
        draft = self._play(target, on_demand_first=False)
        if crowd := decrowded(draft, self._buyable, self._rules):
            draft = self._play(crowd, on_demand_first=False)
            target = Target(target.doomed, draft.purchases)
        gone = {drained.place for drained in draft.drained}
        kept = [place for index, place in enumerate(self._places) if index not in gone]
        on_demand = sum(place.capacity_type is CapacityType.ON_DEMAND for place in kept)
        if mix_holds([draft.bought[place] for place in draft.launched], on_demand, self._rules):
            return draft
        return self._play(target, on_demand_first=True)

    def _play(self, target: Target, *, on_demand_first: bool) -> Draft:
        bought = [self._buyable[index] for index in target.purchases]
        if target.due is None:
            bought = _interleaved(bought)
        places = [*self._places, *(place_of_offer(offer, f"launch/{i}") for i, offer in enumerate(bought))]
        board = Board(self._workloads, places, self._pods)
        start = len(self._places)
        launches = range(start, len(places))
        on_demand = {start + i for i, o in enumerate(bought) if o.capacity_type is CapacityType.ON_DEMAND}
        doomed = self._ordered(target.doomed, board) if target.due is None else target.doomed
        mover = Mover(board, doomed=doomed, launches=launches, rules=self._rules, due=target.due)
        migration = mover.run(self._pending(), frozenset(on_demand if on_demand_first else ()))
        offers = dict(zip(launches, bought, strict=True))
        return Draft(self._snapshot, board, migration, offers, target.purchases)

    def _ordered(self, doomed: Sequence[int], board: Board) -> list[int]:
        """Return empty nodes first, then those whose pods are hardest to place, then the dearest a pod."""
        choice = np.array([int(mask[len(self._places) :].sum()) for mask in board.accepted])
        size = board.requests[:, 0] + board.requests[:, 1] / 4

        def key(index: int) -> tuple[bool, int, int, Decimal, str]:
            node = self._snapshot.nodes[index]
            carried = np.flatnonzero(board.counts[:, index])
            moved = int(board.counts[:, index].sum())
            fewest = int(choice[carried].min(initial=len(board.places)))
            largest = -int(size[carried].max(initial=0)) // 500
            return moved > 0, fewest, largest, -node.usd_per_hour / (1 + moved), node.id

        return sorted(doomed, key=key)

    def _pending(self) -> dict[int, int]:
        return {
            self._row[workload_id]: count
            for workload_id, count in sorted(self._snapshot.pending.items())
            if workload_id in self._row and count > 0
        }

    def _waiting_reasons(self) -> Iterator[Refusal]:
        """Yield why pending pods would stay pending on the cluster as it is."""
        board = Board(self._workloads, self._places, self._pods)
        left = {row: board.admit(row, count) for row, count in self._pending().items()}
        unplaced = {row: count for row, count in left.items() if count}
        yield from pending_refusals(board, unplaced, self._allowed)

    def _worth_it(self, draft: Draft) -> bool:
        return shortfall(draft, self._pod_count, self._rules) is None

    def _stay_reasons(self, drafts: Sequence[Draft], *, unsafe: bool) -> list[Refusal]:
        """Return why nothing is proposed, for the cluster and for each node."""
        best = min(drafts, key=lambda draft: draft.price_after, default=None)
        lacking = best and shortfall(best, self._pod_count, self._rules)
        if unsafe:
            code, reason = Code.PLAN_UNSAFE, "No plan found keeps every rule at every step."
        else:
            code, reason = lacking or NOTHING_CHEAPER
        spared = {
            place: why
            for draft in drafts
            for place, why in draft.migration.kept.items()
            if why[0] in (Code.SPOT_TO_SPOT, Code.FALLBACK)
        }
        common = code, f"Kept: {reason[0].lower()}{reason[1:]}"
        return [
            Refusal("cluster", self._snapshot.cluster_name, code.value, reason),
            *(
                node_refusal(self._snapshot.nodes[place], *spared.get(place, common))
                for place in self._movable()
            ),
        ]


def _interleaved(offers: Sequence[Offer]) -> list[Offer]:
    """Return the offers with on-demand ones at even distances, so that every wave has its part."""
    groups = [[o for o in offers if o.capacity_type is capacity_type] for capacity_type in CapacityType]
    placed = [((i + 0.5) / len(group), n, i) for n, group in enumerate(groups) for i in range(len(group))]
    return [groups[n][i] for _, n, i in sorted(placed)]
