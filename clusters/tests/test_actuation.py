"""AWS actions carried out over the wire, with AWS in every mood."""

from datetime import timedelta

import pytest

from accounts import platform
from clusters.aws import ec2
from clusters.aws.errors import AwsThrottled, AwsTimeout
from clusters.domain.capacity import LaunchResult, PoolRefusal
from clusters.models import Action, Instance, PoolState
from clusters.services import actions, actuation, asking, nodes
from clusters.tests.acting import Killed, die, later, request, run
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow


def test_given_spot_partly_dry_and_on_demand_throttled_when_tried_again_then_aws_is_asked_the_same(
    launch, zone_id, monkeypatch
):
    spot = [f"{zone_id}:m5.xlarge:spot"]
    Action.objects.filter(pk=launch.pk).update(
        params=launch.params | {"alternatives": [*spot, *launch.params["alternatives"]]}
    )
    real, asked, throttled = ec2.create_instant_fleet, {}, []

    def strict(**request):
        pools = [(pool.instance_type, pool.subnet_id) for pool in request["overrides"]]
        assert asked.setdefault(request["client_token"], pools) == pools  # else AWS: the parameters differ
        if request["capacity_type"] == "spot":
            codes = ("InsufficientInstanceCapacity", "Unsupported")
            refused = (PoolRefusal(*pool, "", code, "") for pool, code in zip(pools, codes, strict=True))
            return LaunchResult("fleet-1", (), tuple(refused))
        if not throttled:
            throttled.append(request)
            raise AwsThrottled("Slow down.")
        return real(**request)

    monkeypatch.setattr(ec2, "create_instant_fleet", strict)
    assert run(launch) == "waiting"
    with later(timedelta(seconds=21)):
        assert run(launch, "two") == Action.Status.SUCCEEDED

    assert launch.result["lifecycle"] == "on_demand"


def test_given_a_lost_answer_and_pools_that_rest_meanwhile_when_tried_again_then_nothing_is_launched_twice(
    aws, launch, zone_id, monkeypatch
):
    before, real = len(aws.alive()), ec2.create_instant_fleet

    def lost(**request):
        real(**request)
        raise AwsTimeout("No answer.")

    with monkeypatch.context() as broken:
        broken.setattr(ec2, "create_instant_fleet", lost)
        broken.setattr(ec2, "launched_for_action", lambda *_, **__: ())
        assert run(launch) == "waiting"
    PoolState.objects.create(
        region="us-east-1", zone_id=zone_id, instance_type="m5.large", capacity_type="spot",
        back_off_seconds=180, back_off_until=utcnow() + timedelta(minutes=2),
    )  # fmt: skip
    with later(timedelta(seconds=21)), monkeypatch.context() as blind:
        blind.setattr(ec2, "launched_for_action", lambda *_, **__: ())  # AWS does not show it yet
        assert run(launch, "two") == Action.Status.SUCCEEDED

    assert launch.result["lifecycle"] == "spot"
    assert len(aws.alive()) == before + 1


def test_given_a_worker_that_was_overtaken_when_it_comes_to_call_aws_then_it_makes_no_call(
    launch, monkeypatch
):
    def overtaken(action):
        Action.objects.filter(pk=action.pk).update(claimed_by="two")

    monkeypatch.setattr(actions, "require_allowed", overtaken)
    monkeypatch.setattr(ec2, "create_instant_fleet", die)

    assert run(launch) == "skipped"

    assert (launch.status, launch.claimed_by, launch.asked) == (Action.Status.RUNNING, "two", {})


def test_given_no_capacity_at_all_when_launched_again_and_again_then_the_pause_doubles_and_is_forgotten(
    aws, cluster, zone_id
):
    aws.server.faults.no_capacity = {"*"}
    pauses = []
    for gap in (timedelta(), timedelta(minutes=4), timedelta(hours=2)):
        with later(gap):
            type(cluster).objects.update(snapshot_at=utcnow())
            action = request(
                cluster, "launch_node", "n1",
                {"instance_type": "m5.large", "zone_id": zone_id, "capacity_type": "spot"},
            )  # fmt: skip
            assert run(action) == Action.Status.FAILED
            assert action.error_code == "no_capacity"
        pauses.append(PoolState.objects.get(capacity_type="spot").back_off_seconds)

    assert pauses == [180, 360, 180]
    assert not Instance.objects.filter(launch_action_id__isnull=False).exists()


def test_given_a_worker_that_died_after_the_launch_when_taken_over_then_nothing_is_launched_twice(
    aws, launch, monkeypatch
):
    before = len(aws.alive())
    with monkeypatch.context() as broken:
        broken.setattr(nodes, "record_launch", die)
        with pytest.raises(Killed):
            run(launch)
    assert run(launch, "two") == "skipped"

    with later(timedelta(minutes=2, seconds=1)):
        assert actuation.waiting_actions() == [launch.pk]
        assert run(launch, "two") == Action.Status.SUCCEEDED

    assert len(aws.alive()) == before + 1
    assert Instance.objects.filter(launch_action_id=launch.pk).count() == 1


def test_given_an_answer_that_is_lost_when_tried_again_then_the_same_machine_is_found(aws, launch):
    before = len(aws.alive())
    aws.server.faults.fail_after = {"CreateFleet": 1}

    status = run(launch)
    if status == "waiting":
        with later(timedelta(seconds=21)):
            status = run(launch, "two")

    assert status == Action.Status.SUCCEEDED
    assert len(aws.alive()) == before + 1


def test_given_a_freeze_when_a_launch_is_taken_over_then_what_was_launched_is_kept_and_nothing_new_made(
    aws, launch, monkeypatch
):
    before = len(aws.alive())
    with monkeypatch.context() as broken:
        broken.setattr(ec2, "create_instant_fleet", die)
        with pytest.raises(Killed):
            run(launch)
    platform.set_safe_mode(actor=Actor.system(None), value="freeze")

    with later(timedelta(minutes=2, seconds=1)):
        assert run(launch, "two") == Action.Status.REFUSED

    assert launch.error_code == "frozen"
    assert len(aws.alive()) == before


def test_given_throttling_when_actuated_then_it_waits_and_a_later_worker_does_it(aws, launch):
    aws.server.faults.throttle_rate = 1.0
    assert run(launch) == "waiting"
    assert launch.error_code == "throttled"
    assert actuation.waiting_actions() == []
    aws.server.faults.throttle_rate = 0.0

    with later(timedelta(seconds=21)):
        assert actuation.waiting_actions() == [launch.pk]
        assert run(launch, "two") == Action.Status.SUCCEEDED


@pytest.mark.parametrize("fault", ["error_rate", "expired_rate"])
def test_given_a_failure_that_says_nothing_about_the_launch_when_actuated_then_a_later_worker_does_it(
    aws, launch, fault
):
    setattr(aws.server.faults, fault, 1.0)
    first = run(launch)
    setattr(aws.server.faults, fault, 0.0)

    with later(timedelta(seconds=21)):
        second = run(launch, "two")

    assert (first, second) == ("waiting", Action.Status.SUCCEEDED)


def test_given_aws_away_for_longer_than_patience_when_reaped_then_the_action_fails(launch):
    actions.claim_for_actuator(action_id=launch.pk, worker="one")

    with later(timedelta(minutes=34)):
        assert actions.reap(organization_id=launch.organization_id) == 0
    with later(timedelta(minutes=36)):
        assert actions.reap(organization_id=launch.organization_id) == 1

    launch.refresh_from_db()
    assert (launch.status, launch.error_code) == (Action.Status.FAILED, "lease_expired")


def test_given_a_worker_that_was_overtaken_when_it_fails_then_the_newer_holder_decides(launch):
    old = actions.claim_for_actuator(action_id=launch.pk, worker="one")
    with later(timedelta(minutes=2, seconds=1)):
        actions.claim_for_actuator(action_id=launch.pk, worker="two")

    status = actuation._close(old, asking.Outcome(is_success=False, error_code="x"))

    launch.refresh_from_db()
    assert (status, launch.status, launch.claimed_by) == ("skipped", Action.Status.RUNNING, "two")


def test_given_an_instance_that_aws_does_not_show_yet_when_launched_then_it_is_found_later_and_launched_once(
    launch, monkeypatch, session
):
    real = ec2.known_instances
    monkeypatch.setattr(ec2, "known_instances", lambda *_, **__: ())
    assert run(launch) == "waiting"
    monkeypatch.setattr(ec2, "known_instances", real)

    with later(timedelta(seconds=21)):
        assert run(launch, "two") == Action.Status.SUCCEEDED

    assert len(ec2.launched_for_action(session, action_id=str(launch.pk))) == 1


def test_given_an_account_that_was_disconnected_when_an_action_is_due_then_aws_is_not_asked(
    launch, linked, aws
):
    type(linked).objects.filter(pk=linked.pk).update(status="disconnected")
    before = len(list(aws.alive()))

    assert actuation.actuate(action_id=launch.pk, worker="w") == "failed"

    launch.refresh_from_db()
    assert launch.error_code == "account_disconnected"
    assert len(list(aws.alive())) == before
