"""Launching and losing machines: fleets, pools without capacity, client tokens, lost answers."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError


def fleet_request(
    template: str, subnets: list[str], types: list[str], *, units: int = 1, **more: Any
) -> dict[str, Any]:
    overrides = [{"InstanceType": kind, "SubnetId": subnet} for kind in types for subnet in subnets]
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": template, "Version": "$Default"},
                "Overrides": overrides,
            }
        ],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": units,
            "DefaultTargetCapacityType": "spot",
        },
        "SpotOptions": {"AllocationStrategy": "price-capacity-optimized"},
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": "spotopt:action-id", "Value": "action-1"}]}
        ],
        **more,
    }


def launched(answer: dict[str, Any]) -> list[str]:
    return [name for instance in answer["Instances"] for name in instance["InstanceIds"]]


def test_given_many_overrides_when_a_fleet_is_created_then_the_cheapest_low_risk_pool_is_taken(
    world, launch_template, subnets
):
    types = ["m5.large", "m5.xlarge", "c5.xlarge", "r5.large", "m6i.large"]
    request = fleet_request(launch_template, subnets, types, units=2)

    answer = world.client("ec2").create_fleet(**request)

    machines = [world.room.get(name) for name in launched(answer)]
    cheapest = min(
        world.market.spot("us-east-1", zone_id, kind, world.clock.now())
        for kind in types
        for zone_id in ("use1-az6", "use1-az1", "use1-az2")
    )
    assert len(machines) == 2
    assert {machine.lifecycle for machine in machines} == {"spot"}
    assert {machine.cluster for machine in machines} == {"served"}
    assert {machine.labels["pool"] for machine in machines} == {"general"}
    assert {machine.tags["spotopt:action-id"] for machine in machines} == {"action-1"}
    assert cheapest <= machines[0].usd_per_hour <= cheapest * 2
    assert answer["Instances"][0]["AvailabilityZoneId"] == machines[0].zone_id


def test_given_a_dry_pool_when_a_fleet_is_created_then_the_next_pool_is_taken_and_the_dry_one_reported(
    world, launch_template, subnets
):
    ec2 = world.client("ec2")
    best = ec2.create_fleet(**fleet_request(launch_template, subnets, ["m5.large", "c5.large"]))["Instances"][
        0
    ]
    dry = f"{best['AvailabilityZoneId']}:{best['InstanceType']}:spot"
    world.server.faults.update({"no_capacity": [dry]}, now=world.clock.now())

    answer = ec2.create_fleet(**fleet_request(launch_template, subnets, ["m5.large", "c5.large"]))

    second = answer["Instances"][0]
    assert (second["AvailabilityZoneId"], second["InstanceType"]) != (
        best["AvailabilityZoneId"],
        best["InstanceType"],
    )
    assert [error["ErrorCode"] for error in answer["Errors"]] == ["InsufficientInstanceCapacity"]
    assert (
        answer["Errors"][0]["LaunchTemplateAndOverrides"]["Overrides"]["InstanceType"] == best["InstanceType"]
    )


def test_given_no_capacity_anywhere_when_a_fleet_is_created_then_nothing_starts_and_each_pool_is_reported(
    world, launch_template, subnets
):
    world.server.faults.update({"no_capacity": ["*:m5.large:*"]}, now=world.clock.now())
    before = len(world.room.all())

    answer = world.client("ec2").create_fleet(**fleet_request(launch_template, subnets, ["m5.large"]))

    assert answer["Instances"] == []
    assert len(answer["Errors"]) == 3
    assert len(world.room.all()) == before


def test_given_an_arm_type_when_the_image_is_x86_then_the_override_is_an_error(
    world, launch_template, subnets
):
    answer = world.client("ec2").create_fleet(**fleet_request(launch_template, subnets[:1], ["m6g.large"]))

    assert answer["Instances"] == []
    assert answer["Errors"][0]["ErrorCode"] == "InvalidParameterValue"
    assert "architecture 'arm64'" in answer["Errors"][0]["ErrorMessage"]


def test_given_a_client_token_when_a_fleet_is_asked_for_twice_then_it_is_launched_once(
    world, launch_template, subnets
):
    request = fleet_request(launch_template, subnets, ["m5.large"], ClientToken="fleet-token-1")
    ec2 = world.client("ec2")

    first, again = ec2.create_fleet(**request), ec2.create_fleet(**request)

    assert launched(first) == launched(again)
    assert [machine for machine in world.room.all() if machine.client_token == "fleet-token-1"] == [
        world.room.get(launched(first)[0])
    ]


def test_given_a_client_token_when_many_ask_at_the_same_time_then_it_is_launched_once(
    world, launch_template, subnets
):
    request = fleet_request(launch_template, subnets, ["m5.large"], ClientToken="fleet-token-many")
    clients = [world.client("ec2") for _ in range(6)]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda ec2: launched(ec2.create_fleet(**request)), clients))

    assert len({tuple(answer) for answer in answers}) == 1
    assert len([machine for machine in world.room.all() if machine.client_token == "fleet-token-many"]) == 1


def test_given_a_used_client_token_when_the_request_differs_then_it_is_a_mismatch(
    world, launch_template, subnets
):
    ec2 = world.client("ec2")
    ec2.create_fleet(**fleet_request(launch_template, subnets, ["m5.large"], ClientToken="fleet-token-2"))
    before = len(world.room.all())

    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        ec2.create_fleet(**fleet_request(launch_template, subnets, ["c5.large"], ClientToken="fleet-token-2"))

    assert len(world.room.all()) == before


def test_given_a_lost_answer_when_the_caller_asks_again_with_its_token_then_it_gets_the_same_fleet(
    world, launch_template, subnets
):
    world.server.faults.update({"fail_after": {"CreateFleet": 1}}, now=world.clock.now())
    request = fleet_request(launch_template, subnets, ["m5.large"], ClientToken="fleet-token-3")
    ec2 = world.client("ec2")

    with pytest.raises(ConnectionClosedError):
        ec2.create_fleet(**request)
    made = [machine.instance_id for machine in world.room.all() if machine.client_token == "fleet-token-3"]

    assert len(made) == 1
    assert launched(ec2.create_fleet(**request)) == made


def test_given_on_demand_when_run_twice_with_one_token_then_one_machine_runs_at_the_list_price(
    world, launch_template, subnets
):
    request = {
        "LaunchTemplate": {"LaunchTemplateId": launch_template},
        "InstanceType": "c5.xlarge",
        "SubnetId": subnets[1],
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": "run-token-1",
    }
    ec2 = world.client("ec2")

    first = ec2.run_instances(**request)["Instances"][0]
    again = ec2.run_instances(**request)["Instances"][0]

    assert first["InstanceId"] == again["InstanceId"]
    assert "InstanceLifecycle" not in first
    assert first["Placement"]["AvailabilityZone"] == "us-east-1b"
    machine = world.room.get(first["InstanceId"])
    assert machine.usd_per_hour == world.market.on_demand("us-east-1", "c5.xlarge")
    assert machine.zone_id == "use1-az1"


def test_given_a_dry_pool_when_one_machine_is_run_then_capacity_is_insufficient(
    world, launch_template, subnets
):
    world.server.faults.update({"no_capacity": ["*:c5.xlarge:on-demand"]}, now=world.clock.now())

    with pytest.raises(ClientError, match="InsufficientInstanceCapacity"):
        world.client("ec2").run_instances(
            LaunchTemplate={"LaunchTemplateId": launch_template},
            InstanceType="c5.xlarge",
            SubnetId=subnets[0],
            MinCount=1,
            MaxCount=1,
        )


def test_given_a_launch_template_when_created_twice_with_one_token_then_it_exists_once(world):
    ec2 = world.client("ec2")
    request = {
        "LaunchTemplateName": "mine",
        "LaunchTemplateData": {"ImageId": "ami-1", "InstanceType": "m5.large"},
        "ClientToken": "template-token-1",
    }

    first, again = ec2.create_launch_template(**request), ec2.create_launch_template(**request)

    assert first["LaunchTemplate"]["LaunchTemplateId"] == again["LaunchTemplate"]["LaunchTemplateId"]
    assert len(ec2.describe_launch_templates(LaunchTemplateNames=["mine"])["LaunchTemplates"]) == 1


def test_given_a_spot_machine_when_it_lives_and_is_interrupted_then_ec2_tells_each_state_and_the_reason(
    world, launch_template, subnets
):
    ec2 = world.client("ec2")
    name = launched(ec2.create_fleet(**fleet_request(launch_template, subnets, ["m5.large"])))[0]

    def seen() -> dict[str, Any]:
        return ec2.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0]

    states = [seen()["State"]["Name"]]
    world.live(seconds=60)
    states.append(seen()["State"]["Name"])
    world.room.terminate(name, reason="spot-interruption", at=world.clock.now())
    states.append(seen()["State"]["Name"])
    world.live(seconds=60)
    states.append(seen()["State"]["Name"])

    assert states == ["pending", "running", "shutting-down", "terminated"]
    assert seen()["InstanceLifecycle"] == "spot"
    assert seen()["StateReason"]["Code"] == "Server.SpotInstanceTermination"


def test_given_an_unknown_machine_when_terminated_then_nothing_is(world):
    alive = len(world.room.alive())

    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        world.client("ec2").terminate_instances(InstanceIds=["i-00000000000000000"])

    assert len(world.room.alive()) == alive
