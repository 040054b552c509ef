"""Purchases that the solver chooses, under the rules of a policy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.domain.model import vector
from policies.domain.packing import PodClasses
from policies.domain.policy import Rules
from policies.domain.purchasing import Market, buy, pool_cap
from policies.domain.shapes import CapacityType, Offer
from policies.tests.fleets import ZONES, catalogue, rules

OFFERS = catalogue()


def market(offers: list[Offer] | None = None, **changes: Any) -> Market:
    chosen = OFFERS if offers is None else offers
    rooms = np.array([vector(offer.allocatable - offer.daemon_overhead) for offer in chosen], np.int64)
    pools: dict[tuple[str, str], int] = {}
    numbers = np.array([pools.setdefault((o.instance_type, o.zone), len(pools)) for o in chosen])
    values: dict[str, Any] = {
        "offers": chosen,
        "prices": np.array([float(offer.usd_per_hour) for offer in chosen]),
        "rooms": rooms,
        "full_rooms": rooms,
        "pools": numbers,
        "zones": np.array([ZONES.index(offer.zone) for offer in chosen]),
        "standing_pools": np.zeros(len(pools), np.int64),
        "standing_zones": np.zeros(3, np.int64),
        "on_demand_kept": 0,
    }
    return Market(**values | changes)


def pods(count: int = 60, **changes: Any) -> PodClasses:
    classes = PodClasses(
        requests=np.array([(700, 1500, 1, 0, 0), (1500, 9000, 1, 0, 0), (300, 400, 1, 0, 0)], np.int64),
        counts=np.array([count, count // 2, count], np.int64),
        accepted=[np.ones(len(OFFERS), bool)] * 3,
        limits=np.full(3, 1_000_000),
    )
    return replace(classes, **changes)


def bought(classes: PodClasses, policy: Rules, subject: Market | None = None) -> list[Offer]:
    chosen = subject or market()
    return [chosen.offers[index] for index in buy(classes, chosen, policy)]


def test_given_pods_when_bought_for_then_the_nodes_hold_them_and_pools_and_zones_are_shared() -> None:
    policy = rules(spot_percentage=100, pool_share_percent=25)

    nodes = bought(pods(), policy)

    room = sum((np.array(vector(o.allocatable - o.daemon_overhead)) for o in nodes), np.zeros(5))
    assert (room >= pods().counts @ pods().requests).all()
    counted = [(offer.instance_type, offer.zone) for offer in nodes]
    assert max(counted.count(pool) for pool in counted) <= pool_cap(len(nodes), policy)
    zones = [sum(offer.zone == zone for offer in nodes) for zone in ZONES]
    assert max(zones) <= len(nodes) / 3 + 1


@pytest.mark.parametrize("percent", [0, 50, 80])
def test_given_a_limit_on_spot_when_bought_then_its_share_of_the_price_is_kept(percent: int) -> None:
    nodes = bought(pods(), rules(spot_percentage=percent))

    spot = sum(o.usd_per_hour for o in nodes if o.capacity_type is CapacityType.SPOT)
    assert nodes
    assert spot * 100 <= percent * sum(o.usd_per_hour for o in nodes)


def test_given_an_on_demand_base_when_bought_then_so_many_nodes_are_on_demand() -> None:
    nodes = bought(pods(), rules(spot_percentage=100, on_demand_base=3), market(on_demand_kept=1))

    assert sum(offer.capacity_type is CapacityType.ON_DEMAND for offer in nodes) == 2


def test_given_nodes_paid_already_when_bought_then_they_are_taken_before_cheaper_ones() -> None:
    paid = next(i for i, o in enumerate(OFFERS) if o.capacity_type is CapacityType.ON_DEMAND)
    offers = [replace(offer, prepaid=2 if index == paid else 0) for index, offer in enumerate(OFFERS)]
    policy = rules(spot_percentage=100, pool_share_percent=100, az_spread=False)

    nodes = buy(pods(), market(offers), policy)

    assert nodes.count(paid) == 2
    assert buy(pods(), market(), policy).count(paid) == 0


def test_given_a_pod_larger_than_any_room_less_headroom_when_bought_for_then_it_may_use_the_headroom() -> (
    None
):
    whole = market()
    largest = whole.rooms.max(axis=0)
    classes = pods(
        requests=np.array([largest * [1, 0, 0, 0, 0] + [0, 1000, 1, 0, 0]], np.int64),
        counts=np.array([1]),
        accepted=[np.ones(len(OFFERS), bool)],
        limits=np.array([10]),
    )

    nodes = bought(classes, rules(spot_percentage=100), replace(whole, rooms=whole.rooms * 9 // 10))

    assert len(nodes) == 1
    assert vector(nodes[0].allocatable - nodes[0].daemon_overhead)[0] >= largest[0]


def test_given_pods_that_no_offer_accepts_when_bought_for_then_nothing_is_bought_for_them() -> None:
    nothing = pods(accepted=[np.zeros(len(OFFERS), bool)] * 3)

    assert bought(nothing, rules()) == []
