"""What policies permit."""

from typing import Any

import pytest

from simulator.aws.policies import allows, trusts

ANY = "*"
BOTH = ["us-east-1", "eu-west-1"]
IN_EUROPE = {"aws:RequestedRegion": "eu-west-1"}
INSTANCE = "arn:aws:ec2:us-east-1:111122223333:instance/i-1"


def statement(
    effect: str = "Allow", action: Any = "ec2:*", resource: Any = ANY, **more: Any
) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def permitted(*statements: dict[str, Any], action: str = "ec2:TerminateInstances", **context: Any) -> bool:
    return allows([{"Statement": list(statements)}], action, INSTANCE, context.get("context", {}))


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("ec2:TerminateInstances", True),
        ("ec2:terminateinstances", True),
        ("ec2:Term*", True),
        ("ec2:?erminateInstances", True),
        ("*", True),
        (["eks:*", "ec2:Terminate*"], True),
        ("ec2:Terminate", False),
        ("eks:*", False),
    ],
)
def test_given_an_action_pattern_when_asked_then_it_matches_as_iam_does(action, expected):
    assert permitted(statement(action=action)) is expected


def test_given_nothing_that_allows_when_asked_then_silence_denies():
    assert permitted() is False
    assert permitted(statement(action="ec2:Describe*")) is False


def test_given_a_deny_when_also_allowed_then_the_deny_wins():
    assert permitted(statement(), statement("Deny", "ec2:Terminate*")) is False


def test_given_not_action_when_asked_then_everything_else_is_covered():
    document = {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}

    assert permitted(document) is True
    assert permitted(document, action="iam:CreateUser") is False


@pytest.mark.parametrize(
    ("resource", "expected"),
    [(INSTANCE, True), ("arn:aws:ec2:*:111122223333:instance/*", True), ("arn:aws:ec2:*:*:volume/*", False)],
)
def test_given_a_resource_when_asked_then_only_matching_arns_are_covered(resource, expected):
    assert permitted(statement(resource=resource)) is expected


@pytest.mark.parametrize(
    ("condition", "context", "expected"),
    [
        ({"StringEquals": {"aws:RequestedRegion": BOTH}}, IN_EUROPE, True),
        ({"StringEquals": {"aws:RequestedRegion": "us-east-1"}}, IN_EUROPE, False),
        ({"StringEquals": {"AWS:requestedregion": "us-east-1"}}, {"aws:RequestedRegion": "us-east-1"}, True),
        ({"StringEquals": {"aws:ResourceTag/a": "b"}}, {}, False),
        ({"StringEqualsIfExists": {"aws:ResourceTag/a": "b"}}, {}, True),
        ({"StringLike": {"aws:ResourceTag/a": "?*"}}, {"aws:ResourceTag/a": "anything"}, True),
        ({"StringLike": {"aws:ResourceTag/a": "?*"}}, {"aws:ResourceTag/a": ""}, False),
        ({"StringNotEquals": {"aws:RequestedRegion": BOTH}}, IN_EUROPE, False),
        ({"StringNotEquals": {"aws:RequestedRegion": ["us-east-1"]}}, IN_EUROPE, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ["a", "c"]}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ["a"]}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ["c", "a"]}, True),
        ({"Null": {"aws:ResourceTag/a": "true"}}, {}, True),
        ({"Null": {"aws:ResourceTag/a": True}}, {"aws:ResourceTag/a": "b"}, False),
        ({"Bool": {"aws:SecureTransport": True}}, {"aws:SecureTransport": "true"}, True),
        ({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}, {"aws:SourceIp": "10.0.0.1"}, False),
        ({"StringEquals": {"a": "1"}, "StringLike": {"b": "2*"}}, {"a": "1", "b": "3"}, False),
    ],
)  # fmt: skip
def test_given_a_condition_when_asked_then_it_holds_only_as_iam_says(condition, context, expected):
    assert permitted(statement(Condition=condition), context=context) is expected


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        ({"AWS": "arn:aws:iam::999988887777:root"}, True),
        ({"AWS": ["999988887777"]}, True),
        ("*", True),
        ({"AWS": "arn:aws:iam::444455556666:root"}, False),
        ({"Service": "ec2.amazonaws.com"}, False),
    ],
)
def test_given_a_trust_policy_when_the_platform_calls_then_only_a_matching_principal_is_trusted(
    principal, expected
):
    document = {"Statement": {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}}
    callers = {"999988887777", "arn:aws:iam::999988887777:root", "arn:aws:iam::999988887777:user/platform"}

    assert trusts(document, "sts:AssumeRole", callers, {}) is expected
