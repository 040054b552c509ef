"""Nodes launched over the wire, from templates of our own."""

from base64 import b64encode
from datetime import timedelta
from decimal import Decimal

import pytest

from clusters.aws import autoscaling, ec2, launch_templates
from clusters.aws.session import session_for
from clusters.models import Action, Instance, InstanceType, NodeGroup, PoolState, Price
from clusters.services.launch_templates import KEPT_VERSIONS, OwnTemplates
from clusters.tests.acting import CLUSTER, GROUP, request, run
from clusters.tests.factories import NodeGroupFactory
from spotopt.core.clock import utcnow


def test_given_room_when_launched_then_the_node_is_recorded_under_its_plan_and_group(launch, session):
    assert run(launch) == Action.Status.SUCCEEDED

    row = Instance.objects.get(launch_action_id=launch.pk)
    assert launch.result["instance_id"] == row.instance_id
    assert (row.lifecycle, row.instance_type) == ("spot", "m5.large")
    assert (row.changed_by_plan_id, row.node_group.kind) == (launch.plan_id, NodeGroup.Kind.SPOTOPT)
    assert [each.instance_id for each in ec2.launched_for_action(session, action_id=str(launch.pk))] == [
        row.instance_id
    ]


def test_given_no_price_for_what_aws_launched_when_recorded_then_it_costs_what_the_plan_expected(launch):
    Price.objects.all().delete()
    Action.objects.filter(pk=launch.pk).update(params=launch.params | {"usd_per_hour": "0.041000"})

    run(launch)

    row = Instance.objects.get(launch_action_id=launch.pk)
    assert (row.price, row.price_is_estimate) == (Decimal("0.041000"), True)


def test_given_two_subnets_in_a_zone_when_asked_for_then_the_one_with_most_free_addresses_is_told(
    session, zone_id, monkeypatch
):
    subnets = [
        {"SubnetId": name, "AvailabilityZoneId": zone_id, "AvailableIpAddressCount": free}
        for name, free in (("subnet-a", 3), ("subnet-b", 200), ("subnet-c", 0))
    ]
    monkeypatch.setattr(session.ec2, "describe_subnets", lambda **_: {"Subnets": subnets})

    assert ec2.subnets_by_zone(session, subnet_ids=["any"]) == {zone_id: "subnet-b"}


def test_given_a_group_of_another_architecture_when_launched_then_its_image_is_not_used(cluster, launch):
    for name, arch in (("m5.large", "x86_64"), ("m6g.large", "arm64")):
        InstanceType.objects.create(
            name=name, family=name[:-6], size="large", category="m", generation=5, arch=arch, vcpu=2,
            memory_mib=8192, max_pods=29, cpu_allocatable_millis=1930, memory_allocatable_mib=7000,
        )  # fmt: skip
    group = NodeGroup.objects.get(cluster=cluster, name=GROUP)
    NodeGroup.objects.filter(pk=group.pk).update(instance_types=["m6g.large"])
    small = {"max_size": 1, "instance_types": ["m5.large"], "subnet_ids": group.subnet_ids}
    alone = request(cluster, "launch_node", "n2", launch.params)
    run(alone)
    NodeGroupFactory(
        cluster=cluster, launch_template_id=group.launch_template_id,
        launch_template_version=group.launch_template_version, min_size=0, desired_capacity=1, **small,
    )  # fmt: skip

    assert run(launch) == Action.Status.SUCCEEDED, launch.error_message

    assert (alone.status, alone.error_code) == (Action.Status.FAILED, "no_launch_template")


def test_given_a_dry_spot_pool_when_launched_then_on_demand_serves_and_the_pool_rests(aws, launch, zone_id):
    aws.server.faults.no_capacity = {"*:m5.large:spot"}

    assert run(launch) == Action.Status.SUCCEEDED

    assert launch.result["lifecycle"] == "on_demand"
    pool = PoolState.objects.get(zone_id=zone_id, instance_type="m5.large", capacity_type="spot")
    assert pool.back_off_seconds == 180
    assert timedelta(seconds=170) < pool.back_off_until - utcnow() <= timedelta(seconds=180)


def test_given_a_resting_pool_when_launched_then_aws_is_not_asked_for_it(launch, zone_id):
    PoolState.objects.create(
        region="us-east-1", zone_id=zone_id, instance_type="m5.large", capacity_type="spot",
        back_off_seconds=180, back_off_until=utcnow() + timedelta(minutes=2),
    )  # fmt: skip

    assert run(launch) == Action.Status.SUCCEEDED

    assert launch.result["lifecycle"] == "on_demand"


@pytest.fixture
def managed(cluster, session):
    """Managed node groups alone: EKS writes ON_DEMAND and their names into their templates' user data."""
    groups = autoscaling.describe_groups(session)
    found = next(each for each in groups if "eks:nodegroup-name" in each.tags and CLUSTER in str(each.tags))
    NodeGroup.objects.filter(cluster=cluster, name=GROUP).update(
        launch_template_id=found.launch_template.id, launch_template_version=found.launch_template.version
    )
    return found


def _machine(aws, action):
    (found,) = (each for each in aws.alive() if each.tags.get("spotopt:action-id") == str(action.pk))
    return found


@pytest.mark.parametrize(("dry", "capacity_type"), [(set(), "SPOT"), ({"*:m5.large:spot"}, "ON_DEMAND")])
def test_given_the_template_of_a_managed_group_when_launched_then_the_node_says_what_it_is_and_is_not(
    aws, launch, managed, dry, capacity_type
):
    aws.server.faults.no_capacity = dry

    assert run(launch) == Action.Status.SUCCEEDED

    machine = _machine(aws, launch)
    assert machine.labels["eks.amazonaws.com/capacityType"] == capacity_type
    assert "eks.amazonaws.com/nodegroup" not in machine.labels
    assert "eks:nodegroup-name" not in machine.tags


def test_given_the_role_of_our_stack_when_launched_then_it_may_make_the_template_and_its_versions(
    aws, linked, launch
):
    aws.remove_roles()
    aws.make_stack(linked.external_id)
    session_for.cache_clear()

    assert run(launch) == Action.Status.SUCCEEDED, launch.error_message

    versions = {request["launch_template"]["version"] for request in launch.asked["fleets"]}
    assert versions == {"1", "2"}


def test_given_an_unchanged_group_when_launched_again_then_our_template_gets_no_new_version(
    aws, cluster, session, zone_id, launch
):
    run(launch)
    params = {"instance_type": "m5.large", "zone_id": zone_id, "capacity_type": "spot"}
    again = request(cluster, "launch_node", "n2", params)

    assert run(again) == Action.Status.SUCCEEDED

    name = f"spotopt-{cluster.pk}"
    (template,) = aws.client("ec2").describe_launch_templates(LaunchTemplateNames=[name])["LaunchTemplates"]
    assert {tag["Key"]: tag["Value"] for tag in template["Tags"]}["spotopt:cluster-id"] == str(cluster.pk)
    assert len(launch_templates.versions(session, name=name)) == 2  # spot, and on-demand to fall back on
    assert again.asked["fleets"][0]["launch_template"] == launch.asked["fleets"][0]["launch_template"]


def test_given_a_group_that_changes_often_when_launched_then_only_our_last_versions_stay(
    aws, cluster, session, zone_id, managed
):
    admin, template = aws.client("ec2"), managed.launch_template
    content = launch_templates.content(session, template=template)
    for number in range(KEPT_VERSIONS + 2):
        data = content | {"MetadataOptions": {"HttpPutResponseHopLimit": 3 + number}}
        data |= {"DisableApiTermination": True}  # the group ends its members all the same
        made = admin.create_launch_template_version(LaunchTemplateId=template.id, LaunchTemplateData=data)[
            "LaunchTemplateVersion"
        ]
        NodeGroup.objects.update(launch_template_version=str(made["VersionNumber"]))
        templates = OwnTemplates(session, cluster, NodeGroup.objects.get(cluster=cluster, name=GROUP))
        newest = templates.version_for("spot")

    assert "DisableApiTermination" not in launch_templates.content(session, template=newest)
    kept = launch_templates.versions(session, name=f"spotopt-{cluster.pk}")
    numbers = [int(version.template.version) for version in kept]
    assert kept[0].template == newest
    assert numbers == [*range(KEPT_VERSIONS + 2, 2, -1), 1]  # AWS keeps the default version


def test_given_a_template_whose_labels_are_hidden_when_launched_then_it_fails_with_the_reason(
    aws, cluster, launch
):
    user_data = b64encode(b"#!/bin/bash\nyum update -y\n").decode()
    made = aws.client("ec2").create_launch_template(
        LaunchTemplateName=f"opaque-{cluster.pk}", LaunchTemplateData={"UserData": user_data}
    )["LaunchTemplate"]
    NodeGroup.objects.filter(cluster=cluster, name=GROUP).update(launch_template_id=made["LaunchTemplateId"])

    assert run(launch) == Action.Status.FAILED

    assert launch.error_code == "user_data_unreadable"
    assert GROUP in launch.error_message


def test_given_a_replacement_of_a_foreign_node_when_launched_then_nothing_is_booked_for_it(cluster, launch):
    node = cluster.instances.filter(node_group__name=GROUP).first()
    Action.objects.filter(pk=launch.pk).update(params=launch.params | {"replaces": node.instance_id})
    launch.refresh_from_db()

    run(launch)

    row = Instance.objects.get(launch_action_id=launch.pk)
    assert (row.changed_by_plan_id, row.booking_ended_at) == (None, row.launched_at)
