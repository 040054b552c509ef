"""Nodes taken out of groups over the wire, and what becomes of the groups."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from audit.models import AuditLog
from clusters.aws import autoscaling, ec2
from clusters.aws.errors import AwsTimeout
from clusters.domain.capacity import RegionInventory
from clusters.models import Action, Instance, NodeGroup, SavingsEntry
from clusters.services import actions, groups, leaving, nodes
from clusters.services.ledger import book_savings
from clusters.services.region_sync import apply_region
from clusters.tests.acting import GROUP, die, later, request, run, terminate
from clusters.tests.factories import ClusterFactory, InstanceFactory, NodeGroupFactory
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict


def test_given_a_group_at_its_minimum_when_a_member_leaves_then_the_minimum_gives_way_and_is_remembered(
    cluster, session, group
):
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.desired)
    twin = NodeGroupFactory(cluster=ClusterFactory(account=cluster.account), name=GROUP)
    node = cluster.instances.get(instance_id=group.instance_ids[0])

    action = terminate(cluster, node)
    status = run(action)

    after = autoscaling.describe_group(session, name=GROUP)
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.min_size)
    assert status == Action.Status.SUCCEEDED
    assert (after.desired, after.min_size) == (group.desired - 1, group.desired - 1)
    assert NodeGroup.objects.get(cluster=cluster, name=GROUP).original_min_size == group.desired
    lowered = AuditLog.objects.get(event="clusters.group.minimum_lowered")
    assert (lowered.before, lowered.after["minimum"]) == ({"minimum": group.desired}, group.desired - 1)
    twin.refresh_from_db()
    assert twin.original_min_size is None
    node.refresh_from_db()
    assert (node.state, node.changed_by_plan_id) == (Instance.State.TERMINATED, action.plan_id)


def test_given_a_group_that_no_scan_has_found_when_a_member_leaves_then_nothing_stays_changed_unrecorded(
    cluster, session, group
):
    autoscaling.resume(session=session, group_name=GROUP, process="AZRebalance")
    NodeGroup.objects.filter(cluster=cluster, name=GROUP).update(asg_name="")
    node, other = (cluster.instances.get(instance_id=each) for each in group.instance_ids[:2])
    left = run(terminate(cluster, node))
    after = autoscaling.describe_group(session, name=GROUP)
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=after.desired)

    refused = terminate(cluster, other)
    run(refused)

    kept = autoscaling.describe_group(session, name=GROUP)
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.min_size)
    assert (left, after.suspended) == (Action.Status.SUCCEEDED, frozenset())
    assert (refused.status, refused.error_code) == (Action.Status.REFUSED, "group_minimum")
    assert kept.min_size == after.desired


def test_given_two_members_that_leave_at_once_when_the_second_meets_the_minimum_then_it_looks_again(
    cluster, session, group, monkeypatch
):
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.desired)
    first, other = (cluster.instances.get(instance_id=each) for each in group.instance_ids[:2])
    real = autoscaling.describe_group(session, name=GROUP)
    assert run(terminate(cluster, first)) == Action.Status.SUCCEEDED
    second = terminate(cluster, other)
    with monkeypatch.context() as outdated:
        outdated.setattr(autoscaling, "describe_group", lambda *_, **__: real)
        waiting = run(second)
    with later(timedelta(seconds=21)):
        status = run(second, "two")

    after = autoscaling.describe_group(session, name=GROUP)
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.min_size)
    assert (waiting, status) == ("waiting", Action.Status.SUCCEEDED)
    assert after.desired == group.desired - 2


def test_given_a_member_that_somebody_protects_when_a_plan_terminates_it_then_it_is_refused(
    aws, cluster, group
):
    node = cluster.instances.get(instance_id=group.instance_ids[0])
    admin, protected = (
        aws.client("autoscaling"),
        {"AutoScalingGroupName": GROUP, "InstanceIds": [node.instance_id]},
    )
    admin.set_instance_protection(**protected, ProtectedFromScaleIn=True)

    action = terminate(cluster, node)
    status = run(action)

    admin.set_instance_protection(**protected, ProtectedFromScaleIn=False)
    assert (status, action.error_code) == ("refused", "instance_protected")
    assert node.instance_id in {machine.instance_id for machine in aws.alive()}


def test_given_an_instance_of_another_cluster_when_terminated_then_it_fails_and_the_instance_lives(
    aws, cluster, session
):
    stranger = autoscaling.describe_group(session, name="development-general").instance_ids[0]
    node = InstanceFactory(cluster=cluster, instance_id=stranger)

    action = terminate(cluster, node)

    assert run(action) == Action.Status.FAILED
    assert action.error_code == "foreign_instance"
    assert ec2.describe_instances(session, instance_ids=[stranger])[0].state == "running"
    node.refresh_from_db()
    assert node.state == Instance.State.RUNNING


def test_given_a_node_that_aws_no_longer_knows_when_terminated_then_it_succeeds_with_a_note(cluster):
    node = cluster.instances.filter(node_group__name="others").first()

    action = terminate(cluster, node)

    assert run(action) == Action.Status.SUCCEEDED
    assert action.result["note"] == "AWS no longer knows the instance."


def test_given_a_node_that_aws_took_back_when_terminated_then_no_saving_is_ours(cluster, session, group):
    node = cluster.instances.get(instance_id=group.instance_ids[0])
    action = terminate(cluster, node)
    actions.claim_for_actuator(action_id=action.pk, worker="one")

    found = replace(
        ec2.describe_instances(session, instance_ids=[node.instance_id])[0],
        state="terminated",
        end_reason="Server.SpotInstanceTermination",
    )
    row = nodes.record_termination(action=action, found=found, is_ours=True)

    assert (row.state, row.changed_by_plan_id) == (Instance.State.TERMINATED, None)
    assert row.price == Decimal("0.192000")


def _booked(node):
    with later(timedelta(hours=1)):
        book_savings(organization_id=node.organization_id)
    return sum(entry.usd for entry in SavingsEntry.objects.filter(instance=node))


def test_given_a_member_that_somebody_else_ended_when_terminated_then_no_saving_is_booked(
    aws, cluster, session, group
):
    node = cluster.instances.get(instance_id=group.instance_ids[0])
    action = terminate(cluster, node)
    aws.room.terminate(node.instance_id, reason="user", at=utcnow())

    assert run(action) == Action.Status.SUCCEEDED

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
    monkeypatch.setattr(autoscaling, "terminate_in_group", die)

    assert run(terminate(cluster, node)) == Action.Status.SUCCEEDED

    node.refresh_from_db()
    assert (node.state, node.changed_by_plan_id) == (Instance.State.STOPPING, None)


def test_given_an_answer_that_is_lost_when_terminated_again_then_the_saving_is_ours_and_taken_out_once(
    cluster, session, group, monkeypatch
):
    node, real = cluster.instances.get(instance_id=group.instance_ids[0]), autoscaling.terminate_in_group

    def lost(**request):
        real(**request)
        raise AwsTimeout("No answer.")

    action = terminate(cluster, node)
    with monkeypatch.context() as broken:
        broken.setattr(autoscaling, "terminate_in_group", lost)
        assert run(action) == "waiting"
    with later(timedelta(seconds=21)):
        assert run(action, "two") == Action.Status.SUCCEEDED

    node.refresh_from_db()
    assert autoscaling.describe_group(session, name=GROUP).desired == group.desired - 1
    assert node.changed_by_plan_id == action.plan_id


def test_given_a_hook_that_holds_the_instance_when_terminated_then_booking_waits_for_its_end(
    aws, cluster, session, group, monkeypatch
):
    node = cluster.instances.get(instance_id=group.instance_ids[0])
    monkeypatch.setattr(autoscaling, "terminate_in_group", lambda **_: None)  # Terminating:Wait
    assert run(terminate(cluster, node)) == Action.Status.SUCCEEDED

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
    cluster, session, group, owner
):
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.desired)
    run(terminate(cluster, cluster.instances.get(instance_id=group.instance_ids[0])))
    row = NodeGroup.objects.get(cluster=cluster, name=GROUP)

    asked = groups.restore_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=owner)
    again = groups.restore_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=owner)
    status = run(asked)

    after = autoscaling.describe_group(session, name=GROUP)
    row.refresh_from_db()
    refused = terminate(cluster, cluster.instances.get(instance_id=group.instance_ids[1]))
    run(refused)
    unchanged = autoscaling.describe_group(session, name=GROUP)
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.min_size)
    assert (again.pk, status) == (asked.pk, Action.Status.SUCCEEDED)
    assert (after.min_size, after.desired) == (group.desired, group.desired)
    assert (row.min_size, row.original_min_size, row.keeps_minimum) == (group.desired, None, True)
    assert (refused.status, refused.error_code) == (Action.Status.REFUSED, "group_minimum")
    assert unchanged.min_size == group.desired


def test_given_a_restoring_that_ran_when_it_runs_again_then_nothing_changes(cluster, session, group, owner):
    row = NodeGroup.objects.get(cluster=cluster, name=GROUP)
    NodeGroup.objects.filter(pk=row.pk).update(original_min_size=group.min_size)
    asked = groups.restore_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=owner)
    held = actions.claim_for_actuator(action_id=asked.pk, worker="one")

    first = leaving.restore_minimum(held, session)
    second = leaving.restore_minimum(held, session)

    assert first == second
    assert autoscaling.describe_group(session, name=GROUP).desired == group.desired


def test_given_a_minimum_that_plans_keep_when_released_then_it_is_recorded_once(cluster, owner):
    row = NodeGroup.objects.get(cluster=cluster, name=GROUP)
    NodeGroup.objects.filter(pk=row.pk).update(keeps_minimum=True)

    for _ in range(2):
        released = groups.release_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=owner)

    assert not released.keeps_minimum
    assert AuditLog.objects.filter(event="clusters.group.minimum_released").count() == 1


def test_given_a_minimum_that_was_never_lowered_when_restored_then_it_is_a_conflict(cluster, owner):
    row = NodeGroup.objects.get(cluster=cluster, name=GROUP)

    with pytest.raises(Conflict, match="never lowered"):
        groups.restore_minimum(cluster_id=cluster.pk, group_id=row.pk, actor=owner)


def test_given_an_interrupted_member_when_detached_twice_then_its_group_asks_for_one_less_and_it_lives_on(
    aws, cluster, session, group
):
    node = cluster.instances.filter(node_group__name=GROUP).first()
    params = {"group_name": GROUP, "instance_id": node.instance_id}

    first, second = (request(cluster, "detach_instance", node.node_name, params) for _ in range(2))
    assert [run(first), run(second)] == ["succeeded", "succeeded"]

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
    action = request(cluster, "detach_instance", node.node_name, params)

    run(action)

    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=group.min_size)
    assert action.result["detached"] is False
    assert node.instance_id in autoscaling.describe_group(session, name=GROUP).instance_ids


def test_given_a_group_whose_terminations_somebody_suspended_when_a_plan_terminates_then_it_is_refused(
    aws, cluster, session
):
    node = cluster.instances.filter(node_group__name=GROUP).first()
    admin = aws.client("autoscaling")
    admin.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["Terminate"])

    action = terminate(cluster, node)
    status = run(action)

    admin.resume_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["Terminate"])
    assert (status, action.error_code) == ("refused", "group_suspended")
    assert node.instance_id in {machine.instance_id for machine in aws.alive()}
