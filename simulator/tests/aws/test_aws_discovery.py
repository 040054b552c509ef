"""What a scan sees: instances in pages, filters, clusters, prices, faults."""

from datetime import timedelta
from decimal import Decimal

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from simulator.tests.aws.conftest import FLEET


def test_given_instances_when_read_in_pages_then_each_appears_once_with_its_place_and_past(world):
    pages = world.client("ec2").get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5})

    found = [
        instance
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
        if instance["LaunchTime"] < world.clock.now() - timedelta(days=29)
    ]

    starting = [machine for machine in world.room.all() if machine.launched_by == "fleet:starting"]
    assert len(found) == len({instance["InstanceId"] for instance in found}) > 5
    assert {instance["InstanceId"] for instance in found} <= {machine.instance_id for machine in starting}
    assert {instance["Placement"]["AvailabilityZoneId"] for instance in found} == {
        "use1-az6",
        "use1-az1",
        "use1-az2",
    }
    assert all(instance["PrivateDnsName"].endswith(".ec2.internal") for instance in found)


def test_given_filters_when_instances_are_read_then_only_matching_ones_come(world):
    filters = [
        {"Name": "tag:kubernetes.io/cluster/served", "Values": ["owned"]},
        {"Name": "instance-state-name", "Values": ["running"]},
        {"Name": "instance-type", "Values": ["c5.*"]},
        {"Name": "tag-key", "Values": ["eks:nodegroup-name"]},
    ]

    found = world.client("ec2").describe_instances(Filters=filters)["Reservations"]

    assert {reservation["Instances"][0]["InstanceType"] for reservation in found} == {"c5.2xlarge"}
    assert len(found) == 3


def test_given_a_filter_ec2_does_not_have_when_used_then_it_is_refused(world):
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        world.client("ec2").describe_instances(Filters=[{"Name": "colour", "Values": ["red"]}])


def test_given_a_machine_when_tagged_and_untagged_then_its_tags_follow(world):
    ec2 = world.client("ec2")
    name = ec2.describe_instances()["Reservations"][0]["Instances"][0]["InstanceId"]

    ec2.create_tags(Resources=[name], Tags=[{"Key": "spotopt:plan", "Value": "p-1"}])
    tagged = world.room.get(name).tags.get("spotopt:plan")
    ec2.delete_tags(Resources=[name], Tags=[{"Key": "spotopt:plan"}])

    assert tagged == "p-1"
    assert "spotopt:plan" not in world.room.get(name).tags


def test_given_the_clusters_when_described_then_they_are_old_active_and_reachable(world):
    cluster = FLEET.accounts[0].clusters[0]

    described = world.client("eks").describe_cluster(name="served")["cluster"]

    assert described["status"] == "ACTIVE"
    assert described["version"] == cluster.k8s_version
    assert described["endpoint"] == "http://127.0.0.1:1/clusters/served"
    assert world.clock.now() - described["createdAt"] >= FLEET.age
    assert described["tags"]["environment"] == "production"
    assert world.client("eks", region="eu-west-1").list_clusters()["clusters"] == ["far"]


def test_given_a_new_cluster_when_created_then_it_becomes_active_only_with_time(world):
    eks = world.client("eks", region="us-east-2")
    eks.create_cluster(
        name="young", roleArn="arn:aws:iam::111122223333:role/eks", resourcesVpcConfig={"subnetIds": []}
    )
    young = eks.describe_cluster(name="young")["cluster"]["status"]

    world.clock.advance(minutes=10)

    assert (young, eks.describe_cluster(name="young")["cluster"]["status"]) == ("CREATING", "ACTIVE")


def test_given_prices_when_history_is_read_in_pages_then_it_is_complete_bounded_and_the_markets(world):
    end = world.clock.now()
    query = {
        "StartTime": end - timedelta(days=7),
        "EndTime": end,
        "InstanceTypes": ["m5.large", "c5.xlarge"],
        "ProductDescriptions": ["Linux/UNIX"],
    }
    paginator = world.client("ec2").get_paginator("describe_spot_price_history")

    pages = list(paginator.paginate(PaginationConfig={"PageSize": 7}, **query))
    entries = [entry for page in pages for entry in page["SpotPriceHistory"]]

    whole = world.client("ec2").describe_spot_price_history(**query)["SpotPriceHistory"]
    newest = max(
        (
            entry
            for entry in entries
            if (entry["AvailabilityZone"], entry["InstanceType"]) == ("us-east-1a", "m5.large")
        ),
        key=lambda entry: entry["Timestamp"],
    )
    assert len(pages) > 3
    assert entries == whole
    assert Decimal(newest["SpotPrice"]) == world.market.spot("us-east-1", "use1-az6", "m5.large", end)
    for entry in entries:
        on_demand = world.market.on_demand("us-east-1", entry["InstanceType"])
        assert Decimal("0.05") * on_demand < Decimal(entry["SpotPrice"]) < on_demand
        assert entry["Timestamp"] <= end


def test_given_instance_types_when_read_in_pages_then_all_of_the_catalogue_come(world):
    pages = (
        world.client("ec2")
        .get_paginator("describe_instance_types")
        .paginate(Filters=[{"Name": "instance-type", "Values": ["m5.*"]}], PaginationConfig={"PageSize": 5})
    )

    names = [found["InstanceType"] for page in pages for found in page["InstanceTypes"]]

    assert len(names) == len(set(names)) >= 9
    assert {"m5.xlarge", "m5.2xlarge", "m5.4xlarge"} <= set(names)


@pytest.mark.parametrize(
    ("service", "call", "code", "status"),
    [
        ("ec2", "describe_instances", "RequestLimitExceeded", 503),
        ("autoscaling", "describe_auto_scaling_groups", "Throttling", 400),
        ("eks", "list_clusters", "ThrottlingException", 429),
        ("sts", "get_caller_identity", "Throttling", 400),
    ],
)
def test_given_throttling_when_a_service_is_asked_then_it_refuses_in_its_own_words(
    world, service, call, code, status
):
    world.server.faults.update({"throttle_rate": 1.0}, now=world.clock.now())

    with pytest.raises(ClientError) as caught:
        getattr(world.client(service), call)()

    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)


def test_given_partial_throttling_when_asked_often_then_about_that_share_is_refused(world):
    world.server.faults.update({"throttle_rate": 0.3}, now=world.clock.now())
    eks, refused = world.client("eks"), 0

    for _ in range(60):
        try:
            eks.list_clusters()
        except ClientError:
            refused += 1

    assert 6 <= refused <= 30


def test_given_an_unreachable_aws_when_asked_then_the_connection_is_dropped_until_the_fault_ends(world):
    world.server.faults.update({"unreachable": True, "for_seconds": 30}, now=world.clock.now())
    ec2 = world.client("ec2")

    with pytest.raises(ConnectionClosedError):
        ec2.describe_regions()
    world.live(seconds=31)

    assert ec2.describe_regions()["Regions"]


def test_given_an_unknown_fault_when_switched_on_then_it_is_refused(world):
    with pytest.raises(ValueError, match="gravity"):
        world.server.faults.update({"gravity": True}, now=world.clock.now())


def test_given_a_service_nobody_simulates_when_called_then_it_says_so(world):
    with pytest.raises(ClientError, match=r"UnknownOperationException.*'ssm' is not simulated"):
        world.client("ssm").describe_parameters()


def test_given_an_action_nobody_simulates_when_called_then_it_says_so(world):
    with pytest.raises(ClientError, match="UnsupportedOperation"):
        world.client("ec2").stop_instances(InstanceIds=["i-00000000000000000"])
