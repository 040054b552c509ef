"""The CloudFormation template that gives Spotopt a role in a customer's AWS account.

Every permission that changes something is limited: to the regions the customer chose, and to resources
that carry a tag of Spotopt or of a cluster. The account that may assume the role is fixed in the text,
and only with the external id of one linked account.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from accounts.domain.regions import REGIONS

VERSION = "2026-11-3"
ROLE_NAME = "SpotOptimizerRole"
STACK_NAME = "Spotopt"
MODES = ("read_only", "full_access")
MAX_SESSION_SECONDS = 3600
"""The least that IAM accepts; Spotopt itself asks for 15 minutes."""

CLUSTER_TAGS = (
    "eks:cluster-name",
    "k8s.io/cluster-autoscaler/enabled",
    "karpenter.sh/nodepool",
    "spotopt:cluster-id",
    "spotopt:managed",
)
"""Instances that may be terminated carry one of these: EKS, a scaler, Spotopt or the customer set it."""
GROUP_TAGS = ("eks:cluster-name", "k8s.io/cluster-autoscaler/enabled", "spotopt:managed")
"""Auto Scaling groups that may be resized carry one of these."""
LAUNCH_TAG = "spotopt:cluster-id"
"""Whatever Spotopt launches carries it from the first moment."""

READ_ACTIONS = (
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeAutoScalingInstances",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeRegions",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
    "ec2:DescribeTags",
    "ec2:DescribeVolumes",
    "eks:DescribeCluster",
    "eks:DescribeNodegroup",
    "eks:ListClusters",
    "eks:ListNodegroups",
)

LAUNCH_ACTIONS = ("ec2:RunInstances", "ec2:CreateFleet")
TEMPLATE_ACTIONS = (
    "ec2:CreateLaunchTemplate",
    "ec2:CreateLaunchTemplateVersion",
    "ec2:DeleteLaunchTemplateVersions",
)
"""For launch templates of Spotopt's own, made from the groups'."""
LAUNCHED = ("fleet", "instance", "volume", "network-interface", "spot-instances-request")
TERMINATE_ACTIONS = ("ec2:TerminateInstances",)
GROUP_ACTIONS = (
    "autoscaling:DetachInstances",
    "autoscaling:ResumeProcesses",
    "autoscaling:SuspendProcesses",
    "autoscaling:TerminateInstanceInAutoScalingGroup",
    "autoscaling:UpdateAutoScalingGroup",
)
QUEUE = "spotopt-interruptions"
QUEUE_ACTIONS = ("sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage")
SPOT_EVENTS = ("EC2 Spot Instance Interruption Warning", "EC2 Instance Rebalance Recommendation")
"""What EventBridge puts into the queue, in the stack's region."""
_GROUPS = "arn:${AWS::Partition}:autoscaling:*:${AWS::AccountId}:autoScalingGroup:*:autoScalingGroupName/*"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """One rendered template; the same bytes for every customer."""

    mode: str
    body: str
    version: str = VERSION

    @property
    def sha256(self) -> str:
        """Return the hex digest by which a reader checks the file."""
        return hashlib.sha256(self.body.encode()).hexdigest()


def render(*, mode: str, platform_account_id: str) -> Template:
    """Return the template of a permission mode, trusting one AWS account; ValueError for others."""
    if mode not in MODES:
        raise ValueError(f"{mode!r} is no permission mode.")
    statements = [_reads()] if mode == "read_only" else [_reads(), *_writes()]
    document: Document = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Spotopt access ({mode.replace('_', ' ')}), template {VERSION}",
        "Metadata": {"Spotopt": {"Version": VERSION, "Mode": mode}},
        "Parameters": _parameters(mode),
        "Resources": {"Role": _role(platform_account_id, statements)}
        | ({} if mode == "read_only" else _interruption_queue()),
        "Outputs": {
            "RoleArn": {
                "Description": "Paste this into Spotopt.",
                "Value": {"Fn::GetAtt": ["Role", "Arn"]},
            }
        },
    }
    return Template(mode=mode, body=json.dumps(document, indent=2) + "\n")


def launch_stack_url(*, region: str, template_url: str, external_id: str, role_name: str = ROLE_NAME) -> str:
    """Return the AWS console's page that creates the stack, with its parameters filled in."""
    parameters = urlencode(
        {
            "templateURL": template_url,
            "stackName": STACK_NAME,
            "param_ExternalId": external_id,
            "param_RoleName": role_name,
        }
    )
    return (
        f"https://{region}.console.aws.amazon.com/cloudformation/home?region={region}"
        f"#/stacks/quickcreate?{parameters}"
    )


def _parameters(mode: str) -> Document:
    parameters: Document = {
        "ExternalId": {
            "Type": "String",
            "Description": "The secret that Spotopt shows for this account; it must match at every use.",
            "MinLength": 36,
            "MaxLength": 64,
            "AllowedPattern": "[0-9a-f-]+",
        },
        "RoleName": {
            "Type": "String",
            "Description": "Name of the role that Spotopt assumes.",
            "Default": ROLE_NAME,
            "AllowedPattern": "[A-Za-z0-9+=,.@_-]{1,64}",
        },
    }
    if mode == "full_access":
        parameters["AllowedRegions"] = {
            "Type": "CommaDelimitedList",
            "Description": "Regions in which Spotopt may launch and terminate.",
            "Default": ",".join(REGIONS),
        }
        parameters["NodeRoleName"] = {
            "Type": "String",
            "Description": "Role of your nodes, when its name has no 'node' in it.",
            "Default": "AmazonEKSNodeRole",
            "AllowedPattern": "[A-Za-z0-9+=,.@_-]{1,64}",
        }
    return parameters


def _role(platform_account_id: str, statements: list[Document]) -> Document:
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": {"Ref": "RoleName"},
            "Description": "Lets Spotopt see, and where you allowed it change, the nodes of your clusters.",
            "MaxSessionDuration": MAX_SESSION_SECONDS,
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"AWS": f"arn:aws:iam::{platform_account_id}:root"},
                        "Action": "sts:AssumeRole",
                        "Condition": {"StringEquals": {"sts:ExternalId": {"Ref": "ExternalId"}}},
                    }
                ],
            },
            "Policies": [
                {
                    "PolicyName": "Spotopt",
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": statements},
                }
            ],
        },
    }


def _reads() -> Document:
    """Describe calls have no resource-level permissions at AWS, hence the star."""
    return {"Sid": "Read", "Effect": "Allow", "Action": list(READ_ACTIONS), "Resource": "*"}


def _writes() -> list[Document]:
    tagged = {"StringLike": {f"aws:RequestTag/{LAUNCH_TAG}": "?*"}}
    return [
        _outside_allowed_regions(),
        _allow("LaunchTaggedNodes", LAUNCH_ACTIONS, _ec2(*LAUNCHED), tagged),
        _allow(
            "LaunchFromWhatClustersUse",
            LAUNCH_ACTIONS,
            [
                *_ec2(
                    "launch-template", "subnet", "security-group", "key-pair", "placement-group", "snapshot"
                ),
                {"Fn::Sub": "arn:${AWS::Partition}:ec2:*::image/*"},
                {"Fn::Sub": "arn:${AWS::Partition}:ec2:*::snapshot/*"},
            ],
            {"StringEquals": {"aws:RequestedRegion": {"Ref": "AllowedRegions"}}},
        ),
        _allow(
            "TagOnlyWhileLaunching",
            ("ec2:CreateTags",),
            _ec2(*LAUNCHED, "launch-template"),
            {
                **tagged,
                "StringEquals": {"ec2:CreateAction": ["RunInstances", "CreateFleet", "CreateLaunchTemplate"]},
            },
        ),
        _allow("MakeOwnTemplates", TEMPLATE_ACTIONS[:1], _ec2("launch-template"), tagged),
        _allow(
            "KeepOwnTemplates",
            TEMPLATE_ACTIONS[1:],
            _ec2("launch-template"),
            {"StringLike": {f"aws:ResourceTag/{LAUNCH_TAG}": "?*"}},
        ),
        *_for_each_tag("TerminateNodes", TERMINATE_ACTIONS, _ec2("instance"), CLUSTER_TAGS),
        *_for_each_tag("ResizeGroups", GROUP_ACTIONS, [{"Fn::Sub": _GROUPS}], GROUP_TAGS),
        _pass_node_role(),
        _read_queue(),
    ]


def _outside_allowed_regions() -> Document:
    """A deny wins over every allow, so that the regions bound all of them at once."""
    return {
        "Sid": "StayInAllowedRegions",
        "Effect": "Deny",
        "Action": [*LAUNCH_ACTIONS, *TEMPLATE_ACTIONS, "ec2:CreateTags", *TERMINATE_ACTIONS, *GROUP_ACTIONS],
        "Resource": "*",
        "Condition": {"StringNotEquals": {"aws:RequestedRegion": {"Ref": "AllowedRegions"}}},
    }


def _pass_node_role() -> Document:
    role = "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/"
    return _allow(
        "GiveNodesTheirRole",
        ("iam:PassRole",),
        [{"Fn::Sub": role + name} for name in ("*Node*", "*node*", "${NodeRoleName}")],
        {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    )


def _read_queue() -> Document:
    """Only the stack's own queue, and only to read it and to take off what was read."""
    arn = {"Fn::Sub": "arn:${AWS::Partition}:sqs:*:${AWS::AccountId}:" + QUEUE}
    owned = {"StringEquals": {"aws:ResourceAccount": {"Ref": "AWS::AccountId"}}}
    return _allow("HearOfInterruptions", QUEUE_ACTIONS, [arn], owned)


def _interruption_queue() -> Document:
    """Two minutes are short: AWS's warnings wait in a queue that nobody but AWS's events may write to."""
    arn = {"Fn::GetAtt": ["InterruptionQueue", "Arn"]}
    return {
        "InterruptionQueue": {
            "Type": "AWS::SQS::Queue",
            "Properties": {
                "QueueName": QUEUE,
                "MessageRetentionPeriod": 300,
                "SqsManagedSseEnabled": True,
            },
        },
        "InterruptionQueuePolicy": {
            "Type": "AWS::SQS::QueuePolicy",
            "Properties": {
                "Queues": [{"Ref": "InterruptionQueue"}],
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "events.amazonaws.com"},
                            "Action": "sqs:SendMessage",
                            "Resource": arn,
                            "Condition": {
                                "ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["InterruptionRule", "Arn"]}}
                            },
                        }
                    ],
                },
            },
        },
        "InterruptionRule": {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "Description": "Tells Spotopt that AWS takes a spot instance back, or may soon.",
                "EventPattern": {"source": ["aws.ec2"], "detail-type": list(SPOT_EVENTS)},
                "State": "ENABLED",
                "Targets": [{"Id": "spotopt", "Arn": arn}],
            },
        },
    }


def _for_each_tag(
    sid: str, actions: tuple[str, ...], resources: list[Document], tags: tuple[str, ...]
) -> list[Document]:
    """One statement for each tag, because conditions inside one statement must all hold."""
    return [
        _allow(f"{sid}{number}", actions, resources, {"StringLike": {f"aws:ResourceTag/{tag}": "?*"}})
        for number, tag in enumerate(tags, start=1)
    ]


def _allow(sid: str, actions: tuple[str, ...], resources: list[Document], condition: Document) -> Document:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": resources,
        "Condition": condition,
    }


def _ec2(*kinds: str) -> list[Document]:
    return [{"Fn::Sub": f"arn:${{AWS::Partition}}:ec2:*:${{AWS::AccountId}}:{kind}/*"} for kind in kinds]
