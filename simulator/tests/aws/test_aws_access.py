"""Who may do what: trust, external ids, policies, regions."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from simulator.tests.aws.conftest import CUSTOMER, PLATFORM, World
from simulator.tests.aws.roles import TEMPLATE, assume, create_role


def refusal(call: Any, **parameters: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture(scope="module")
def role(world: World) -> str:
    return create_role(world, "SpotOptimizerRole", external_id="ext-1")


@pytest.fixture
def credentials(world: World, role: str) -> dict[str, str]:
    return assume(world, role, "ext-1")


def test_given_a_stack_made_role_when_assumed_with_its_external_id_then_the_session_acts_in_the_account(
    world, role, credentials
):
    identity = world.client("sts", **credentials).get_caller_identity()

    assert identity["Account"] == CUSTOMER
    assert identity["Arn"] == f"arn:aws:sts::{CUSTOMER}:assumed-role/SpotOptimizerRole/spotopt"
    assert len(world.client("eks", **credentials).list_clusters()["clusters"]) == 1


def test_given_a_role_when_assumed_with_a_wrong_external_id_then_access_is_denied(world, role):
    sts = world.client("sts", PLATFORM)

    code = refusal(sts.assume_role, RoleArn=role, RoleSessionName="spotopt", ExternalId="ext-2")

    assert code == ("AccessDenied", 403)


def test_given_a_role_when_assumed_without_external_id_then_access_is_denied(world, role):
    sts = world.client("sts", PLATFORM)

    assert refusal(sts.assume_role, RoleArn=role, RoleSessionName="spotopt") == ("AccessDenied", 403)


def test_given_no_role_when_assumed_then_access_is_denied_and_the_message_names_the_role(world):
    arn = f"arn:aws:iam::{CUSTOMER}:role/Missing"

    with pytest.raises(ClientError, match=f"sts:AssumeRole on resource: {arn}"):
        world.client("sts", PLATFORM).assume_role(RoleArn=arn, RoleSessionName="spotopt", ExternalId="ext-1")


def test_given_a_role_when_a_stranger_assumes_it_then_access_is_denied(world, role):
    stranger = world.client("sts", "AKIACUSTOMERADMIN444455556666")

    code = refusal(stranger.assume_role, RoleArn=role, RoleSessionName="thief", ExternalId="ext-1")

    assert code == ("AccessDenied", 403)


def test_given_a_session_longer_than_the_role_allows_when_assumed_then_it_is_a_validation_error(world, role):
    sts = world.client("sts", PLATFORM)
    parameters = {
        "RoleArn": role,
        "RoleSessionName": "spotopt",
        "ExternalId": "ext-1",
        "DurationSeconds": 7200,
    }

    assert refusal(sts.assume_role, **parameters)[0] == "ValidationError"


@pytest.mark.parametrize(
    ("service", "missing", "call", "code"),
    [
        ("ec2", "ec2:DescribeInstances", "describe_instances", "UnauthorizedOperation"),
        ("eks", "eks:ListClusters", "list_clusters", "AccessDeniedException"),
        ("autoscaling", "autoscaling:Describe*", "describe_auto_scaling_groups", "AccessDenied"),
    ],
)
def test_given_a_role_that_lacks_one_permission_when_it_is_needed_then_the_service_refuses_in_its_own_words(
    world, service, missing, call, code
):
    name = f"Without-{service}"
    credentials = assume(world, create_role(world, name, external_id="ext-3", without=missing), "ext-3")

    assert refusal(getattr(world.client(service, **credentials), call)) == (code, 403)
    assert world.client("ec2", **credentials).describe_regions()["Regions"]


def test_given_a_dry_run_when_permitted_and_when_not_then_ec2_says_which(world, credentials):
    ec2 = world.client("ec2", **credentials)

    assert refusal(ec2.describe_instances, DryRun=True) == ("DryRunOperation", 412)
    assert refusal(ec2.describe_volumes, DryRun=True) == ("UnauthorizedOperation", 403)


def test_given_a_tag_condition_when_terminating_an_untagged_machine_then_it_survives(world, credentials):
    image = world.client("ec2").describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])
    image_id = next(found["ImageId"] for found in image["Images"] if "eks" in found["Name"])
    bare = world.client("ec2").run_instances(
        ImageId=image_id, InstanceType="m5.large", MinCount=1, MaxCount=1
    )
    instance_id = bare["Instances"][0]["InstanceId"]

    code = refusal(world.client("ec2", **credentials).terminate_instances, InstanceIds=[instance_id])

    assert code == ("UnauthorizedOperation", 403)
    assert world.room.get(instance_id).is_alive


def test_given_a_region_condition_when_launching_elsewhere_then_it_is_refused(world, credentials):
    ec2 = world.client("ec2", region="eu-west-1", **credentials)

    code = refusal(ec2.run_instances, ImageId="ami-0", InstanceType="m5.large", MinCount=1, MaxCount=1)

    assert code == ("UnauthorizedOperation", 403)


def test_given_a_session_policy_when_narrower_than_the_role_then_it_limits_the_session(world, role):
    policy = {"Statement": [{"Effect": "Allow", "Action": "eks:*", "Resource": "*"}]}
    credentials = assume(world, role, "ext-1", Policy=json.dumps(policy))

    assert world.client("eks", **credentials).list_clusters()["clusters"]
    assert refusal(world.client("ec2", **credentials).describe_instances)[0] == "UnauthorizedOperation"


def test_given_the_platforms_own_keys_when_used_in_ec2_then_they_have_no_rights(world):
    assert refusal(world.client("ec2", PLATFORM).describe_regions) == ("UnauthorizedOperation", 403)


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("ec2", "describe_instances", ("AuthFailure", 401)),
        ("sts", "get_caller_identity", ("InvalidClientTokenId", 403)),
        ("eks", "list_clusters", ("UnrecognizedClientException", 403)),
    ],
)
def test_given_an_unknown_key_when_used_then_each_service_refuses_in_its_own_words(
    world, service, call, code
):
    assert refusal(getattr(world.client(service, "AKIANOBODYKNOWSTHIS0"), call)) == code


def test_given_a_session_when_its_token_is_wrong_then_it_is_unknown(world, credentials):
    broken = {**credentials, "aws_session_token": "forged"}

    assert refusal(world.client("ec2", **broken).describe_instances)[0] == "AuthFailure"


@pytest.mark.parametrize("region", ["eu-south-1", "us-west-2"])
def test_given_a_disabled_region_when_asked_then_it_knows_nobody_and_is_not_listed(world, region):
    world.server.faults.update({"disabled_regions": ["us-west-2"]}, now=world.clock.now())

    listed = {found["RegionName"] for found in world.client("ec2").describe_regions()["Regions"]}

    assert region not in listed
    assert "us-east-1" in listed
    assert refusal(world.client("ec2", region=region).describe_instances) == ("AuthFailure", 401)
    assert refusal(world.client("eks", region=region).list_clusters)[0] == "UnrecognizedClientException"


def test_given_a_template_with_a_role_when_no_capability_is_given_then_the_stack_is_refused(world):
    cloudformation = world.client("cloudformation")

    code = refusal(cloudformation.create_stack, StackName="careless", TemplateBody=json.dumps(TEMPLATE))

    assert code[0] == "InsufficientCapabilitiesException"


def test_given_a_deleted_stack_when_its_role_is_assumed_then_access_is_denied(world):
    arn = create_role(world, "Leaving", external_id="ext-4")
    credentials = assume(world, arn, "ext-4")

    world.client("cloudformation").delete_stack(StackName="stack-Leaving")

    with pytest.raises(ClientError, match="AccessDenied"):
        assume(world, arn, "ext-4")
    assert refusal(world.client("ec2", **credentials).describe_instances)[0] == "UnauthorizedOperation"
