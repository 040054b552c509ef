"""What AWS takes back: notices from every side, the reaction, and how it ends."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import platform
from audit.models import AuditLog
from clusters.domain.interruptions import Kind, Notice, Reception, rebalance_budget
from clusters.models import Action, Instance, Interruption
from clusters.services import interruptions, overdue
from clusters.services.actions import finish
from clusters.services.handover import claim_for_agent
from clusters.tests.factories import ClusterFactory, InstanceFactory, PlacementFactory, WorkloadFactory
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow


@pytest.fixture
def cluster(in_acme):
    return ClusterFactory()


@pytest.fixture
def node(cluster):
    return InstanceFactory(cluster=cluster, lifecycle="spot")


def interruption(node, ago=timedelta(0)):
    return Notice(Kind.INTERRUPTION, node.instance_id, utcnow() - ago)


def tell(node, *notices):
    return interruptions.notices_from_agent(cluster_id=node.cluster_id, notices=notices)


def kinds(node):
    rows = Action.objects.filter(params__instance_id=node.instance_id).order_by("created_at")
    return [row.kind for row in rows]


def kinds_of(actions):
    return [action.kind for action in actions]


def take(node, reason="Server.SpotInstanceTermination"):
    Instance.objects.filter(pk=node.pk).update(
        state="terminated", terminated_at=utcnow(), termination_reason=reason
    )


def test_given_a_notice_when_told_then_the_node_is_closed_and_drained_before_the_deadline(node):
    PlacementFactory(workload=WorkloadFactory(cluster=node.cluster), instance=node, count=7)
    PlacementFactory(workload=WorkloadFactory(cluster=node.cluster, kind="DaemonSet"), instance=node)

    assert tell(node, interruption(node)) == [Reception.RECORDED]

    row = Interruption.objects.get(instance=node)
    assert (row.source, row.status, row.pods_at_notice, row.is_verified) == ("agent", "open", 7, False)
    assert kinds(node) == ["cordon_node", "drain_node"]
    drain = Action.objects.get(kind="drain_node")
    assert drain.params == {
        "node_name": node.node_name,
        "instance_id": node.instance_id,
        "deadline": row.deadline.isoformat(),
    }
    assert not Action.objects.filter(is_voluntary=True).exists()
    assert AuditLog.objects.filter(event="clusters.interruption.noticed").count() == 1


def test_given_a_known_notice_when_told_from_anywhere_then_nothing_more_happens(node):
    tell(node, interruption(node))

    again = interruptions.notices_from_queue(
        account_id=node.account_id, notices=[interruption(node), interruption(node)]
    )

    assert again == [Reception.KNOWN, Reception.KNOWN]
    assert kinds(node) == ["cordon_node", "drain_node"]


def test_given_a_pause_and_safe_mode_when_a_notice_comes_then_the_node_is_saved_all_the_same(node):
    node.cluster.maintenance_mode = True
    node.cluster.save(update_fields=["maintenance_mode", "updated_at"])
    platform.set_safe_mode(actor=Actor.system(None), value="on")

    tell(node, interruption(node))

    claimed = claim_for_agent(cluster_id=node.cluster_id, agent_id="agent-1", deliver=kinds_of)
    assert claimed == ["cordon_node", "drain_node"]


def test_given_many_notices_when_claimed_then_every_cordon_goes_before_any_drain_and_any_plan(cluster):
    nodes = InstanceFactory.create_batch(3, cluster=cluster, lifecycle="spot")

    interruptions.notices_from_agent(cluster_id=cluster.pk, notices=[interruption(node) for node in nodes])

    claimed = claim_for_agent(cluster_id=cluster.pk, agent_id="agent-1", deliver=kinds_of)
    assert claimed == ["cordon_node"] * 3 + ["drain_node"] * 3


def test_given_ten_times_the_notices_when_taken_in_and_claimed_then_it_takes_no_more_queries(cluster):
    def queries(count):
        nodes = InstanceFactory.create_batch(count, cluster=cluster, lifecycle="spot")
        with CaptureQueriesContext(connection) as taken:
            interruptions.notices_from_agent(
                cluster_id=cluster.pk, notices=[interruption(node) for node in nodes]
            )
            claimed = claim_for_agent(
                cluster_id=cluster.pk, agent_id="agent-1", deliver=list, limit=2 * count
            )
        assert len(claimed) == 2 * count
        return len(taken)

    queries(1)  # begins the record
    assert queries(1) == queries(10)


def test_given_one_node_named_twice_when_told_then_the_second_is_known(node):
    assert tell(node, interruption(node), interruption(node)) == [Reception.RECORDED, Reception.KNOWN]


@pytest.mark.parametrize(
    ("change", "ago", "reception"),
    [
        ({}, timedelta(minutes=6), Reception.STALE),
        ({"lifecycle": "on_demand"}, timedelta(0), Reception.NOT_SPOT),
        ({"state": "terminated", "terminated_at": utcnow()}, timedelta(0), Reception.KNOWN),
    ],
)
def test_given_a_notice_that_cannot_count_when_told_then_nothing_is_touched(node, change, ago, reception):
    Instance.objects.filter(pk=node.pk).update(**change)

    assert tell(node, interruption(node, ago)) == [reception]

    assert not Interruption.objects.exists()
    assert not Action.objects.exists()


def test_given_another_clusters_node_when_an_agent_names_it_then_it_is_unknown(node):
    stranger = ClusterFactory(account=node.account)

    answer = interruptions.notices_from_agent(cluster_id=stranger.pk, notices=[interruption(node)])

    assert answer == [Reception.UNKNOWN_NODE]
    assert not Action.objects.exists()


def test_given_a_deadline_years_ahead_when_told_then_two_minutes_count(node):
    now = utcnow()

    tell(node, Notice(Kind.INTERRUPTION, node.instance_id, now, deadline=now + timedelta(days=900)))

    assert Interruption.objects.get().deadline == now + timedelta(minutes=2)


def test_given_a_rebalance_signal_when_told_then_it_is_kept_and_nothing_is_done_yet(node):
    assert tell(node, Notice(Kind.REBALANCE, node.instance_id, utcnow())) == [Reception.RECORDED]

    assert Interruption.objects.get().deadline is None
    assert not Action.objects.exists()


def test_given_an_open_notice_when_aws_took_the_node_then_it_ends_verified(node):
    tell(node, interruption(node))
    take(node)

    assert interruptions.follow() == 1

    row = Interruption.objects.get()
    assert (row.status, row.is_verified) == ("taken", True)
    assert interruptions.follow() == 0


def test_given_a_notice_that_nobody_confirms_when_the_node_goes_otherwise_then_it_stays_unverified(node):
    tell(node, interruption(node))
    take(node, "Client.UserInitiatedShutdown")

    interruptions.follow()

    assert Interruption.objects.get().is_verified is False


def test_given_a_crash_after_the_row_when_followed_then_cordon_and_drain_are_asked_for(node):
    tell(node, interruption(node))
    Action.objects.all().delete()

    interruptions.follow()
    interruptions.follow()

    assert kinds(node) == ["cordon_node", "drain_node"]


@pytest.mark.parametrize(
    ("code", "rescues"), [("interrupted", 3), ("kubernetes_unreachable", 3), ("deadline_passed", 1)]
)
def test_given_a_rescue_that_ended_early_when_followed_then_only_what_was_broken_off_is_asked_for_again(
    node, time_machine, code, rescues
):
    time_machine.move_to(utcnow(), tick=False)
    tell(node, interruption(node))
    drains = Action.objects.filter(kind="drain_node")

    for _ in range(2):
        drains.filter(status="pending").update(status="failed", error_code=code, finished_at=utcnow())
        interruptions.follow()
        interruptions.follow()

    assert drains.count() == rescues
    drains.filter(status="pending").update(status="failed", error_code=code, finished_at=utcnow())
    time_machine.move_to(utcnow() + timedelta(minutes=2), tick=False)
    interruptions.follow()
    assert drains.count() == rescues


@pytest.mark.parametrize(("changed", "expected"), [(True, ["uncordon_node"]), (False, [])])
def test_given_a_false_alarm_when_followed_then_only_our_own_cordon_is_taken_back(
    node, time_machine, changed, expected
):
    now = utcnow()
    time_machine.move_to(now, tick=False)
    tell(node, interruption(node))
    _end_actions(changed)
    time_machine.move_to(now + timedelta(minutes=8), tick=False)

    assert interruptions.follow() == 0  # AWS has not been asked
    Instance.objects.filter(pk=node.pk).update(last_seen_at=utcnow())
    assert interruptions.follow() == 1

    assert Interruption.objects.get().status == "false_alarm"
    assert kinds(node) == ["cordon_node", "drain_node", *expected]


def _end_actions(changed):
    system = Actor.system(None)
    for action in Action.objects.all():
        Action.objects.filter(pk=action.pk).update(status="running")
        action.refresh_from_db()
        system = Actor.system(action.organization_id)
        finish(action=action, status="succeeded", actor=system, result={"changed": changed})


def test_given_a_false_alarm_when_a_true_one_follows_then_it_is_answered_like_the_first(node, time_machine):
    now = utcnow()
    time_machine.move_to(now, tick=False)
    tell(node, interruption(node))
    Interruption.objects.update(status="false_alarm", ended_at=now)
    time_machine.move_to(now + timedelta(hours=1), tick=False)

    assert tell(node, interruption(node)) == [Reception.RECORDED]

    assert kinds(node).count("cordon_node") == 2


def test_given_a_spot_node_that_aws_took_in_silence_when_looked_for_then_the_loss_is_noted_once(
    node, cluster
):
    take(node)
    take(InstanceFactory(cluster=cluster, lifecycle="spot"), "Client.UserInitiatedShutdown")

    assert [interruptions.record_losses(), interruptions.record_losses()] == [1, 0]

    row = Interruption.objects.get()
    assert (row.source, row.status, row.is_verified) == ("scan", "taken", True)


def test_given_a_storm_when_signals_are_counted_then_one_at_a_time_and_a_tenth_an_hour_is_served():
    assert rebalance_budget(nodes=300, served_lately=0, under_way=0) == 1
    assert rebalance_budget(nodes=300, served_lately=29, under_way=0) == 1
    assert rebalance_budget(nodes=300, served_lately=30, under_way=0) == 0
    assert rebalance_budget(nodes=300, served_lately=0, under_way=1) == 0
    assert rebalance_budget(nodes=4, served_lately=0, under_way=0) == 1


def test_given_an_overdue_node_when_aws_is_asked_then_its_end_is_known(aws, linked):
    machine = next(each for each in aws.alive() if each.cluster == "acme-production")
    node = InstanceFactory(
        cluster=ClusterFactory(account=linked, name="acme-production"), instance_id=machine.instance_id,
        lifecycle="spot", last_seen_at=utcnow() - timedelta(hours=1),
    )  # fmt: skip
    tell(node, interruption(node))
    Interruption.objects.update(deadline=utcnow() - timedelta(minutes=1))

    assert [overdue.look_at_overdue(), overdue.look_at_overdue()] == [0, 0]

    node.refresh_from_db()
    assert utcnow() - node.last_seen_at < timedelta(minutes=1)
    aws.room.terminate(machine.instance_id, reason="spot-interruption", at=utcnow())
    Instance.objects.filter(pk=node.pk).update(last_seen_at=utcnow() - timedelta(minutes=1))
    assert overdue.look_at_overdue() == 1
    assert interruptions.follow() == 1
    assert Interruption.objects.get().is_verified is True
