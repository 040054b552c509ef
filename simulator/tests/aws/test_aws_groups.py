"""Auto Scaling: who is replaced, who may go, which sizes hold."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from simulator.tests.aws.conftest import World


@pytest.fixture
def autoscaling(world: World) -> Any:
    return world.client("autoscaling")


@pytest.fixture
def spare(world: World, autoscaling: Any) -> Any:
    """Reads the group `spare`, brought back to three running members before and after."""

    def read() -> dict[str, Any]:
        found: dict[str, Any] = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=["spare"])
        group: dict[str, Any] = found["AutoScalingGroups"][0]
        return group

    def restore() -> None:
        autoscaling.resume_processes(AutoScalingGroupName="spare")
        autoscaling.update_auto_scaling_group(
            AutoScalingGroupName="spare", MinSize=1, MaxSize=5, DesiredCapacity=3
        )
        world.live(seconds=70)
        world.live(seconds=70)

    restore()
    yield read
    restore()


def ids(group: dict[str, Any]) -> set[str]:
    return {member["InstanceId"] for member in group["Instances"]}


def test_given_a_member_when_ec2_terminates_it_then_the_group_launches_a_replacement(world, spare):
    victim = min(ids(spare()))

    world.client("ec2").terminate_instances(InstanceIds=[victim])
    world.live(seconds=1)
    world.live(seconds=60)

    assert victim not in ids(spare())
    assert len(ids(spare())) == spare()["DesiredCapacity"] == 3
    assert {member["LifecycleState"] for member in spare()["Instances"]} == {"InService"}
    newest = max((world.room.get(name) for name in ids(spare())), key=lambda machine: machine.launched_at)
    assert newest.tags["aws:autoscaling:groupName"] == "spare"
    assert newest.cluster == "served"


def test_given_a_member_when_terminated_with_decrement_then_it_is_not_replaced(world, autoscaling, spare):
    victim = min(ids(spare()))

    autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=victim, ShouldDecrementDesiredCapacity=True
    )
    world.live(seconds=60)

    assert spare()["DesiredCapacity"] == 2
    assert len(ids(spare())) == 2
    assert world.room.get(victim).termination_reason == "auto-scaling"


def test_given_a_group_at_its_minimum_when_terminated_with_decrement_then_it_is_refused(
    world, autoscaling, spare
):
    autoscaling.update_auto_scaling_group(AutoScalingGroupName="spare", MinSize=3)
    victim = min(ids(spare()))

    with pytest.raises(ClientError, match=r"ValidationError.*desiredSize equals minSize \(3\)"):
        autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=victim, ShouldDecrementDesiredCapacity=True
        )

    assert world.room.get(victim).is_alive
    assert spare()["DesiredCapacity"] == 3


def test_given_a_machine_of_no_group_when_terminated_through_auto_scaling_then_it_is_refused(autoscaling):
    with pytest.raises(ClientError, match="No managed instance found"):
        autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId="i-00000000000000000", ShouldDecrementDesiredCapacity=True
        )


def test_given_broken_hardware_when_minutes_pass_then_the_group_replaces_the_member(world, spare):
    victim = min(ids(spare()))

    world.room.fail(victim, at=world.clock.now())
    world.live(seconds=30)
    shortly_after = victim in ids(spare())
    world.live(seconds=120)
    world.live(seconds=60)

    assert shortly_after
    assert not world.room.get(victim).is_alive
    assert len(ids(spare())) == 3


def test_given_suspended_launches_when_a_member_dies_then_it_is_replaced_only_after_resuming(
    world, autoscaling, spare
):
    autoscaling.suspend_processes(AutoScalingGroupName="spare", ScalingProcesses=["Launch"])
    world.client("ec2").terminate_instances(InstanceIds=[min(ids(spare()))])
    world.live(seconds=60)
    suspended = len(ids(spare()))

    autoscaling.resume_processes(AutoScalingGroupName="spare", ScalingProcesses=["Launch"])
    world.live(seconds=60)

    assert (suspended, len(ids(spare()))) == (2, 3)


def test_given_no_capacity_when_a_member_dies_then_the_group_waits_and_says_why(world, autoscaling, spare):
    world.server.faults.update({"no_capacity": ["*:m5.large:on-demand"]}, now=world.clock.now())
    world.client("ec2").terminate_instances(InstanceIds=[min(ids(spare()))])
    world.live(seconds=60)

    activity = autoscaling.describe_scaling_activities(AutoScalingGroupName="spare")["Activities"][0]

    assert len(ids(spare())) == 2
    assert activity["StatusCode"] == "Failed"
    assert "do not have sufficient m5.large capacity" in activity["StatusMessage"]
    world.server.faults.update({"no_capacity": []}, now=world.clock.now())


def test_given_a_smaller_desired_capacity_when_reconciled_then_the_unprotected_oldest_goes(
    world, autoscaling, spare
):
    members = sorted(
        spare()["Instances"], key=lambda member: world.room.get(member["InstanceId"]).launched_at
    )
    protected = [member["InstanceId"] for member in members[:2]]
    autoscaling.set_instance_protection(
        AutoScalingGroupName="spare", InstanceIds=protected, ProtectedFromScaleIn=True
    )

    autoscaling.set_desired_capacity(AutoScalingGroupName="spare", DesiredCapacity=1)
    world.live(seconds=60)

    assert ids(spare()) == set(protected)
    autoscaling.set_instance_protection(
        AutoScalingGroupName="spare", InstanceIds=protected, ProtectedFromScaleIn=False
    )


def test_given_sizes_that_contradict_when_updated_then_nothing_changes(autoscaling, spare):
    with pytest.raises(ClientError, match="ValidationError"):
        autoscaling.update_auto_scaling_group(AutoScalingGroupName="spare", MinSize=6)
    with pytest.raises(ClientError, match="above max value 5"):
        autoscaling.set_desired_capacity(AutoScalingGroupName="spare", DesiredCapacity=9)

    assert (spare()["MinSize"], spare()["MaxSize"], spare()["DesiredCapacity"]) == (1, 5, 3)


def test_given_a_detached_member_when_detached_with_decrement_then_it_lives_on_outside(
    world, autoscaling, spare
):
    leaver = max(ids(spare()))

    autoscaling.detach_instances(
        AutoScalingGroupName="spare", InstanceIds=[leaver], ShouldDecrementDesiredCapacity=True
    )
    world.live(seconds=60)

    assert leaver not in ids(spare())
    assert world.room.get(leaver).is_alive
    assert len(ids(spare())) == 2


def test_given_groups_when_described_in_pages_then_each_appears_once(autoscaling):
    pages = autoscaling.get_paginator("describe_auto_scaling_groups").paginate(
        PaginationConfig={"PageSize": 1}
    )

    names = [group["AutoScalingGroupName"] for page in pages for group in page["AutoScalingGroups"]]

    assert names == ["eks-managed-served", "general", "spare"]


def test_given_a_managed_node_group_when_resized_through_eks_then_its_group_follows(world, autoscaling):
    eks = world.client("eks")

    eks.update_nodegroup_config(
        clusterName="served",
        nodegroupName="managed",
        scalingConfig={"minSize": 1, "maxSize": 6, "desiredSize": 3},
    )

    group = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=["eks-managed-served"])
    nodegroup = eks.describe_nodegroup(clusterName="served", nodegroupName="managed")["nodegroup"]
    assert group["AutoScalingGroups"][0]["MinSize"] == 1
    assert nodegroup["scalingConfig"] == {"minSize": 1, "maxSize": 6, "desiredSize": 3}
    assert nodegroup["resources"]["autoScalingGroups"] == [{"name": "eks-managed-served"}]
