from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import pytest
import time_machine
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from clusters.aws import autoscaling, ec2, eks
from clusters.aws import errors as aws_errors
from clusters.aws import session as aws_session
from clusters.aws.session import AccountSession, RoleGrant, session_for
from clusters.domain.actions import ACTUATOR_LEASE
from clusters.domain.capacity import FleetOverride
from simulator.fleets import CUSTOMER


@pytest.fixture
def session(aws):
    role_arn = aws.make_role("secret")
    return session_for(RoleGrant(role_arn, "secret")).in_region("us-east-1")


@pytest.fixture
def group(session):
    return autoscaling.describe_group(session, name="production-general")


def launch(session, group, token, *, types=("m5.large", "c5.large"), capacity_type="spot", count=1):
    return ec2.create_instant_fleet(
        session=session,
        client_token=token,
        launch_template=group.launch_template,
        overrides=[FleetOverride(kind, subnet) for kind in types for subnet in group.subnet_ids],
        capacity_type=capacity_type,
        count=count,
        tags={"spotopt:action-id": token, "spotopt:cluster-id": "c", "Name": "n"},
    )


def end(aws, *instance_ids):
    for instance_id in instance_ids:
        aws.room.terminate(instance_id, reason="test", at=datetime.now(UTC))  # noqa: TID251


def test_given_pools_when_a_fleet_is_asked_for_then_it_launches_tagged_and_can_be_found_again(
    aws, session, group
):
    result = launch(session, group, "token-1")

    again = ec2.launched_for_action(session, action_id="token-1")
    end(aws, *(instance.instance_id for instance in result.instances))
    assert len(result.instances) == 1
    first = result.instances[0]
    assert (first.lifecycle, first.az.startswith("us-east-1")) == ("spot", True)
    assert [instance.instance_id for instance in again] == [first.instance_id]
    assert (again[0].lifecycle, again[0].az_id) == ("spot", first.az_id)
    assert again[0].cluster_name == "acme-production"


def test_given_the_same_token_when_launched_again_then_there_is_still_one_machine(aws, session, group):
    first, second = (launch(session, group, "token-2", capacity_type="on_demand") for _ in range(2))

    found = ec2.launched_for_action(session, action_id="token-2")
    end(aws, first.instances[0].instance_id)
    assert second == first
    assert len(found) == 1


def test_given_an_empty_pool_when_launched_then_the_refusal_is_data(aws, session, group):
    aws.server.faults.no_capacity = {"*:m5.large:spot"}

    result = launch(session, group, "token-3", types=("m5.large",))

    aws.server.faults.no_capacity = set()
    assert result.instances == ()
    assert {refusal.code for refusal in result.refusals} == {"InsufficientInstanceCapacity"}
    assert {refusal.instance_type for refusal in result.refusals} == {"m5.large"}


def test_given_a_machine_of_ours_when_terminated_twice_then_no_harm_is_done(aws, session, group):
    launched = launch(session, group, "token-4").instances[0]

    states = [ec2.terminate(session=session, instance_id=launched.instance_id) for _ in range(2)]

    assert states == ["terminated", "terminated"]
    ended = ec2.describe_instances(session, instance_ids=[launched.instance_id])[0]
    assert (ended.state, bool(ended.end_reason)) == ("terminated", True)


def test_given_an_unknown_instance_when_terminated_then_it_is_missing(session):
    with pytest.raises(aws_errors.ResourceMissing) as missing:
        ec2.terminate(session=session, instance_id="i-00000000000000000")

    assert missing.value.aws_code == "InvalidInstanceID.NotFound"


def test_given_a_group_at_its_minimum_when_a_member_leaves_then_the_sizes_must_give_way_first(
    aws, session, group
):
    name = "development-general"
    before = autoscaling.describe_group(session, name=name)
    autoscaling.set_sizes(session=session, group_name=name, minimum=before.desired)
    member = before.instance_ids[0]

    with pytest.raises(aws_errors.GroupAtMinimum):
        autoscaling.terminate_in_group(session=session, instance_id=member)
    autoscaling.set_sizes(session=session, group_name=name, minimum=before.min_size)
    autoscaling.terminate_in_group(session=session, instance_id=member)

    after = autoscaling.describe_group(session, name=name)
    assert (after.desired, after.min_size) == (before.desired - 1, before.min_size)


def test_given_nothing_of_the_name_when_described_then_it_is_missing(session):
    with pytest.raises(aws_errors.ResourceMissing):
        autoscaling.describe_group(session, name="nobody")
    with pytest.raises(aws_errors.ResourceMissing):
        eks.describe_cluster(session, name="nobody")
    with pytest.raises(aws_errors.ResourceMissing):
        autoscaling.terminate_in_group(session=session, instance_id="i-00000000000000000")


def test_given_many_instances_when_described_then_every_page_is_read(aws, session, monkeypatch):
    monkeypatch.setattr(ec2, "PAGE", 5)

    found = {instance.instance_id for instance in ec2.describe_instances(session)}

    assert {machine.instance_id for machine in aws.alive()} <= found


def test_given_a_wanted_dry_run_when_asked_then_nothing_is_launched(aws, session, group):
    alive = len(aws.alive())

    with pytest.raises(aws_errors.DryRunPassed):
        ec2.dry_run_launch(
            session,
            launch_template=group.launch_template,
            subnet_id=group.subnet_ids[0],
            tags={"spotopt:cluster-id": "c"},
        )

    assert len(aws.alive()) == alive


def test_given_the_same_role_when_asked_for_twice_then_the_session_and_its_clients_are_shared(aws):
    grant = RoleGrant(aws.make_role("secret"), "secret")

    first, second = session_for(grant), session_for(grant)

    assert first is second
    assert first.client("ec2", "us-east-1") is second.client("ec2", "us-east-1")
    assert first.identity().account_id == CUSTOMER
    assert "secret" not in repr(grant)


def test_given_credentials_that_aws_takes_no_more_when_let_go_then_only_that_role_is_assumed_anew(aws):
    roles = {secret: aws.make_role(secret, name=f"SpotOptimizer-{secret}") for secret in ("one", "two")}
    one, other = (session_for(RoleGrant(role_arn, secret)) for secret, role_arn in roles.items())
    before = [session.client("ec2", "us-east-1") for session in (one, other)]

    one.expire()

    after = [session.client("ec2", "us-east-1") for session in (one, other)]
    assert [new is old for new, old in zip(after, before, strict=True)] == [False, True]
    assert one.identity().account_id == CUSTOMER


def test_given_a_call_that_fails_slowly_each_time_when_it_gives_up_then_the_lease_still_holds():
    attempts = aws_session._CALLS.retries["total_max_attempts"]
    pauses = sum(2**attempt for attempt in range(attempts - 1))

    seconds = attempts * (aws_session._CALLS.connect_timeout + aws_session._CALLS.read_timeout) + pauses

    assert timedelta(seconds=seconds) < ACTUATOR_LEASE


def test_given_a_session_near_its_end_when_used_then_it_renews_itself(aws):
    session = AccountSession(RoleGrant(aws.make_role("secret"), "secret"))
    keys = session._boto.get_credentials()
    before = keys.get_frozen_credentials().access_key

    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=870), tick=True):  # noqa: TID251
        after = keys.get_frozen_credentials().access_key

    assert after != before


def answer(code, message="", operation="DescribeInstances"):
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (answer("UnauthorizedOperation"), aws_errors.AwsAccessDenied, "access_denied:ec2:DescribeInstances"),
        (
            answer("AccessDenied", "User: x is not authorized to perform: iam:PassRole on resource: y"),
            aws_errors.AwsAccessDenied,
            "access_denied:iam:PassRole",
        ),
        (
            answer("AccessDenied", operation="AssumeRole"),
            aws_errors.AwsAccessDenied,
            "access_denied:sts:AssumeRole",
        ),
        (answer("RequestLimitExceeded"), aws_errors.AwsThrottled, "throttled"),
        (answer("AuthFailure"), aws_errors.RegionDisabled, "region_disabled"),
        (answer("OptInRequired"), aws_errors.RegionDisabled, "region_disabled"),
        (
            answer("InvalidClientTokenId", operation="AssumeRole"),
            aws_errors.PlatformCredentialsRejected,
            "platform_credentials",
        ),
        (answer("InvalidLaunchTemplateId.NotFound"), aws_errors.ResourceMissing, "resource_missing"),
        (answer("InsufficientInstanceCapacity"), aws_errors.NoCapacity, "no_capacity"),
        (answer("DryRunOperation"), aws_errors.DryRunPassed, "dry_run_passed"),
        (answer("InternalError", "oops"), aws_errors.AwsFailed, "aws_failed"),
        (NoCredentialsError(), aws_errors.PlatformCredentialsRejected, "platform_credentials"),
        (ReadTimeoutError(endpoint_url="x"), aws_errors.AwsTimeout, "aws_timeout"),
        (EndpointConnectionError(endpoint_url="x"), aws_errors.AwsUnreachable, "aws_unreachable"),
    ],
)
def test_given_a_failure_of_botocore_when_translated_then_it_is_one_of_ours(raised, kind, code):
    with (
        pytest.raises(kind) as ours,
        aws_errors.translated(action="ec2:DescribeInstances", region="us-east-1"),
    ):
        raise raised

    assert type(ours.value) is kind
    assert ours.value.code == ours.value.extra["code"] == code
    assert ours.value.detail
    if isinstance(raised, ClientError):
        assert ours.value.aws_code == raised.response["Error"]["Code"]


def test_given_a_storm_of_instances_when_asked_about_then_no_filter_is_larger_than_aws_takes():
    asked = []

    def pages(**query):
        asked.append(len(query["Filters"][0]["Values"]))
        return []

    client = Mock(**{"get_paginator.return_value.paginate": pages})

    ec2.known_instances(Mock(ec2=client, region="us-east-1"), instance_ids=[f"i-{n}" for n in range(450)])

    assert asked == [200, 200, 50]
