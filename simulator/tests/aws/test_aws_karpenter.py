import pytest

from simulator.kube.orders import Choice, Order

ZONE, ZONE_ID = "us-east-1a", "use1-az1"


def order(*choices):
    return Order(
        account_id="111122223333",
        region="us-east-1",
        cluster="served",
        choices=[Choice(kind, ZONE, ZONE_ID, capacity) for kind, capacity in choices],
        labels={"karpenter.sh/nodepool": "default"},
        taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}],
        tags={"karpenter.sh/nodepool": "default", "kubernetes.io/cluster/served": "owned"},
    )


@pytest.mark.parametrize("is_dry", [False, True])
def test_given_choices_when_bought_then_ec2_shows_the_cheapest_it_has_with_karpenters_tags(world, is_dry):
    wanted = order(("m5.xlarge", "on-demand"), ("m5.4xlarge", "spot"), ("m5.xlarge", "spot"))
    if is_dry:
        world.server.faults.update({"no_capacity": ["*:spot"]}, now=world.clock.now())

    machine = world.server.seller.buy(wanted, world.clock.now())

    found = world.client("ec2").describe_instances(InstanceIds=[machine.instance_id])
    [instance] = found["Reservations"][0]["Instances"]
    assert instance["InstanceType"] == "m5.xlarge"
    assert instance.get("InstanceLifecycle") == (None if is_dry else "spot")
    assert {each["Key"]: each["Value"] for each in instance["Tags"]}["karpenter.sh/nodepool"] == "default"
    assert (machine.cluster, machine.labels["karpenter.sh/capacity-type"]) == (
        "served",
        "on-demand" if is_dry else "spot",
    )


def test_given_what_aws_does_not_have_when_bought_then_nothing_is(world):
    before = len(world.room.all())
    world.server.faults.update({"no_capacity": ["*:p4d.24xlarge:*"]}, now=world.clock.now())

    assert world.server.seller.buy(order(("p4d.24xlarge", "spot")), world.clock.now()) is None
    assert len(world.room.all()) == before
