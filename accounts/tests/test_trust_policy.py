import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from moto import mock_aws
from moto.backends import get_backend

from accounts.domain import trust_policy
from accounts.domain.regions import REGIONS
from simulator.aws import events  # noqa: F401  # teaches moto queue policies
from simulator.aws.policies import allows

PLATFORM = "999988887777"
CUSTOMER = "123456789012"
EXTERNAL_ID = "0b4dbb2c-4b0a-4e6f-9a8e-3d1f7c6a5b42"


def _document(mode):
    return json.loads(trust_policy.render(mode=mode, platform_account_id=PLATFORM).body)


def _statements(mode):
    role = _document(mode)["Resources"]["Role"]["Properties"]
    return [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]


def _is_read(action):
    return re.match(r"\w+:(Describe|List|Get)\w+$", action) is not None


@pytest.mark.parametrize("mode", trust_policy.MODES)
def test_given_a_mode_when_rendered_then_only_the_platform_with_the_external_id_may_enter(mode):
    trust = _document(mode)["Resources"]["Role"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]

    assert trust == [
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{PLATFORM}:root"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": {"Ref": "ExternalId"}}},
        }
    ]


@pytest.mark.parametrize("mode", trust_policy.MODES)
def test_given_a_mode_when_rendered_then_no_action_has_a_wildcard(mode):
    actions = [action for statement in _statements(mode) for action in statement["Action"]]

    assert [action for action in actions if "*" in action] == []


def test_given_read_only_when_rendered_then_nothing_writes():
    actions = [action for statement in _statements("read_only") for action in statement["Action"]]

    assert [action for action in actions if not _is_read(action)] == []


def test_given_full_access_when_rendered_then_every_write_is_conditional_and_no_resource_is_a_star():
    writes = [
        statement
        for statement in _statements("full_access")
        if statement["Effect"] == "Allow" and not all(map(_is_read, statement["Action"]))
    ]

    assert {action for statement in writes for action in statement["Action"]} == {
        "autoscaling:DetachInstances",
        "autoscaling:ResumeProcesses",
        "autoscaling:SuspendProcesses",
        "autoscaling:TerminateInstanceInAutoScalingGroup",
        "autoscaling:UpdateAutoScalingGroup",
        "ec2:CreateFleet",
        "ec2:CreateLaunchTemplate",
        "ec2:CreateLaunchTemplateVersion",
        "ec2:CreateTags",
        "ec2:DeleteLaunchTemplateVersions",
        "ec2:RunInstances",
        "ec2:TerminateInstances",
        "iam:PassRole",
        "sqs:DeleteMessage",
        "sqs:ReceiveMessage",
        "sqs:GetQueueUrl",
    }
    for statement in writes:
        assert statement["Condition"], statement["Sid"]
        assert "*" not in statement["Resource"]
        assert all(resource["Fn::Sub"].startswith("arn:") for resource in statement["Resource"])


def test_given_full_access_when_rendered_then_only_templates_of_ours_are_changed():
    conditions = {
        action: statement["Condition"]
        for statement in _statements("full_access")
        for action in statement["Action"]
        if statement["Effect"] == "Allow" and "LaunchTemplate" in action and not _is_read(action)
    }

    told, carried = (f"aws:{where}Tag/{trust_policy.LAUNCH_TAG}" for where in ("Request", "Resource"))
    assert conditions.pop("ec2:CreateLaunchTemplate") == {"StringLike": {told: "?*"}}
    assert list(conditions.values()) == [{"StringLike": {carried: "?*"}}] * 2


def test_given_full_access_when_rendered_then_terminating_and_resizing_need_a_cluster_s_tag():
    conditions = {action: set() for action in (*trust_policy.TERMINATE_ACTIONS, *trust_policy.GROUP_ACTIONS)}
    for statement in _statements("full_access"):
        for action in conditions.keys() & set(statement["Action"]):
            if statement["Effect"] == "Allow":
                assert list(statement["Condition"]) == ["StringLike"]
                conditions[action] |= set(statement["Condition"]["StringLike"])

    assert conditions["ec2:TerminateInstances"] == {
        f"aws:ResourceTag/{tag}" for tag in trust_policy.CLUSTER_TAGS
    }
    for action in trust_policy.GROUP_ACTIONS:
        assert conditions[action] == {f"aws:ResourceTag/{tag}" for tag in trust_policy.GROUP_TAGS}


def test_given_full_access_when_rendered_then_roles_are_passed_to_ec2_only_and_iam_is_not_touched_else():
    iam = [
        statement
        for statement in _statements("full_access")
        if any(action.startswith("iam:") for action in statement["Action"])
    ]

    assert [statement["Action"] for statement in iam] == [["iam:PassRole"]]
    assert iam[0]["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    assert all("role/" in resource["Fn::Sub"] for resource in iam[0]["Resource"])
    assert not any(resource["Fn::Sub"].endswith("role/*") for resource in iam[0]["Resource"])


def test_given_full_access_when_rendered_then_the_regions_bound_every_write_but_passing_the_role():
    (deny,) = [statement for statement in _statements("full_access") if statement["Effect"] == "Deny"]
    writes = {
        action
        for statement in _statements("full_access")
        for action in statement["Action"]
        if not _is_read(action)
    }

    assert set(deny["Action"]) == writes - {"iam:PassRole", *trust_policy.QUEUE_ACTIONS}
    assert deny["Condition"] == {"StringNotEquals": {"aws:RequestedRegion": {"Ref": "AllowedRegions"}}}


def test_given_the_same_input_when_rendered_twice_then_the_hash_holds_and_modes_differ():
    one, two = (trust_policy.render(mode="read_only", platform_account_id=PLATFORM) for _ in range(2))
    other = trust_policy.render(mode="full_access", platform_account_id=PLATFORM)

    assert one.sha256 == two.sha256 != other.sha256
    assert json.loads(one.body)["Metadata"]["Spotopt"] == {
        "Version": trust_policy.VERSION,
        "Mode": "read_only",
    }


def test_given_an_unknown_mode_when_rendered_then_refused():
    with pytest.raises(ValueError, match="no permission mode"):
        trust_policy.render(mode="administrator", platform_account_id=PLATFORM)


def test_given_a_link_when_the_console_is_opened_then_its_parameters_are_filled_in():
    url = urlsplit(
        trust_policy.launch_stack_url(
            region="eu-west-1", template_url="https://s.test/t.json?v=1&sha256=ab", external_id=EXTERNAL_ID
        )
    )
    page, _, query = url.fragment.partition("?")

    assert (url.hostname, page) == ("eu-west-1.console.aws.amazon.com", "/stacks/quickcreate")
    assert parse_qs(query) == {
        "templateURL": ["https://s.test/t.json?v=1&sha256=ab"],
        "stackName": ["Spotopt"],
        "param_ExternalId": [EXTERNAL_ID],
        "param_RoleName": ["SpotOptimizerRole"],
    }


def _stack(mode, regions=tuple(REGIONS)):
    """Let moto's CloudFormation create the stack; return its outputs, trust policy and permissions."""
    body = trust_policy.render(mode=mode, platform_account_id=PLATFORM).body
    parameters = {"ExternalId": EXTERNAL_ID}
    if mode == "full_access":
        parameters["AllowedRegions"] = ",".join(regions)
    with mock_aws():
        stack = get_backend("cloudformation")[CUSTOMER]["us-east-1"].create_stack(
            name="Spotopt", template=body, parameters=parameters
        )
        role = get_backend("iam")[CUSTOMER]["aws"].get_role("SpotOptimizerRole")
    return stack.outputs, json.loads(role.assume_role_policy_document), role.policies["Spotopt"]


@pytest.mark.parametrize("mode", trust_policy.MODES)
def test_given_the_template_when_cloudformation_creates_the_stack_then_the_role_is_there(mode):
    (output,), trust, policy = _stack(mode)

    assert output["OutputKey"] == "RoleArn"
    assert output["OutputValue"] == f"arn:aws:iam::{CUSTOMER}:role/SpotOptimizerRole"
    assert trust["Statement"][0]["Condition"] == {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}}
    assert "Fn::Sub" not in json.dumps(policy)
    assert len(json.dumps(policy, separators=(",", ":"))) <= 10_240  # what IAM allows for inline policies


INSTANCE = f"arn:aws:ec2:eu-west-1:{CUSTOMER}:instance/i-1"
GROUP = f"arn:aws:autoscaling:eu-west-1:{CUSTOMER}:autoScalingGroup:x:autoScalingGroupName/g"
NODE_ROLE = f"arn:aws:iam::{CUSTOMER}:role/acme-node"
TO_EC2 = {"iam:PassedToService": "ec2.amazonaws.com"}
OURS = {"aws:RequestTag/spotopt:cluster-id": "c"}
CALLS = [
    (True, "ec2:DescribeInstances", "*", {}),
    (False, "ec2:StopInstances", INSTANCE, {"aws:ResourceTag/eks:cluster-name": "c"}),
    (True, "ec2:RunInstances", INSTANCE, OURS),
    (False, "ec2:RunInstances", INSTANCE, {}),
    (False, "ec2:RunInstances", INSTANCE, OURS | {"aws:RequestedRegion": "us-east-1"}),
    (True, "ec2:RunInstances", "arn:aws:ec2:eu-west-1::image/ami-1", {}),
    (False, "ec2:RunInstances", "arn:aws:ec2:us-east-1::image/ami-1", {"aws:RequestedRegion": "us-east-1"}),
    (True, "ec2:CreateTags", INSTANCE, OURS | {"ec2:CreateAction": "RunInstances"}),
    (False, "ec2:CreateTags", INSTANCE, OURS),
    (True, "ec2:TerminateInstances", INSTANCE, {"aws:ResourceTag/spotopt:cluster-id": "c"}),
    (True, "ec2:TerminateInstances", INSTANCE, {"aws:ResourceTag/eks:cluster-name": "c"}),
    (False, "ec2:TerminateInstances", INSTANCE, {"aws:ResourceTag/Name": "database"}),
    (False, "ec2:TerminateInstances", INSTANCE, {"aws:ResourceTag/spotopt:cluster-id": ""}),
    (
        False,
        "ec2:TerminateInstances",
        INSTANCE,
        {"aws:ResourceTag/spotopt:cluster-id": "c", "aws:RequestedRegion": "us-east-1"},
    ),
    (True, "autoscaling:UpdateAutoScalingGroup", GROUP, {"aws:ResourceTag/eks:cluster-name": "c"}),
    (False, "autoscaling:UpdateAutoScalingGroup", GROUP, {}),
    (True, "iam:PassRole", NODE_ROLE, TO_EC2),
    (False, "iam:PassRole", NODE_ROLE, {"iam:PassedToService": "lambda.amazonaws.com"}),
    (False, "iam:PassRole", f"arn:aws:iam::{CUSTOMER}:role/Administrator", TO_EC2),
    (False, "iam:CreateRole", NODE_ROLE, {}),
]


@pytest.mark.parametrize(("is_allowed", "action", "resource", "context"), CALLS)
def test_given_the_role_when_a_call_is_judged_as_iam_does_then_only_what_is_needed_passes(
    is_allowed, action, resource, context
):
    *_, policy = _stack("full_access", regions=("eu-west-1", "eu-central-1"))

    verdict = allows([policy], action, resource, {"aws:RequestedRegion": "eu-west-1"} | context)

    assert verdict is is_allowed
