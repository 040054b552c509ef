"""Killed at any time, AWS comes back as it was."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.aws.estate import Estate
from simulator.clock import Clock
from simulator.journal import Journal
from simulator.machines import MachineRoom
from simulator.tests.aws.conftest import PLATFORM, World
from simulator.tests.aws.roles import assume, create_role
from simulator.tests.aws.test_aws_launching import fleet_request, launched

REPOSITORY = Path(__file__).parents[3]
Start = Callable[[], tuple[subprocess.Popen[str], World]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts an AWS process on one state directory; kills what is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes: list[subprocess.Popen[str]] = []

    def begin() -> tuple[subprocess.Popen[str], World]:
        command = [sys.executable, "-m", "simulator.tests.aws.living", str(tmp_path), str(port)]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert float(process.stdout.readline()) < 5
        return process, World(None, None, None, None, port)  # type: ignore[arg-type]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def everything(world: World) -> dict[str, Any]:
    """All that a customer would recognise their AWS by."""
    ec2, eks, iam = world.client("ec2"), world.client("eks"), world.client("iam")
    reservations = ec2.describe_instances()["Reservations"]
    return {
        "instances": [instance for found in reservations for instance in found["Instances"]],
        "subnets": sorted(subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]),
        "vpcs": sorted(vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"]),
        "security_groups": sorted(
            group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]
        ),
        "templates": sorted(
            (template["LaunchTemplateName"], template["LaunchTemplateId"])
            for template in ec2.describe_launch_templates()["LaunchTemplates"]
        ),
        "clusters": [eks.describe_cluster(name=name)["cluster"] for name in eks.list_clusters()["clusters"]],
        "roles": sorted((role["RoleName"], role["RoleId"]) for role in iam.list_roles()["Roles"]),
        "groups": world.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"],
        "stacks": [stack["StackId"] for stack in world.client("cloudformation").describe_stacks()["Stacks"]],
        "others": sorted(
            vpc["VpcId"] for vpc in world.client("ec2", region="us-west-2").describe_vpcs()["Vpcs"]
        ),
    }


def settled(seen: dict[str, Any]) -> dict[str, Any]:
    """Without what time alone changes."""
    for instance in seen["instances"]:
        instance.pop("State")
    for group in seen["groups"]:
        for member in group["Instances"]:
            member.pop("LifecycleState")
    return seen


def test_given_a_changed_aws_when_killed_and_started_again_then_everything_has_its_old_name(
    start,
):
    process, world = start()
    credentials = assume(world, create_role(world, "Kept", external_id="ext-9"), "ext-9")
    ec2 = world.client("ec2")
    template = ec2.create_launch_template(
        LaunchTemplateName="mine", LaunchTemplateData={"ImageId": "ami-1", "InstanceType": "m5.large"}
    )["LaunchTemplate"]["LaunchTemplateId"]
    ec2.create_tags(Resources=[template], Tags=[{"Key": "spotopt:plan", "Value": "p-1"}])
    general = ec2.describe_launch_templates(LaunchTemplateNames=["general"])["LaunchTemplates"][0]
    subnets = [
        subnet["SubnetId"]
        for subnet in ec2.describe_subnets(Filters=[{"Name": "cidr-block", "Values": ["10.0.*"]}])["Subnets"]
    ]
    request = fleet_request(general["LaunchTemplateId"], subnets, ["m5.large"], ClientToken="kept-1")
    first = ec2.create_fleet(**request)
    world.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName="general", MinSize=2)
    before = everything(world)

    process.kill()
    process.wait()
    _, world = start()

    assert settled(everything(world)) == settled(before)
    assert launched(world.client("ec2").create_fleet(**request)) == launched(first)
    assert world.client("ec2", **credentials).describe_regions()["Regions"]
    tags = world.client("ec2").describe_tags(Filters=[{"Name": "resource-id", "Values": [template]}])["Tags"]
    assert [(tag["Key"], tag["Value"]) for tag in tags] == [("spotopt:plan", "p-1")]
    assert world.client("sts", PLATFORM).get_caller_identity()["Account"] == "999988887777"


def test_given_a_launch_cut_off_before_its_machines_existed_when_resumed_then_its_token_is_free_again(market):
    room, journal = MachineRoom(), Journal(None)
    estate = Estate(room=room, market=market, clock=Clock(), journal=journal, seed=1, kube_url="http://kube")
    estate.remember("token/cut-off", {"digest": "d", "answer": ["i-0123456789abcdef0"]})
    estate.remember("token/empty", {"digest": "d", "answer": {"FleetId": "fleet-1", "Instances": []}})

    estate.forget_unperformed()

    assert estate.remembered("token/cut-off") is None
    assert estate.remembered("token/empty") is not None
