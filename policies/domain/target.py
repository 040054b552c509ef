"""Chooses which nodes stay and which are bought, guided by the linear relaxation."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from policies.domain.demand import Demand, Lot
from policies.domain.mix import Mixer
from policies.domain.model import (
    HOSTNAME_KEY,
    RESOURCE_COUNT,
    BoolArray,
    FloatArray,
    IntArray,
    Place,
    place_of_offer,
    pod_vector,
    vector,
)
from policies.domain.packing import Caps, NodeKinds, PodClasses, buy_nodes, fill_existing
from policies.domain.policy import Rules
from policies.domain.purchasing import Market, buy, pool_cap
from policies.domain.relaxation import Columns, Relaxed, relax
from policies.domain.selection import effective_prices
from policies.domain.shapes import CapacityType, Offer, Workload

UNLIMITED = 1_000_000
STAY_DISCOUNT = 0.05
"""A running node is preferred to an equal new one that is up to this share cheaper."""
LARGEST_NODE_SHARE = 3
"""No new node is so large that fewer than this many would carry the whole cluster."""
CROWDING = 8.0
"""Pods that few places accept get this many times the slack, because others crowd these places too."""
_ARTIFICIAL_PRICE = 1000.0
_USED = 0.5
_POD_SLOTS = 2
"""Position of the pod slots in a vector of resources."""


class Approach(StrEnum):
    """How to decide which nodes stay."""

    GUIDED = "guided"
    """Those that the relaxation would rather use than buy."""
    FRESH = "fresh"
    """None that may go."""
    SHRINK = "shrink"
    """As many as needed; nothing is bought."""


@dataclass(frozen=True, slots=True)
class Target:
    """The node set to reach: places to empty, and offers to buy (indexes)."""

    doomed: tuple[int, ...]
    purchases: tuple[int, ...]
    due: tuple[int, ...] | None = None
    """For each purchase the doomed place before which it must be there; then all are in their order."""


class TargetFinder:
    """Finds target node sets for one snapshot; ``places`` are the running nodes in order."""

    def __init__(
        self,
        *,
        workloads: Sequence[Workload],
        places: Sequence[Place],
        movable: Sequence[int],
        counts: IntArray,
        pending: Mapping[int, int],
        offers: Sequence[Offer],
        rules: Rules,
    ) -> None:
        self._workloads, self._places, self._offers, self._rules = workloads, places, offers, rules
        self._movable = np.array(movable, np.int64)
        self._counts, self._pending = counts, pending
        self._requests = np.array([pod_vector(w) for w in workloads], np.int64).reshape(-1, RESOURCE_COUNT)
        offered = [place_of_offer(offer, f"offer-{index}") for index, offer in enumerate(offers)]
        self._all = [*offered, *places]
        self._demand = Demand(workloads, self._all, len(offers))
        self._rooms = np.array([vector(place.room) for place in self._all], np.int64).reshape(
            -1, RESOURCE_COUNT
        )
        self._allocatable = np.array([vector(p.allocatable) for p in self._all], np.int64).reshape(
            -1, RESOURCE_COUNT
        )
        self._prices = np.array(effective_prices(offers, rules))
        self._bearable = self._bearable_offers()

    def find(self, approach: Approach, slack: float) -> Target:
        """Return a target, bought greedily, that leaves ``slack`` of each node free beyond the headroom."""
        doomed, classes, left = self._leaving(approach, slack)
        if approach is Approach.SHRINK:
            return Target(doomed, ())
        market = self._market(Target(doomed, ()), slack)
        return Target(doomed, tuple(self._buy(self._wanted(classes, left, slack), market)))

    def solve(self, spare_pods: float) -> Target:
        """Return a guided target whose purchases are near the optimum, with room for so many pods spare.

        The scheduler fills each node up to less than one pod: what is lost is a matter of nodes, not of
        their size, so that spare room is counted in pods of mean size on each node.
        """
        doomed, classes, left = self._leaving(Approach.GUIDED, 0.0)
        wanted, market = self._wanted(classes, left, 0.0), self._market(Target(doomed, ()), 0.0)
        spare = spare_pods * (left @ wanted.requests) / max(1, int(left.sum()))
        spare[_POD_SLOTS] = 0.0
        rooms = np.maximum(market.rooms - spare.astype(np.int64), 0)
        return Target(doomed, tuple(buy(wanted, replace(market, rooms=rooms), self._rules)))

    def _leaving(self, approach: Approach, slack: float) -> tuple[tuple[int, ...], PodClasses, IntArray]:
        """Return places to empty, classes of their pods and pending ones, and how many find no room."""
        stays = self._staying(approach, slack)
        doomed = np.array([index for index in self._movable if index not in stays], np.int64)
        loads = self._counts[:, doomed].sum(axis=1)
        for workload, count in self._pending.items():
            loads[workload] += count
        remaining = [index for index in range(len(self._places)) if index not in set(doomed.tolist())]
        classes = self._classes(loads, remaining)
        free = self._scaled(slack)[len(self._offers) :][remaining] - self._load_of(remaining)
        open_now = np.array([self._places[index].schedulable for index in remaining], bool)
        here = [mask[len(self._offers) :][remaining] & open_now for mask in classes.accepted]
        return tuple(doomed.tolist()), classes, fill_existing(classes, free, here)

    def _staying(self, approach: Approach, slack: float) -> frozenset[int]:
        """Return the movable places that the relaxation keeps."""
        if approach is Approach.FRESH or not len(self._movable):
            return frozenset()
        fixed = [i for i in range(len(self._places)) if i not in set(self._movable.tolist())]
        loads = self._counts[:, self._movable].sum(axis=1)
        for workload, count in self._pending.items():
            loads[workload] += count
        classes = self._classes(loads, fixed)
        offered = self._prices if approach is Approach.GUIDED else np.full(len(self._offers), 1e6)
        columns = self._columns(offered, fixed, self._movable, slack)
        order = [*range(len(self._offers)), *(len(self._offers) + np.array([*fixed, *self._movable]))]
        accepted = [np.append(mask[np.array(order, np.int64)], True) for mask in classes.accepted]
        used = relax(classes.requests, classes.counts, accepted, columns).used
        start = len(self._offers) + len(fixed)
        return frozenset(
            int(place) for place, share in zip(self._movable, used[start:-1], strict=True) if share > _USED
        )

    def _columns(self, offered: FloatArray, fixed: Sequence[int], movable: IntArray, slack: float) -> Columns:
        """Return offers, fixed places, movable places and one artificial column, in this order."""
        rooms = self._scaled(slack)
        offers = len(self._offers)
        free = np.maximum(rooms[offers:][list(fixed)] - self._load_of(fixed), 0)
        usable = np.array([self._places[index].schedulable for index in fixed], bool)
        used = self._utilisation()[movable]
        paid = np.array([float(self._places[index].usd_per_hour) for index in movable])
        return Columns(
            prices=np.concatenate(
                [offered, np.zeros(len(fixed)), paid * (1 - STAY_DISCOUNT - 0.01 * used), [_ARTIFICIAL_PRICE]]
            ),
            rooms=np.concatenate(
                [
                    rooms[:offers],
                    free,
                    rooms[offers:][movable],
                    np.full((1, RESOURCE_COUNT), 10_000, np.int64),
                ]
            ),
            upper=np.concatenate(
                [np.where(self._bearable, np.inf, 0.0), usable.astype(float), np.ones(len(movable)), [np.inf]]
            ),
        )

    def top_up(self, target: Target, stuck: Sequence[int], slack: float) -> Target:
        """Return the target with more purchases: for the pods of doomed places that found no room."""
        loads = self._counts[:, list(stuck)].sum(axis=1)
        classes = self._classes(loads, [i for i in range(len(self._places)) if i not in set(target.doomed)])
        extra = self._buy(self._wanted(classes, classes.counts, slack), self._market(target, slack))
        return Target(target.doomed, (*target.purchases, *extra))

    def _market(self, so_far: Target, slack: float) -> Market:
        """Return what may be bought beside the nodes that stay and those that are bought anyway."""
        offers = len(self._offers)
        gone = set(so_far.doomed)
        remaining = [index for index in range(len(self._places)) if index not in gone]
        pools: dict[tuple[str, str], int] = {}
        zones: dict[str, int] = {}
        keyed = [(p.instance_type, p.zone) for p in self._all]
        pool_of = np.array([pools.setdefault(key, len(pools)) for key in keyed])
        zone_of = np.array([zones.setdefault(key[1], len(zones)) for key in keyed])
        stay = np.array([*so_far.purchases, *(offers + index for index in remaining)], np.int64)
        return Market(
            offers=self._offers,
            prices=self._prices,
            rooms=self._scaled(slack)[:offers],
            full_rooms=self._rooms[:offers],
            pools=pool_of[:offers],
            zones=zone_of[:offers],
            standing_pools=np.bincount(pool_of[stay], minlength=len(pools)),
            standing_zones=np.bincount(zone_of[stay], minlength=len(zones)),
            on_demand_kept=sum(self._places[i].capacity_type is CapacityType.ON_DEMAND for i in remaining),
            held=[self._offers[index] for index in so_far.purchases],
        )

    def _wanted(self, classes: PodClasses, left: IntArray, slack: float) -> PodClasses:
        """Return the pods to buy nodes for, on offers that a cluster of this size can bear."""
        masks = [mask[: len(self._offers)] & self._bearable for mask in classes.accepted]
        return self._crowded(replace(classes, counts=left, accepted=masks), slack)

    def _buy(self, classes: PodClasses, market: Market) -> list[int]:
        """Buy nodes greedily, within the share caps, with enough on-demand among them."""
        kinds = NodeKinds(market.prices, market.rooms, market.full_rooms, market.pools, market.zones)
        caps = Caps(0, 0, market.standing_pools, market.standing_zones)
        relaxed = self._relaxed(classes, market.rooms)
        standing = int(market.standing_pools.sum())
        expected = standing + max(1, int(1.2 * relaxed.used[:-1].sum()))
        while True:
            current = self._caps_for(caps, expected, len(market.standing_zones))
            packing = buy_nodes(classes, classes.counts, relaxed.values, kinds, current)
            mixer = Mixer(self._offers, classes, kinds, current, self._rules, market.held)
            bought = mixer.apply(packing.nodes, market.on_demand_kept)
            total = standing + len(bought)
            if pool_cap(total, self._rules) >= current.per_pool:
                return [kind for kind, _ in bought]
            expected = total

    def _crowded(self, classes: PodClasses, slack: float) -> PodClasses:
        """Return the classes with pods of little choice made larger: others take room meant for them."""
        widest = max((int(mask.sum()) for mask in classes.accepted), default=0)
        narrow = np.array([mask.sum() < widest for mask in classes.accepted], bool)
        factors = np.where(narrow, 1 + min(CROWDING * slack, 0.5), 1.0)
        requests = classes.requests.copy()
        requests[:, :2] = (requests[:, :2] * factors[:, None]).astype(np.int64)
        return replace(classes, requests=requests)

    def _caps_for(self, caps: Caps, expected: int, zone_count: int) -> Caps:
        current = caps.copy()
        current.per_pool = pool_cap(expected, self._rules)
        current.per_zone = -(-expected // max(1, zone_count)) + 1 if self._rules.az_spread else UNLIMITED
        return current

    def _relaxed(self, classes: PodClasses, rooms: IntArray) -> Relaxed:
        columns = Columns(
            prices=np.append(self._prices, _ARTIFICIAL_PRICE),
            rooms=np.concatenate([rooms, np.full((1, RESOURCE_COUNT), 10_000, np.int64)]),
            upper=np.append(np.where(self._bearable, np.inf, 0.0), np.inf),
        )
        accepted = [np.append(mask, True) for mask in classes.accepted]
        relaxed = relax(classes.requests, classes.counts, accepted, columns)
        floor = 1e-6 * (classes.requests / np.maximum(self._rooms.mean(axis=0), 1)).sum(axis=1)
        return replace(relaxed, values=relaxed.values + floor)

    def _classes(self, loads: IntArray, remaining: Sequence[int]) -> PodClasses:
        """Group pods to place by what tells them apart."""
        everywhere = np.hstack([np.zeros((len(self._workloads), len(self._offers)), np.int64), self._counts])
        stays = np.zeros(len(self._all), bool)
        stays[len(self._offers) + np.array(remaining, np.int64)] = True
        rivals = self._demand.rivals
        groups: dict[Hashable, list[Lot]] = defaultdict(list)
        for lot in self._demand.lots(loads, everywhere * stays, everywhere * ~stays):
            limit = _node_limit(self._workloads[lot.workload])
            own = lot.workload if limit < UNLIMITED or lot.workload in rivals else -1
            groups[tuple(self._requests[lot.workload]), lot.places.tobytes(), limit, own].append(lot)
        first = [lots[0] for lots in groups.values()]
        by_workload = [(number, lot.workload) for number, lot in enumerate(first) if lot.workload in rivals]
        return PodClasses(
            self._requests[[lot.workload for lot in first]],
            np.array([sum(lot.count for lot in lots) for lots in groups.values()], np.int64),
            [lot.places for lot in first],
            np.array([_node_limit(self._workloads[lot.workload]) for lot in first], np.int64),
            tuple(
                (i, k) for i, one in by_workload for k, other in by_workload if i < k and other in rivals[one]
            ),
        )

    def _scaled(self, slack: float) -> IntArray:
        """Return the room of each place less headroom and slack."""
        headroom = (self._rules.headroom_cpu_percent, self._rules.headroom_memory_percent)
        rooms = self._rooms.copy()
        for column, percent in enumerate(headroom):
            rooms[:, column] -= (self._allocatable[:, column] * (percent / 100 + slack)).astype(np.int64)
        return np.maximum(rooms, 0)

    def _load_of(self, places: Sequence[int]) -> IntArray:
        load: IntArray = self._counts[:, list(places)].T @ self._requests
        return load

    def _utilisation(self) -> FloatArray:
        load = self._load_of(range(len(self._places)))
        room = np.maximum(self._rooms[len(self._offers) :], 1)
        share: FloatArray = (load / room)[:, :2].max(axis=1, initial=0.0)
        return np.minimum(share, 1.0)

    def _bearable_offers(self) -> BoolArray:
        """Return the offers that are not so large that losing one node would hurt the cluster."""
        running = self._counts.sum(axis=1)
        total = (self._requests * running[:, None]).sum(axis=0)[:2]
        rooms = self._rooms[: len(self._offers), :2]
        small = (rooms * LARGEST_NODE_SHARE <= np.maximum(total, 1)).any(axis=1)
        largest = self._requests.max(axis=0, initial=0)
        needed = (self._rooms[: len(self._offers)] >= largest).all(axis=1)
        if not small.any() or not (small & needed).any():
            smallest = self._prices[needed].min() if needed.any() else np.inf
            small |= needed & (self._prices <= smallest * 2)
        return np.asarray(small) if small.any() else np.ones(len(self._offers), bool)


def _node_limit(workload: Workload) -> int:
    """Return how many pods of the workload one node may carry."""
    if HOSTNAME_KEY in workload.anti_affinity_keys:
        return 1
    skews = [rule.max_skew for rule in workload.spread if rule.topology_key == HOSTNAME_KEY]
    return min(skews, default=UNLIMITED)
