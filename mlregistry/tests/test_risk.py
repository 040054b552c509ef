from datetime import timedelta
from decimal import Decimal

import pytest

from clusters.models import Interruption, InterruptionRate, PoolState, Price
from clusters.tests.factories import ClusterFactory, InstanceFactory
from mlregistry.domain.heuristic import interruption_risk
from mlregistry.models import LabExperiment, MLModel
from mlregistry.services import flag_pools, interruption_risks
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant

REGION, ZONE = "us-east-1", "use1-az1"


def rate(instance_type, bucket, region=REGION):
    InterruptionRate.objects.create(
        region=region, instance_type=instance_type, bucket=bucket, savings_percent=60, fetched_at=utcnow()
    )


def price(instance_type, low=None, high=None, zone_id=ZONE):
    Price.objects.create(
        region=REGION,
        zone_id=zone_id,
        instance_type=instance_type,
        capacity_type="spot",
        usd_per_hour=Decimal("0.05"),
        low_usd_per_hour=low,
        high_usd_per_hour=high,
        observed_at=utcnow(),
        source="aws",
    )


def taken(organization, *instance_types, verified=True, status="taken"):
    """AWS took a node of each type in the zone; verified when AWS itself says so."""
    with tenant(organization.pk):
        cluster = ClusterFactory()
        for instance_type in instance_types:
            node = InstanceFactory(
                cluster=cluster, lifecycle="spot", instance_type=instance_type, az_id=ZONE, region=REGION
            )
            Interruption.objects.create(
                organization=organization, cluster=cluster, instance=node, kind="interruption",
                source="agent", status=status, region=REGION, zone_id=ZONE, instance_type=instance_type,
                noticed_at=utcnow(), deadline=utcnow(), is_verified=verified,
            )  # fmt: skip


def flagged():
    rows = PoolState.objects.filter(flagged_until__gt=utcnow())
    return set(rows.values_list("instance_type", flat=True))


def test_given_pools_when_rated_in_bulk_then_each_has_its_own_signs_and_two_queries_do(
    acme, django_assert_num_queries
):
    rate("m5.large", 0)
    rate("c5.large", 4)
    rate("r5.large", 4, region="eu-west-1")
    price("m5.large")
    price("c5.large", Decimal("0.04"), Decimal("0.05"))
    price("r5.large")
    taken(acme, "m5.large")
    flag_pools()
    pools = [(ZONE, "m5.large"), (ZONE, "c5.large"), (ZONE, "r5.large"), ("use1-az2", "m5.large")]

    with django_assert_num_queries(2):
        risks = interruption_risks(region=REGION, pools=pools)

    assert risks == {
        (ZONE, "m5.large"): interruption_risk(bucket=0, is_flagged=True),
        (ZONE, "c5.large"): pytest.approx(interruption_risk(bucket=4, price_range=0.2)),
        (ZONE, "r5.large"): interruption_risk(bucket=None),
        ("use1-az2", "m5.large"): interruption_risk(bucket=0),
    }


def test_given_no_pools_when_rated_then_nothing_is_asked(db, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert interruption_risks(region=REGION, pools=[]) == {}


def test_given_a_flag_when_half_an_hour_passed_then_the_pool_is_as_calm_as_before(acme, time_machine):
    now = utcnow()
    time_machine.move_to(now, tick=False)
    rate("m5.large", 0)
    price("m5.large")
    taken(acme, "m5.large")
    flag_pools()
    pool = (ZONE, "m5.large")

    time_machine.move_to(now + timedelta(seconds=1799), tick=False)
    assert interruption_risks(region=REGION, pools=[pool])[pool] == interruption_risk(
        bucket=0, is_flagged=True
    )

    time_machine.move_to(now + timedelta(seconds=1800), tick=False)
    assert interruption_risks(region=REGION, pools=[pool])[pool] == interruption_risk(bucket=0)


def test_given_a_flagged_pool_when_flagged_again_then_its_back_off_stays_and_the_flag_lasts_longer(acme):
    until = utcnow() + timedelta(minutes=3)
    PoolState.objects.create(
        region=REGION, zone_id=ZONE, instance_type="m5.large", capacity_type="spot", back_off_until=until
    )

    taken(acme, "m5.large")
    flag_pools()

    pool = PoolState.objects.get()
    assert pool.back_off_until == until
    assert pool.flagged_until > utcnow() + timedelta(minutes=29)


def test_given_models_and_experiments_when_staff_read_them_then_the_queries_do_not_grow(
    api_as, super_admin, django_assert_num_queries
):
    model = MLModel.objects.create(version="v1", status="production", performance_metrics={"accuracy": 0.9})
    experiment = LabExperiment.objects.create(model=model, test_type="replay")
    speak = api_as(super_admin)

    with django_assert_num_queries(4):
        models = speak.get("/api/v1/admin/models").json()
    experiments = speak.get("/api/v1/lab/experiments", {"test_type": "replay"}).json()

    assert (models["total"], models["models"][0]["tests"], models["models"][0]["metrics"]) == (
        1, 1, {"accuracy": 0.9},
    )  # fmt: skip
    assert experiments["experiments"][0]["model_version"] == "v1"
    assert speak.get(f"/api/v1/admin/models/{model.pk}").json()["version"] == "v1"
    assert speak.get(f"/api/v1/lab/experiments/{experiment.pk}").status_code == 200
    assert speak.get("/api/v1/admin/models", {"status": "testing"}).json()["models"] == []
    assert speak.post("/api/v1/admin/models", {}, format="json").status_code == 405


def test_z17_given_one_organizations_word_when_pools_are_flagged_then_nobody_else_is_kept_from_them(acme):
    taken(acme, "m5.large", verified=False)

    assert flag_pools() == 0

    assert flagged() == set()


def test_z17_given_two_organizations_that_agree_when_pools_are_flagged_then_the_pool_counts(acme, rival):
    taken(acme, "m5.large", "c5.large", verified=False)
    taken(rival, "m5.large", verified=False)

    assert [flag_pools(), flag_pools()] == [1, 0]

    assert flagged() == {"m5.large"}


def test_z17_given_an_organization_that_names_every_pool_when_flagged_then_it_has_no_voice(acme, rival):
    taken(acme, *(f"m5.{number}xlarge" for number in range(21)), verified=False)
    taken(rival, "m5.1xlarge", verified=False)

    flag_pools()

    assert flagged() == set()


def test_given_aws_own_word_when_flagged_again_later_then_the_flag_is_extended(acme, time_machine):
    now = utcnow()
    time_machine.move_to(now, tick=False)
    taken(acme, "m5.large")
    flag_pools()
    time_machine.move_to(now + timedelta(minutes=20), tick=False)
    taken(acme, "m5.large")

    flag_pools()

    assert PoolState.objects.get().flagged_until == now + timedelta(minutes=50)


def test_given_a_false_alarm_when_pools_are_flagged_then_it_does_not_count(acme, rival):
    taken(acme, "m5.large", verified=False, status="false_alarm")
    taken(rival, "m5.large", verified=False)

    flag_pools()

    assert flagged() == set()
