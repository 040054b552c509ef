"""The laws of the market."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import mean

import pytest

from simulator.market import Market

DATA = Path(__file__).parents[2] / "clusters/data"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
POOLS = [
    (region, zone_id, kind)
    for region, zone_id in (("us-east-1", "use1-az1"), ("us-east-1", "use1-az6"), ("eu-west-1", "euw1-az1"))
    for kind in (
        "m5.large",
        "m5.2xlarge",
        "c5.4xlarge",
        "r5.xlarge",
        "m6i.large",
        "c6g.xlarge",
        "r7i.2xlarge",
        "t3.medium",
    )
]


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(seed=3, data_dir=DATA)


def move(market: Market, days: int) -> float:
    """Mean absolute relative change of the spot price over so many days."""
    changes = []
    for pool in POOLS:
        for start in range(0, 90, 3):
            before = market.spot(*pool, NOW + timedelta(days=start))
            after = market.spot(*pool, NOW + timedelta(days=start + days))
            changes.append(float(abs(after - before) / before))
    return mean(changes)


def test_given_any_pool_when_priced_then_spot_is_below_on_demand(market):
    for pool in POOLS:
        for day in range(0, 60, 5):
            spot = market.spot(*pool, NOW + timedelta(days=day))
            assert Decimal(0) < spot < market.on_demand(pool[0], pool[2])


def test_given_a_seed_when_asked_again_then_prices_and_capacity_are_the_same(market):
    again, other = Market(seed=3, data_dir=DATA), Market(seed=4, data_dir=DATA)

    prices = [market.spot(*pool, NOW) for pool in POOLS]

    assert [again.spot(*pool, NOW) for pool in POOLS] == prices
    assert [other.spot(*pool, NOW) for pool in POOLS] != prices
    assert all(again.has_capacity(*pool, NOW) == market.has_capacity(*pool, NOW) for pool in POOLS)


def test_given_a_day_and_a_week_when_prices_move_then_they_barely_do(market):
    assert 0.003 < move(market, 1) < 0.009
    assert 0.015 < move(market, 7) < 0.035


def test_given_a_history_when_replayed_then_it_is_newest_first_and_agrees_with_the_price_at_each_instant(
    market,
):
    pool = POOLS[2]

    history = market.spot_history(*pool, NOW - timedelta(days=10), NOW)

    instants = [at for at, _ in history]
    assert instants == sorted(instants, reverse=True)
    assert instants[-1] <= NOW - timedelta(days=10) < instants[-2]
    assert all(market.spot(*pool, at) == price for at, price in history)
    assert market.spot(*pool, NOW) == history[0][1]


def test_given_zones_when_compared_then_the_same_type_has_its_own_price_in_each(market):
    prices = {
        market.spot("us-east-1", zone_id, "m5.2xlarge", NOW)
        for zone_id in ("use1-az1", "use1-az2", "use1-az6")
    }

    assert len(prices) == 3


def test_given_on_demand_prices_when_read_then_they_are_the_published_ones(market):
    assert market.on_demand("us-east-1", "m5.xlarge") == Decimal("0.192")
    assert market.on_demand("us-west-2", "m5.xlarge") == Decimal("0.192")
    assert market.on_demand("eu-west-1", "m5.xlarge") == Decimal("0.214")


def test_given_a_type_without_a_pool_when_priced_then_it_is_a_lookup_error(market):
    with pytest.raises(LookupError):
        market.spot("us-east-1", "use1-az1", "u-6tb1.112xlarge", NOW)
    with pytest.raises(LookupError):
        market.on_demand("us-east-1", "m5.tiny")


def test_given_pools_when_watched_then_they_are_rarely_dry_and_never_where_a_type_is_not_sold(market):
    instants = [NOW + timedelta(hours=hour) for hour in range(0, 2000, 7)]

    dry = mean(not market.has_capacity(*pool, at) for pool in POOLS for at in instants)

    assert 0.001 < dry < 0.05
    assert not market.has_capacity("us-east-1", "use1-az1", "m5.tiny", NOW)


def test_given_risky_and_calm_types_when_instances_are_drawn_then_the_risky_are_interrupted_sooner(market):
    buckets = {
        market.interruption_bucket("us-east-1", kind): kind
        for kind in ("m5.large", "c5.4xlarge", "t3.medium", "r7i.2xlarge", "m6i.large")
    }
    calm, risky = buckets[min(buckets)], buckets[max(buckets)]

    def within_a_month(kind: str) -> float:
        names = [f"i-{number:017x}" for number in range(4000)]
        drawn = [market.interrupted_at("us-east-1", kind, name, NOW) for name in names]
        return mean(at - NOW < timedelta(hours=730) for at in drawn)

    assert min(buckets) < max(buckets)
    assert within_a_month(calm) < within_a_month(risky) < 0.35


def test_given_shapes_when_reserved_as_the_eks_image_does_then_allocatable_is_what_nodes_report(market):
    large, arm = market.shape("m5.large"), market.shape("c6g.2xlarge")

    assert (large.max_pods, large.allocatable_cpu_millis, large.allocatable_memory_mib) == (29, 1930, 6903)
    assert (arm.arch, arm.max_pods, arm.allocatable_cpu_millis, arm.allocatable_memory_mib) == (
        "arm64",
        58,
        7910,
        14103,
    )
