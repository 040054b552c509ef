import gzip
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Account
from clusters.domain.market import Quote, allocatable, estimated_spot, list_prices
from clusters.models import Instance, InstanceType, InterruptionRate, Price
from clusters.services import market
from spotopt.core.clock import utcnow

SPOT_POOL = {"region": "us-east-1", "zone_id": "use1-az1", "instance_type": "m5.large"}


@pytest.fixture
def running(linked):
    """An active account with one spot instance in us-east-1a and an on-demand one beside it."""
    Account.objects.filter(pk=linked.pk).update(status="active")
    for number, lifecycle in enumerate(("spot", "on_demand")):
        Instance.objects.create(
            organization_id=linked.organization_id,
            account=linked,
            instance_id=f"i-{number:017x}",
            instance_type="m5.large",
            lifecycle=lifecycle,
            region="us-east-1",
            az="us-east-1a",
            az_id="use1-az6",
            launched_at=utcnow(),
        )
    return linked


@pytest.fixture
def types(db):
    """A few types that are priced in us-east-1."""
    for name, vcpu in (("m5.large", 2), ("c6i.xlarge", 4), ("r7g.24xlarge", 96), ("m4.large", 2)):
        family = name.partition(".")[0]
        InstanceType.objects.create(
            name=name, family=family, size=name.partition(".")[2], category=family[0], arch="x86_64",
            generation=int(family[1]), vcpu=vcpu, memory_mib=8192, max_pods=29, cpu_allocatable_millis=1,
            memory_allocatable_mib=1,
        )  # fmt: skip
        Price.objects.create(
            region="us-east-1", instance_type=name, capacity_type="on_demand", source="bundled",
            usd_per_hour=Decimal("0.1"), observed_at=utcnow(),
        )  # fmt: skip


def test_given_an_empty_database_when_loaded_twice_then_the_second_load_changes_nothing(db, capsys):
    started = time.perf_counter()
    call_command("load_reference")
    first = time.perf_counter() - started
    counts = [table.objects.count() for table in (InstanceType, Price, InterruptionRate)]

    again = market.load_reference_data()

    assert again.changed == 0
    assert counts == [again.instance_types, again.prices, again.interruption_rates]
    assert "rows changed" in capsys.readouterr().out
    assert min(counts) > 1000
    assert first < 30  # the aim of five seconds is for an idle machine
    assert_reference_is_right()


def assert_reference_is_right():
    large = InstanceType.objects.get(name="m5.large")
    assert (large.vcpu, large.memory_mib, large.max_pods, large.arch) == (2, 8192, 29, "x86_64")
    assert (large.cpu_allocatable_millis, large.memory_allocatable_mib) == (1930, 6903)
    prices = {
        (price.region, price.instance_type): price
        for price in Price.objects.filter(instance_type__in=["m5.large", "c6i.xlarge"])
    }
    home, ireland = prices["us-east-1", "m5.large"], prices["eu-west-1", "m5.large"]
    assert (home.usd_per_hour, home.source) == (Decimal("0.096000"), "bundled")
    assert (ireland.usd_per_hour, ireland.source) == (Decimal("0.107000"), "estimate")
    assert prices["us-west-2", "c6i.xlarge"].usd_per_hour == prices["us-east-1", "c6i.xlarge"].usd_per_hour
    assert not Price.objects.filter(region__startswith="cn-").exists()
    assert not InterruptionRate.objects.exclude(os="Linux").exists()


def test_given_a_newer_advisor_file_when_loaded_then_it_wins_and_an_older_one_does_not(db, tmp_path):
    header = (
        "snapshot_date,region,os,instance_type,vcpu,ram_gb,"
        "interruption_bucket,interruption_label,savings_pct\n"
    )

    def write(name, date, bucket):
        path = tmp_path / name
        line = f"{date},us-east-1,Linux,m5.large,2,8.0,{bucket},x,61\n"
        path.write_bytes(gzip.compress((header + line).encode()))
        return path

    newer, older = write("new.csv.gz", "2026-05-01", 3), write("old.csv.gz", "2021-05-01", 0)

    assert market.load_advisor(newer).inserted == 1
    assert market.load_advisor(older).updated == 0

    rate = InterruptionRate.objects.get()
    assert (rate.bucket, rate.savings_percent) == (3, 61)
    assert rate.fetched_at == datetime(2026, 5, 1, tzinfo=UTC)


def test_given_zones_in_use_when_refreshed_then_their_pools_have_aws_prices(aws, running, types):
    changed = market.refresh_spot_prices()

    now = utcnow()
    prices = {price.instance_type: price for price in Price.objects.filter(capacity_type="spot")}
    assert changed == len(prices) == 2  # m4 is too old and r7g.24xlarge too large to be proposed
    for instance_type, price in prices.items():
        assert (price.zone_id, price.source) == ("use1-az6", "aws")
        assert price.usd_per_hour == aws.market.spot("us-east-1", "use1-az6", instance_type, now)
        assert price.low_usd_per_hour <= price.usd_per_hour <= price.high_usd_per_hour
        assert now - price.observed_at < timedelta(minutes=1)
    spot, on_demand = Instance.objects.order_by("instance_id")
    assert spot.price == prices["m5.large"].usd_per_hour
    assert on_demand.price == Decimal("0.100000")


def test_given_fresh_prices_when_the_tick_comes_again_then_aws_is_not_asked(aws, running, types):
    market.refresh_spot_prices()
    aws.server.faults.unreachable = True

    with CaptureQueriesContext(connection) as queries:
        assert market.refresh_spot_prices() == 0

    assert len(queries) <= 3


def test_given_an_account_that_aws_refuses_when_refreshed_then_the_last_known_prices_stay(
    aws, running, types
):
    market.refresh_spot_prices()
    Price.objects.filter(capacity_type="spot").update(observed_at=utcnow() - timedelta(hours=2))
    before = list(Price.objects.order_by("pk").values())
    aws.remove_roles()
    market.session_for.cache_clear()

    assert market.refresh_spot_prices() == 0

    assert list(Price.objects.order_by("pk").values()) == before


def test_given_a_pool_that_nobody_priced_when_asked_then_the_advisor_estimates_it(types):
    assert market.price_of(**SPOT_POOL, capacity_type="spot") is None
    InterruptionRate.objects.create(
        region="us-east-1", instance_type="m5.large", bucket=1, savings_percent=60, fetched_at=utcnow()
    )

    quote = market.price_of(**SPOT_POOL, capacity_type="spot")

    assert (quote.usd_per_hour, quote.source) == (Decimal("0.040000"), "estimate")


def test_given_an_observed_pool_when_asked_then_price_source_and_age_are_known(types):
    at = utcnow() - timedelta(minutes=7)
    Price.objects.create(
        **SPOT_POOL, capacity_type="spot", usd_per_hour=Decimal("0.0351"), observed_at=at, source="aws"
    )

    spot = market.price_of(**SPOT_POOL, capacity_type="spot")
    on_demand = market.price_of(**SPOT_POOL, capacity_type="on_demand")

    assert spot == Quote(Decimal("0.035100"), "aws", at)
    assert on_demand.usd_per_hour == Decimal("0.100000")
    assert spot.age(at + timedelta(minutes=7)) == timedelta(minutes=7)


def test_given_many_pools_when_quoted_then_two_queries_answer(types):
    with CaptureQueriesContext(connection) as queries:
        found = market.quotes(region="us-east-1", zone_ids=["use1-az1", "use1-az2"])

    assert len(queries) == 2
    assert len(found) == 4


@pytest.mark.parametrize(("minutes", "usd"), [(10, "0.05"), (11, "0.055000")])
def test_given_an_old_spot_price_when_planned_with_then_it_costs_a_tenth_more(minutes, usd):
    now = utcnow()
    quote = Quote(Decimal("0.05"), "aws", now - timedelta(minutes=minutes))

    assert quote.planning_usd(now) == Decimal(usd)
    assert quote.planning_usd(now, clock_rate=10) == quote.usd_per_hour


@pytest.mark.parametrize(("vcpu", "cpu_millis"), [(1, 940), (2, 1930), (4, 3920), (8, 7910), (96, 95690)])
def test_given_a_size_then_the_image_reserves_cpu_by_core(vcpu, cpu_millis):
    assert allocatable(vcpu=vcpu, memory_mib=4096, max_pods=10, is_arm=False).cpu_millis == cpu_millis


def test_given_the_simulated_worlds_own_rule_then_both_say_the_same(aws):
    for name in ("m5.large", "c5.4xlarge", "r7g.xlarge", "m6i.2xlarge"):
        shape = aws.market.shape(name)
        node = allocatable(
            vcpu=shape.vcpu,
            memory_mib=shape.memory_mib,
            max_pods=shape.max_pods,
            is_arm=shape.arch == "arm64",
        )
        assert (node.cpu_millis, node.memory_mib) == (
            shape.allocatable_cpu_millis,
            shape.allocatable_memory_mib,
        )


def test_given_ratios_when_a_list_is_made_then_only_awss_own_prices_are_exact():
    prices = {
        (price.region, price.instance_type): (price.usd_per_hour, price.is_estimate)
        for price in list_prices(
            current={
                ("us-east-1", "m5.large"): Decimal("0.096"),
                ("us-gov-west-1", "m5.large"): Decimal("0.121"),
            },
            sold={
                "m5.large": ["us-east-1", "us-east-2", "us-gov-west-1", "eu-west-1", "xx-new-1"],
                "x9.large": ["eu-west-1"],
            },
            multipliers={("eu-west-1", "c5"): Decimal("1.1"), ("eu-west-1", "r5"): Decimal("1.2")},
        )
    }

    assert prices == {
        ("us-east-1", "m5.large"): (Decimal("0.096"), False),
        ("us-gov-west-1", "m5.large"): (Decimal("0.121"), False),
        ("us-east-2", "m5.large"): (Decimal("0.096000"), True),
        ("eu-west-1", "m5.large"): (Decimal("0.110400"), True),
    }


def test_given_a_saving_of_everything_then_spot_still_costs_something():
    assert estimated_spot(Quote(Decimal("0.1"), "bundled", utcnow()), 100).usd_per_hour > 0
