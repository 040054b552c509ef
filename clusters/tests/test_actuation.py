"""AWS actions carried out over the wire, with AWS in every mood."""

from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
import time_machine

from accounts import platform
from audit.models import AuditLog
from clusters.aws import autoscaling, ec2, launch_templates
from clusters.aws.errors import AwsThrottled, AwsTimeout
from clusters.aws.session import RoleGrant, session_for
from clusters.domain.capacity import LaunchResult, PoolRefusal, RegionInventory
from clusters.models import Action, Instance, NodeGroup, PoolState, SavingsEntry
from clusters.services import actions, actuation, groups
from clusters.services.launch_templates import KEPT_VERSIONS, OwnTemplates
from clusters.services.ledger import book_savings
from clusters.services.region_sync import apply_region
from clusters.tests.factories import ClusterFactory, InstanceFactory, NodeGroupFactory
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict

CLUSTER, GROUP = "acme-production", "production-general"
SPOT, ON_DEMAND = "m5.large:spot", "m5.large:on_demand"


@pytest.fixture
def actor(linked):
    return Actor(kind="user", organization_id=linked.organization_id, label="alice@acme.test", role="owner")


@pytest.fixture
def session(linked):
    return session_for(RoleGrant(linked.role_arn, linked.external_id)).in_region("us-east-1")


MEMBERS = 4


@pytest.fixture
def group(aws, session):
    """The group with its members, whatever a test before took out of it."""
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=1, desired=MEMBERS)
    aws.server.tick(utcnow())
    aws.room.advance(utcnow())
    return autoscaling.describe_group(session, name=GROUP)


@pytest.fixture
def cluster(aws, linked, session, group, catalogue):
    """The production cluster with the rows that a scan and the agent would have written."""
    row = ClusterFactory(account=linked, name=CLUSTER)
    node_group = NodeGroupFactory(
        cluster=row, name=GROUP, launch_template_id=group.launch_template.id,
        launch_template_version=group.launch_template.version, subnet_ids=list(group.subnet_ids),
        min_size=group.min_size, desired_capacity=group.desired, max_size=group.max_size,
    )  # fmt: skip
    for instance_id in group.instance_ids:
        InstanceFactory(cluster=row, node_group=node_group, instance_id=instance_id)
    others = NodeGroupFactory(cluster=row, name="others", launch_template_id="")
    InstanceFactory.create_batch(4, cluster=row, node_group=others)
    yield row
    aws.server.faults.no_capacity, aws.server.faults.fail_after = set(), {}
    for machine in aws.alive():
        if "spotopt:action-id" in machine.tags:
            aws.room.terminate(machine.instance_id, reason="test", at=datetime.now(UTC))  # noqa: TID251


@pytest.fixture
def zone_id(session, group):
    return min(zone for _, zone in ec2.subnet_zones(session, subnet_ids=group.subnet_ids).values())


@pytest.fixture
def launch(cluster, zone_id):
    """A launch in a spot pool, with an on-demand pool to fall back on."""
    params = {
        "instance_type": "m5.large", "zone_id": zone_id, "capacity_type": "spot",
        "alternatives": [f"{zone_id}:{ON_DEMAND}"],
    }  # fmt: skip
    return _request(cluster, "launch_node", "n1", params)


def _request(cluster, kind, target, params, **changes):
    return actions.request_action(
        cluster=cluster, kind=kind, target=target, params=params, reason="Test",
        actor=Actor.system(cluster.organization_id), idempotency_key=str(uuid4()), plan_id=uuid4(), **changes,
    )  # fmt: skip


def _terminate(cluster, node):
    Instance.objects.filter(pk=node.pk).update(is_cordoned=True)
    return _request(
        cluster, "terminate_instance", node.node_name,
        {"node_name": node.node_name, "instance_id": node.instance_id},
    )  # fmt: skip


def _later(delta):
    return time_machine.travel(utcnow() + delta)


def _run(action, worker="one"):
    status = actuation.actuate(action_id=action.pk, worker=worker)
    action.refresh_from_db()
    return status


def test_given_room_when_launched_then_the_node_is_recorded_under_its_plan_and_group(launch, session):
    assert _run(launch) == Action.Status.SUCCEEDED

    row = Instance.objects.get(launch_action_id=launch.pk)
    assert launch.result["instance_id"] == row.instance_id
    assert (row.lifecycle, row.instance_type) == ("spot", "m5.large")
    assert (row.changed_by_plan_id, row.node_group.kind) == (launch.plan_id, NodeGroup.Kind.SPOTOPT)
    assert [each.instance_id for each in ec2.launched_for_action(session, action_id=str(launch.pk))] == [
        row.instance_id
    ]


def test_given_a_dry_spot_pool_when_launched_then_on_demand_serves_and_the_pool_rests(aws, launch, zone_id):
    aws.server.faults.no_capacity = {"*:m5.large:spot"}

    assert _run(launch) == Action.Status.SUCCEEDED

    assert launch.result["lifecycle"] == "on_demand"
    pool = PoolState.objects.get(zone_id=zone_id, instance_type="m5.large", capacity_type="spot")
    assert pool.back_off_seconds == 180
    assert timedelta(seconds=170) < pool.back_off_until - utcnow() <= timedelta(seconds=180)


def test_given_a_resting_pool_when_launched_then_aws_is_not_asked_for_it(launch, zone_id):
    PoolState.objects.create(
        region="us-east-1", zone_id=zone_id, instance_type="m5.large", capacity_type="spot",
        back_off_seconds=180, back_off_until=utcnow() + timedelta(minutes=2),
    )  # fmt: skip

    assert _run(launch) == Action.Status.SUCCEEDED

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

    assert _run(launch) == Action.Status.SUCCEEDED

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

    assert _run(launch) == Action.Status.SUCCEEDED, launch.error_message

    versions = {request["launch_template"]["version"] for request in launch.asked["fleets"]}
    assert versions == {"1", "2"}


def test_given_an_unchanged_group_when_launched_again_then_our_template_gets_no_new_version(
    aws, cluster, session, zone_id, launch
):
    _run(launch)
    params = {"instance_type": "m5.large", "zone_id": zone_id, "capacity_type": "spot"}
    again = _request(cluster, "launch_node", "n2", params)

    assert _run(again) == Action.Status.SUCCEEDED

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
        made = admin.create_launch_template_version(LaunchTemplateId=template.id, LaunchTemplateData=data)[
            "LaunchTemplateVersion"
        ]
        NodeGroup.objects.update(launch_template_version=str(made["VersionNumber"]))
        templates = OwnTemplates(session, cluster, NodeGroup.objects.get(cluster=cluster, name=GROUP))
        newest = templates.version_for("spot")

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

    assert _run(launch) == Action.Status.FAILED

    assert launch.error_code == "user_data_unreadable"
    assert GROUP in launch.error_message


def test_given_spot_partly_dry_and_on_demand_throttled_when_tried_again_then_aws_is_asked_the_same(
    launch, zone_id, monkeypatch
):
    spot = [f"{zone_id}:m5.xlarge:spot"]
    Action.objects.filter(pk=launch.pk).update(
        params=launch.params | {"alternatives": [*spot, *launch.params["alternatives"]]}
    )
    real, asked, throttled = ec2.create_instant_fleet, {}, []

    def strict(**request):
        pools = [(pool.instance_type, pool.subnet_id) for pool in request["overrides"]]
        assert asked.setdefault(request["client_token"], pools) == pools  # else AWS: the parameters differ
        if request["capacity_type"] == "spot":
            codes = ("InsufficientInstanceCapacity", "Unsupported")
            refused = (PoolRefusal(*pool, "", code, "") for pool, code in zip(pools, codes, strict=True))
            return LaunchResult("fleet-1", (), tuple(refused))
        if not throttled:
            throttled.append(request)
            raise AwsThrottled("Slow down.")
        return real(**request)

    monkeypatch.setattr(ec2, "create_instant_fleet", strict)
    assert _run(launch) == "waiting"
    with _later(timedelta(seconds=16)):
        assert _run(launch, "two") == Action.Status.SUCCEEDED

    assert launch.result["lifecycle"] == "on_demand"


def test_given_a_lost_answer_and_pools_that_rest_meanwhile_when_tried_again_then_nothing_is_launched_twice(
    aws, launch, zone_id, monkeypatch
):
    before, real = len(aws.alive()), ec2.create_instant_fleet

    def lost(**request):
        real(**request)
        raise AwsTimeout("No answer.")

    with monkeypatch.context() as broken:
        broken.setattr(ec2, "create_instant_fleet", lost)
        broken.setattr(ec2, "launched_for_action", lambda *_, **__: ())
        assert _run(launch) == "waiting"
    PoolState.objects.create(
        region="us-east-1", zone_id=zone_id, instance_type="m5.large", capacity_type="spot",
        back_off_seconds=180, back_off_until=utcnow() + timedelta(minutes=2),
    )  # fmt: skip
    with _later(timedelta(seconds=16)), monkeypatch.context() as blind:
        blind.setattr(ec2, "launched_for_action", lambda *_, **__: ())  # AWS does not show it yet
        assert _run(launch, "two") == Action.Status.SUCCEEDED

    assert launch.result["lifecycle"] == "spot"
    assert len(aws.alive()) == before + 1


def test_given_a_worker_that_was_overtaken_when_it_comes_to_call_aws_then_it_makes_no_call(
    launch, monkeypatch
):
    def overtaken(action):
        Action.objects.filter(pk=action.pk).update(claimed_by="two")

    monkeypatch.setattr(actions, "require_allowed", overtaken)
    monkeypatch.setattr(ec2, "create_instant_fleet", _die)

    assert _run(launch) == "skipped"

    assert (launch.status, launch.claimed_by, launch.asked) == (Action.Status.RUNNING, "two", {})


def test_given_no_capacity_at_all_when_launched_again_and_again_then_the_pause_doubles_and_is_forgotten(
    aws, cluster, zone_id
):
    aws.server.faults.no_capacity = {"*"}
    pauses = []
    for gap in (timedelta(), timedelta(minutes=4), timedelta(hours=2)):
        with _later(gap):
            type(cluster).objects.update(snapshot_at=utcnow())
            action = _request(
                cluster, "launch_node", "n1",
                {"instance_type": "m5.large", "zone_id": zone_id, "capacity_type": "spot"},
            )  # fmt: skip
            assert _run(action) == Action.Status.FAILED
            assert action.error_code == "no_capacity"
        pauses.append(PoolState.objects.get(capacity_type="spot").back_off_seconds)

    assert pauses == [180, 360, 180]
    assert not Instance.objects.filter(launch_action_id__isnull=False).exists()


def test_given_a_worker_that_died_after_the_launch_when_taken_over_then_nothing_is_launched_twice(
    aws, launch, monkeypatch
):
    before = len(aws.alive())
    with monkeypatch.context() as broken:
        broken.setattr(actuation.nodes, "record_launch", _die)
        with pytest.raises(_Killed):
            _run(launch)
    assert _run(launch, "two") == "skipped"

    with _later(timedelta(minutes=2, seconds=1)):
        assert actuation.waiting_actions() == [launch.pk]
        assert _run(launch, "two") == Action.Status.SUCCEEDED

    assert len(aws.alive()) == before + 1
    assert Instance.objects.filter(launch_action_id=launch.pk).count() == 1


class _Killed(Exception):
    """Stands for kill -9."""


def _die(**_):
    raise _Killed


def test_given_an_answer_that_is_lost_when_tried_again_then_the_same_machine_is_found(aws, launch):
    before = len(aws.alive())
    aws.server.faults.fail_after = {"CreateFleet": 1}

    status = _run(launch)
    if status == "waiting":
        with _later(timedelta(seconds=16)):
            status = _run(launch, "two")

    assert status == Action.Status.SUCCEEDED
    assert len(aws.alive()) == before + 1


def test_given_a_freeze_when_a_launch_is_taken_over_then_what_was_launched_is_kept_and_nothing_new_made(
    aws, launch, monkeypatch
):
    before = len(aws.alive())
    with monkeypatch.context() as broken:
        broken.setattr(actuation.ec2, "create_instant_fleet", _die)
        with pytest.raises(_Killed):
            _run(launch)
    platform.set_safe_mode(actor=Actor.system(None), value="freeze")

    with _later(timedelta(minutes=2, seconds=1)):
        assert _run(launch, "two") == Action.Status.REFUSED

    assert launch.error_code == "frozen"
    assert len(aws.alive()) == before


def test_given_throttling_when_actuated_then_it_waits_and_a_later_worker_does_it(aws, launch):
    aws.server.faults.throttle_rate = 1.0
    assert _run(launch) == "waiting"
    assert launch.error_code == "throttled"
    assert actuation.waiting_actions() == []
    aws.server.faults.throttle_rate = 0.0

    with _later(timedelta(seconds=16)):
        assert actuation.waiting_actions() == [launch.pk]
        assert _run(launch, "two") == Action.Status.SUCCEEDED


@pytest.mark.parametrize("fault", ["error_rate", "expired_rate"])
def test_given_a_failure_that_says_nothing_about_the_launch_when_actuated_then_a_later_worker_does_it(
    aws, launch, fault
):
    setattr(aws.server.faults, fault, 1.0)
    first = _run(launch)
    setattr(aws.server.faults, fault, 0.0)

    with _later(timedelta(seconds=16)):
        second = _run(launch, "two")

    assert (first, second) == ("waiting", Action.Status.SUCCEEDED)


def test_given_aws_away_for_longer_than_patience_when_reaped_then_the_action_fails(launch):
    actions.claim_for_actuator(action_id=launch.pk, worker="one")

    with _later(timedelta(minutes=34)):
        assert actions.reap(organization_id=launch.organization_id) == 0
    with _later(timedelta(minutes=36)):
        assert actions.reap(organization_id=launch.organization_id) == 1

    launch.refresh_from_db()
    assert (launch.status, launch.error_code) == (Action.Status.FAILED, "lease_expired")


def test_given_a_worker_that_was_overtaken_when_it_fails_then_the_newer_holder_decides(launch):
    old = actions.claim_for_actuator(action_id=launch.pk, worker="one")
    with _later(timedelta(minutes=2, seconds=1)):
        actions.claim_for_actuator(action_id=launch.pk, worker="two")

    status = actuation._close(old, actuation.Outcome(is_success=False, error_code="x"))

    launch.refresh_from_db()
    assert (status, launch.status, launch.claimed_by) == ("skipped", Action.Status.RUNNING, "two")


def test_given_a_group_at_its_minimum_when_a_member_leaves_then_the_minimum_gives_way_and_is_remembered(
    cluster, session, group
):
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.desired)
    twin = NodeGroupFactory(cluster=ClusterFactory(account=cluster.account), name=GROUP)
    node = cluster.instances.get(instance_id=group.instance_ids[0])

    action = _terminate(cluster, node)
    status = _run(action)

    after = autoscaling.describe_group(session, name=GROUP)
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.min_size)
    assert status == Action.Status.SUCCEEDED
    assert (after.desired, after.min_size) == (group.desired - 1, group.desired - 1)
    assert NodeGroup.objects.get(cluster=cluster, name=GROUP).original_min_size == group.desired
    twin.refresh_from_db()
    assert twin.original_min_size is None
    node.refresh_from_db()
    assert (node.state, node.changed_by_plan_id) == (Instance.State.TERMINATED, action.plan_id)


def test_given_an_instance_of_another_cluster_when_terminated_then_it_fails_and_the_instance_lives(
    aws, cluster, session
):
    stranger = autoscaling.describe_group(session, name="development-general").instance_ids[0]
    node = InstanceFactory(cluster=cluster, instance_id=stranger)

    action = _terminate(cluster, node)

    assert _run(action) == Action.Status.FAILED
    assert action.error_code == "foreign_instance"
    assert ec2.describe_instances(session, instance_ids=[stranger])[0].state == "running"
    node.refresh_from_db()
    assert node.state == Instance.State.RUNNING


def test_given_a_node_that_aws_no_longer_knows_when_terminated_then_it_succeeds_with_a_note(cluster):
    node = cluster.instances.filter(node_group__name="others").first()

    action = _terminate(cluster, node)

    assert _run(action) == Action.Status.SUCCEEDED
    assert action.result["note"] == "AWS no longer knows the instance."


def test_given_a_node_that_aws_took_back_when_terminated_then_no_saving_is_ours(cluster, session, group):
    node = cluster.instances.get(instance_id=group.instance_ids[0])
    action = _terminate(cluster, node)
    actions.claim_for_actuator(action_id=action.pk, worker="one")

    found = replace(
        ec2.describe_instances(session, instance_ids=[node.instance_id])[0],
        state="terminated",
        end_reason="Server.SpotInstanceTermination",
    )
    row = actuation.nodes.record_termination(action=action, found=found, is_ours=True)

    assert (row.state, row.changed_by_plan_id) == (Instance.State.TERMINATED, None)
    assert row.price == Decimal("0.192000")


def _booked(node):
    with _later(timedelta(hours=1)):
        book_savings(organization_id=node.organization_id)
    return sum(entry.usd for entry in SavingsEntry.objects.filter(instance=node))


def test_given_a_member_that_somebody_else_ended_when_terminated_then_no_saving_is_booked(
    aws, cluster, session, group
):
    node = cluster.instances.get(instance_id=group.instance_ids[0])
    action = _terminate(cluster, node)
    aws.room.terminate(node.instance_id, reason="user", at=utcnow())

    assert _run(action) == Action.Status.SUCCEEDED

    node.refresh_from_db()
    assert autoscaling.describe_group(session, name=GROUP).desired == group.desired  # which replaces it
    assert (node.state, node.changed_by_plan_id) == (Instance.State.TERMINATED, None)
    assert node.node_group.desired_capacity == group.desired
    assert _booked(node) == 0


def test_given_a_member_that_its_group_is_ending_when_terminated_then_it_is_left_to_that(
    aws, cluster, session, group, monkeypatch
):
    node = cluster.instances.get(instance_id=group.instance_ids[0])
    leaving = replace(group, leaving_ids=frozenset({node.instance_id}))
    monkeypatch.setattr(autoscaling, "describe_group", lambda *_, **__: leaving)
    monkeypatch.setattr(autoscaling, "terminate_in_group", _die)

    assert _run(_terminate(cluster, node)) == Action.Status.SUCCEEDED

    node.refresh_from_db()
    assert (node.state, node.changed_by_plan_id) == (Instance.State.STOPPING, None)


def test_given_an_answer_that_is_lost_when_terminated_again_then_the_saving_is_ours_and_taken_out_once(
    cluster, session, group, monkeypatch
):
    node, real = cluster.instances.get(instance_id=group.instance_ids[0]), autoscaling.terminate_in_group

    def lost(**request):
        real(**request)
        raise AwsTimeout("No answer.")

    action = _terminate(cluster, node)
    with monkeypatch.context() as broken:
        broken.setattr(autoscaling, "terminate_in_group", lost)
        assert _run(action) == "waiting"
    with _later(timedelta(seconds=16)):
        assert _run(action, "two") == Action.Status.SUCCEEDED

    node.refresh_from_db()
    assert autoscaling.describe_group(session, name=GROUP).desired == group.desired - 1
    assert node.changed_by_plan_id == action.plan_id


def test_given_a_hook_that_holds_the_instance_when_terminated_then_booking_waits_for_its_end(
    aws, cluster, session, group, monkeypatch
):
    node = cluster.instances.get(instance_id=group.instance_ids[0])
    monkeypatch.setattr(autoscaling, "terminate_in_group", lambda **_: None)  # Terminating:Wait
    assert _run(_terminate(cluster, node)) == Action.Status.SUCCEEDED

    _scan(cluster, session, node)
    node.refresh_from_db()
    held = (node.state, node.terminated_at, _booked(node))
    aws.room.terminate(node.instance_id, reason="auto-scaling", at=utcnow())
    _scan(cluster, session, node)
    node.refresh_from_db()

    assert held == (Instance.State.STOPPING, None, 0)
    assert node.state == Instance.State.TERMINATED
    assert abs(_booked(node) - node.price) < Decimal("0.001")


def _scan(cluster, session, node):
    found = ec2.describe_instances(session, instance_ids=[node.instance_id])
    apply_region(account=cluster.account, inventory=RegionInventory("us-east-1", utcnow(), found, (), ()))


def test_given_a_lowered_minimum_when_restored_then_aws_grows_the_group_and_no_plan_lowers_it_again(
    cluster, session, group, actor
):
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.desired)
    _run(_terminate(cluster, cluster.instances.get(instance_id=group.instance_ids[0])))
    row = NodeGroup.objects.get(cluster=cluster, name=GROUP)

    asked = groups.restore_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=actor)
    again = groups.restore_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=actor)
    status = _run(asked)

    after = autoscaling.describe_group(session, name=GROUP)
    row.refresh_from_db()
    refused = _terminate(cluster, cluster.instances.get(instance_id=group.instance_ids[1]))
    _run(refused)
    unchanged = autoscaling.describe_group(session, name=GROUP)
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.min_size)
    assert (again.pk, status) == (asked.pk, Action.Status.SUCCEEDED)
    assert (after.min_size, after.desired) == (group.desired, group.desired)
    assert (row.min_size, row.original_min_size, row.keeps_minimum) == (group.desired, None, True)
    assert (refused.status, refused.error_code) == (Action.Status.REFUSED, "group_minimum")
    assert unchanged.min_size == group.desired


def test_given_a_restoring_that_ran_when_it_runs_again_then_nothing_changes(cluster, session, group, actor):
    row = NodeGroup.objects.get(cluster=cluster, name=GROUP)
    NodeGroup.objects.filter(pk=row.pk).update(original_min_size=group.min_size)
    asked = groups.restore_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=actor)
    held = actions.claim_for_actuator(action_id=asked.pk, worker="one")

    first = actuation._restore_minimum(held, session)
    second = actuation._restore_minimum(held, session)

    assert first == second
    assert autoscaling.describe_group(session, name=GROUP).desired == group.desired


def test_given_a_minimum_that_plans_keep_when_released_then_it_is_recorded_once(cluster, actor):
    row = NodeGroup.objects.get(cluster=cluster, name=GROUP)
    NodeGroup.objects.filter(pk=row.pk).update(keeps_minimum=True)

    for _ in range(2):
        released = groups.release_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=actor)

    assert not released.keeps_minimum
    assert AuditLog.objects.filter(event="clusters.group.minimum_released").count() == 1


def test_given_a_minimum_that_was_never_lowered_when_restored_then_it_is_a_conflict(cluster, actor):
    row = NodeGroup.objects.get(cluster=cluster, name=GROUP)

    with pytest.raises(Conflict, match="never lowered"):
        groups.restore_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=actor)


def test_given_an_interrupted_member_when_detached_twice_then_its_group_asks_for_one_less_and_it_lives_on(
    aws, cluster, session, group
):
    node = cluster.instances.filter(node_group__name=GROUP).first()
    params = {"group_name": GROUP, "instance_id": node.instance_id}

    first, second = (_request(cluster, "detach_instance", node.node_name, params) for _ in range(2))
    assert [_run(first), _run(second)] == ["succeeded", "succeeded"]

    after = autoscaling.describe_group(session, name=GROUP)
    assert (after.desired, after.min_size) == (group.desired - 1, group.min_size)
    assert node.instance_id not in after.instance_ids
    assert node.instance_id in {machine.instance_id for machine in aws.alive()}
    assert [first.result["detached"], second.result["detached"]] == [True, False]


def test_given_a_group_at_its_minimum_when_a_member_is_interrupted_then_the_group_replaces_it_itself(
    cluster, session, group
):
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.desired)
    node = cluster.instances.filter(node_group__name=GROUP).first()
    params = {"group_name": GROUP, "instance_id": node.instance_id}
    action = _request(cluster, "detach_instance", node.node_name, params)

    _run(action)

    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.min_size)
    assert action.result["detached"] is False
    assert node.instance_id in autoscaling.describe_group(session, name=GROUP).instance_ids


def test_given_a_group_whose_terminations_somebody_suspended_when_a_plan_terminates_then_it_is_refused(
    aws, cluster, session
):
    node = cluster.instances.filter(node_group__name=GROUP).first()
    admin = aws.client("autoscaling")
    admin.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["Terminate"])

    action = _terminate(cluster, node)
    status = _run(action)

    admin.resume_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["Terminate"])
    assert (status, action.error_code) == ("refused", "group_suspended")
    assert node.instance_id in {machine.instance_id for machine in aws.alive()}


def test_given_a_replacement_of_a_foreign_node_when_launched_then_nothing_is_booked_for_it(cluster, launch):
    node = cluster.instances.filter(node_group__name=GROUP).first()
    Action.objects.filter(pk=launch.pk).update(params=launch.params | {"replaces": node.instance_id})
    launch.refresh_from_db()

    _run(launch)

    row = Instance.objects.get(launch_action_id=launch.pk)
    assert (row.changed_by_plan_id, row.booking_ended_at) == (None, row.launched_at)


def test_given_an_instance_that_aws_does_not_show_yet_when_launched_then_it_is_found_later_and_launched_once(
    launch, monkeypatch, session
):
    real = ec2.known_instances
    monkeypatch.setattr(ec2, "known_instances", lambda *_, **__: ())
    assert _run(launch) == "waiting"
    monkeypatch.setattr(ec2, "known_instances", real)

    with _later(timedelta(seconds=20)):
        assert _run(launch, "two") == Action.Status.SUCCEEDED

    assert len(ec2.launched_for_action(session, action_id=str(launch.pk))) == 1


def test_given_an_account_that_was_disconnected_when_an_action_is_due_then_aws_is_not_asked(
    launch, linked, aws
):
    type(linked).objects.filter(pk=linked.pk).update(status="disconnected")
    before = len(list(aws.alive()))

    assert actuation.actuate(action_id=launch.pk, worker="w") == "failed"

    launch.refresh_from_db()
    assert launch.error_code == "account_disconnected"
    assert len(list(aws.alive())) == before
