"""A simulated AWS on loopback, and what a customer's administrator does in it."""

import json
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import boto3

from accounts.domain import trust_policy
from simulator.aws.server import AwsServer
from simulator.clock import Clock
from simulator.customer import create_stack
from simulator.fleets import CUSTOMER, starting_fleet
from simulator.machines import MachineRoom
from simulator.market import Market

DATA = Path(__file__).resolve().parent.parent / "data"
PLATFORM = "999988887777"


@dataclass(frozen=True)
class World:
    """The customer's AWS account as its administrator and its machines know it."""

    server: AwsServer
    room: MachineRoom
    market: Market
    url: str

    def alive(self, region="us-east-1"):
        return [machine for machine in self.room.alive() if machine.region == region]

    def client(self, service, region="us-east-1"):
        return _client(self.url, service, region)

    def make_role(self, external_id, *, name="SpotOptimizerRole", without=(), trusts_everybody=False):
        """Make the role of our template by hand, without some of its actions."""
        template = json.loads(trust_policy.render(mode="full_access", platform_account_id=PLATFORM).body)
        role = template["Resources"]["Role"]["Properties"]
        trust = {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{PLATFORM}:root"},
            "Action": "sts:AssumeRole",
        }
        if not trusts_everybody:
            trust["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
        actions = {*trust_policy.READ_ACTIONS, *trust_policy.LAUNCH_ACTIONS,
                   *trust_policy.TEMPLATE_ACTIONS, "ec2:CreateTags",
                   *trust_policy.TERMINATE_ACTIONS, *trust_policy.GROUP_ACTIONS, "iam:PassRole"}  # fmt: skip
        iam = self.client("iam")
        made = iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
            MaxSessionDuration=role["MaxSessionDuration"],
        )
        statement = {"Effect": "Allow", "Action": sorted(actions - set(without)), "Resource": "*"}
        self.allow(name, statement)
        return made["Role"]["Arn"]

    def make_stack(self, external_id, *, mode="full_access"):
        template = trust_policy.render(mode=mode, platform_account_id=PLATFORM).body
        return create_stack(
            account_id=CUSTOMER, template=template, external_id=external_id, endpoint=self.url
        )

    def allow(self, role_name, statement):
        self.client("iam").put_role_policy(
            RoleName=role_name,
            PolicyName="Spotopt",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )

    def remove_roles(self):
        cloudformation, iam = self.client("cloudformation"), self.client("iam")
        for stack in cloudformation.describe_stacks()["Stacks"]:
            cloudformation.delete_stack(StackName=stack["StackName"])
        for role in iam.list_roles()["Roles"]:
            if not role["RoleName"].startswith("SpotOptimizer"):
                continue
            for policy in iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]:
                iam.delete_role_policy(RoleName=role["RoleName"], PolicyName=policy)
            iam.delete_role(RoleName=role["RoleName"])


@cache
def _client(url, service, region):
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=url,
        aws_access_key_id=f"AKIACUSTOMERADMIN{CUSTOMER}",
        aws_secret_access_key="simulated",
    )


def start_world(state_dir):
    """Start the AWS of the small fleet, its machines booted."""
    room, market, port = MachineRoom(), Market(seed=7, data_dir=DATA), _free_port()
    server = AwsServer(
        room=room,
        market=market,
        clock=Clock(),
        state_dir=state_dir,
        port=port,
        seed=7,
        kube_url="http://127.0.0.1:9",
    )
    server.provision(starting_fleet("small"))
    room.advance(Clock().now())
    server.start()
    return World(server, room, market, f"http://127.0.0.1:{port}")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
