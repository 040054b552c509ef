"""A customer's role for the platform, made by CloudFormation as a customer would."""

import json
from typing import Any

from simulator.tests.aws.conftest import CUSTOMER, PLATFORM, World

READING = [
    "ec2:DescribeInstances",
    "ec2:DescribeRegions",
    "ec2:DescribeSpotPriceHistory",
    "eks:ListClusters",
    "eks:DescribeCluster",
    "autoscaling:Describe*",
]
CLUSTER_TAG = "kubernetes.io/cluster/served"
TEMPLATE = {
    "AWSTemplateFormatVersion": "2010-09-09",
    "Parameters": {"ExternalId": {"Type": "String"}, "RoleName": {"Type": "String"}},
    "Resources": {
        "Role": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": {"Ref": "RoleName"},
                "MaxSessionDuration": 3600,
                "AssumeRolePolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"AWS": "arn:aws:iam::999988887777:root"},
                            "Action": "sts:AssumeRole",
                            "Condition": {"StringEquals": {"sts:ExternalId": {"Ref": "ExternalId"}}},
                        }
                    ],
                },
            },
        }
    },
}
ACTING = [
    {
        "Effect": "Allow",
        "Action": ["ec2:TerminateInstances"],
        "Resource": "*",
        "Condition": {
            "StringEquals": {f"aws:ResourceTag/{CLUSTER_TAG}": "owned", "aws:RequestedRegion": ["us-east-1"]}
        },
    },
    {
        "Effect": "Allow",
        "Action": ["ec2:RunInstances", "ec2:CreateFleet", "ec2:CreateTags"],
        "Resource": "*",
        "Condition": {"StringEquals": {"aws:RequestedRegion": "us-east-1"}},
    },
    {
        "Effect": "Allow",
        "Action": ["autoscaling:TerminateInstanceInAutoScalingGroup"],
        "Resource": "*",
        "Condition": {"StringEquals": {f"autoscaling:ResourceTag/{CLUSTER_TAG}": "owned"}},
    },
    {
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Resource": "arn:aws:iam::*:role/served-node",
        "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    },
]


def create_role(world: World, name: str, *, external_id: str, without: str | None = None) -> str:
    """Run the stack as the customer's administrator; return the role's ARN."""
    template = json.loads(json.dumps(TEMPLATE))
    statements = [
        {"Effect": "Allow", "Action": [action for action in READING if action != without], "Resource": "*"},
        *ACTING,
    ]
    template["Resources"]["Role"]["Properties"]["Policies"] = [
        {"PolicyName": "spotopt", "PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}
    ]
    cloudformation = world.client("cloudformation")
    cloudformation.create_stack(
        StackName=f"stack-{name}",
        TemplateBody=json.dumps(template),
        Parameters=[
            {"ParameterKey": "ExternalId", "ParameterValue": external_id},
            {"ParameterKey": "RoleName", "ParameterValue": name},
        ],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    status = cloudformation.describe_stacks(StackName=f"stack-{name}")["Stacks"][0]["StackStatus"]
    assert status == "CREATE_COMPLETE"
    return f"arn:aws:iam::{CUSTOMER}:role/{name}"


def assume(world: World, role_arn: str, external_id: str, **more: Any) -> dict[str, str]:
    """The platform takes the role; return credentials for `World.client`."""
    answer = world.client("sts", PLATFORM).assume_role(
        RoleArn=role_arn, RoleSessionName="spotopt", ExternalId=external_id, DurationSeconds=900, **more
    )["Credentials"]
    return {
        "key": answer["AccessKeyId"],
        "aws_secret_access_key": answer["SecretAccessKey"],
        "aws_session_token": answer["SessionToken"],
    }
