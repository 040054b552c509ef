"""Capacity in answer to AWS's notices: at once for an interruption, slowly for a rebalance signal."""

from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine

from accounts import platform
from clusters.domain.interruptions import Kind, Notice
from clusters.models import Action, Instance, InstanceType, Interruption, Price
from clusters.services import interruptions
from clusters.tests.factories import (
    ClusterFactory,
    InstanceFactory,
    NodeGroupFactory,
    PlacementFactory,
    WorkloadFactory,
)
from policies.models import ClusterPolicy
from policies.services.answering import answer_interruptions
from policies.services.policies import default_policy_for
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow

TYPES = {"m5.xlarge": 4, "m5.2xlarge": 8, "m6i.xlarge": 4}


@pytest.fixture
def clock():
    with time_machine.travel("2026-11-23T12:00:00Z", tick=False) as traveller:
        yield traveller


@pytest.fixture
def market(db, clock):
    for name, vcpu in TYPES.items():
        family, _, size = name.partition(".")
        InstanceType.objects.create(
            name=name, family=family, size=size, category="general", generation=5, arch="x86_64", vcpu=vcpu,
            memory_mib=vcpu * 4096, max_pods=58, cpu_allocatable_millis=vcpu * 980,
            memory_allocatable_mib=vcpu * 3600,
        )  # fmt: skip
        for zone_id in ("use1-az1", "use1-az2", ""):
            Price.objects.create(
                region="us-east-1", zone_id=zone_id, instance_type=name, observed_at=utcnow(), source="aws",
                capacity_type="spot" if zone_id else "on_demand",
                usd_per_hour=Decimal(vcpu) / (60 if zone_id else 20),
            )  # fmt: skip


@pytest.fixture
def cluster(in_acme, market):
    row = ClusterFactory()
    for number in range(10):
        zone = "ab"[number % 2]
        node = InstanceFactory(
            cluster=row, lifecycle="spot", az=f"us-east-1{zone}", az_id=f"use1-az{number % 2 + 1}",
            last_seen_at=utcnow(),
        )  # fmt: skip
        PlacementFactory(workload=WorkloadFactory(cluster=row, replicas=1), instance=node)
    default_policy_for(row)
    return row


def notice(cluster, *nodes, kind=Kind.INTERRUPTION):
    told = [Notice(kind, node.instance_id, utcnow()) for node in nodes]
    interruptions.notices_from_agent(cluster_id=cluster.pk, notices=told)


def replace_on_rebalance(cluster):
    policy = ClusterPolicy.objects.get(cluster=cluster)
    policy.config = policy.config | {"provisioning": {"on_rebalance": "replace"}}
    policy.save()


def launches():
    return list(Action.objects.filter(kind="launch_node").order_by("created_at"))


def close(action, status="succeeded", **changes):
    Action.objects.filter(pk=action.pk).update(status=status, finished_at=utcnow(), **changes)


def booting(cluster, launch):
    """Return the row of a launched node that has not joined."""
    return InstanceFactory(
        cluster=cluster, lifecycle="spot", launch_action_id=launch.pk, node_name="", is_ready=False,
        launched_at=utcnow(),
    )  # fmt: skip


def pass_time(cluster, clock, step, times):
    """Let the agent report and the ticks run."""
    for _ in range(times):
        clock.shift(step)
        type(cluster).objects.filter(pk=cluster.pk).update(snapshot_at=utcnow())
        interruptions.follow()
        answer_interruptions()


def test_given_an_interruption_when_answered_twice_then_one_replacement_is_launched_elsewhere(cluster):
    node = cluster.instances.first()
    notice(cluster, node)

    assert [answer_interruptions(), answer_interruptions()] == [1, 0]

    (launch,) = launches()
    assert launch.is_voluntary is False
    assert launch.params["replaces"] == node.instance_id
    assert launch.params["capacity_type"] == "spot"
    assert (launch.params["zone_id"], launch.params["instance_type"]) != (node.az_id, node.instance_type)
    assert Interruption.objects.get().replacement_action_id == launch.pk


def test_given_a_decision_that_a_crash_left_behind_when_answered_then_it_is_made_again(cluster, clock):
    notice(cluster, cluster.instances.first())
    Interruption.objects.update(replacement_decided_at=utcnow())
    assert answer_interruptions() == 0

    clock.shift(timedelta(seconds=16))

    assert answer_interruptions() == 1


def test_given_a_policy_that_leaves_no_pool_when_answered_then_the_reason_is_kept(cluster):
    Price.objects.all().delete()
    notice(cluster, cluster.instances.first())

    assert [answer_interruptions(), answer_interruptions()] == [0, 0]

    assert Interruption.objects.get().note == "No pool that the policy allows holds the node's pods."


def test_given_the_default_policy_when_aws_recommends_a_rebalance_then_nothing_moves(cluster):
    notice(cluster, *cluster.instances.all(), kind=Kind.REBALANCE)

    assert answer_interruptions() == 0

    assert set(Interruption.objects.values_list("status", flat=True)) == {"watched"}
    assert not Action.objects.exists()


def test_given_automation_that_is_off_when_aws_recommends_a_rebalance_then_nothing_moves(cluster):
    replace_on_rebalance(cluster)
    ClusterPolicy.objects.update(is_active=False)
    notice(cluster, cluster.instances.first(), kind=Kind.REBALANCE)

    answer_interruptions()

    assert launches() == []
    assert Interruption.objects.get().status == "watched"


def test_given_a_storm_when_signals_are_served_then_one_node_an_hour_changes_hands(cluster, clock):
    replace_on_rebalance(cluster)
    notice(cluster, *cluster.instances.all(), kind=Kind.REBALANCE)

    for _ in range(200):
        answer_interruptions()
        clock.shift(timedelta(seconds=10))

    assert len(launches()) == 1
    assert Interruption.objects.filter(status="watched").count() == 9


def test_given_a_rebalance_signal_when_served_then_the_new_node_is_ready_before_the_old_one_closes(
    cluster, clock
):
    replace_on_rebalance(cluster)
    old = cluster.instances.first()
    notice(cluster, old, kind=Kind.REBALANCE)
    answer_interruptions()
    (launch,) = launches()
    assert launch.is_voluntary is True
    close(launch)
    new = InstanceFactory(cluster=cluster, lifecycle="spot", launch_action_id=launch.pk, is_ready=False)
    answer_interruptions()
    assert not Action.objects.filter(kind="cordon_node").exists()

    Instance.objects.filter(pk=new.pk).update(is_ready=True)
    for kind in ("cordon_node", "drain_node"):
        answer_interruptions()
        step = Action.objects.get(kind=kind)
        assert (step.params["instance_id"], step.is_voluntary) == (old.instance_id, True)
        close(step)
    Instance.objects.filter(pk=old.pk).update(is_cordoned=True)
    old.placements.all().delete()
    answer_interruptions()

    assert Action.objects.get(kind="terminate_instance").target == old.node_name
    Instance.objects.filter(pk=old.pk).update(state="terminated", terminated_at=utcnow())
    interruptions.follow()
    assert Interruption.objects.get().status == "moved"


def rebalance_under_way(cluster):
    """Return the old node, whose replacement is Ready and whose cordon is asked for."""
    replace_on_rebalance(cluster)
    old = cluster.instances.first()
    notice(cluster, old, kind=Kind.REBALANCE)
    answer_interruptions()
    (launch,) = launches()
    close(launch)
    InstanceFactory(cluster=cluster, lifecycle="spot", launch_action_id=launch.pk)
    answer_interruptions()
    return old


def test_given_a_rebalance_drain_that_an_interruption_cuts_short_when_answered_then_the_node_stays_closed(
    cluster, clock
):
    old = rebalance_under_way(cluster)
    close(Action.objects.get(kind="cordon_node"), result={"changed": True})
    answer_interruptions()
    drain = Action.objects.get(kind="drain_node")
    clock.shift(timedelta(seconds=5))
    notice(cluster, old)
    close(drain, "failed", error_code="interrupted", error_message="Something more urgent came up.")

    answer_interruptions()

    assert not Action.objects.filter(kind="uncordon_node").exists()
    assert not Action.objects.filter(kind="terminate_instance").exists()
    assert Interruption.objects.get(kind="rebalance").status == "open"


def test_given_a_drain_that_failed_when_a_signal_is_served_then_the_node_is_opened_and_stays(cluster, clock):
    replace_on_rebalance(cluster)
    old = cluster.instances.first()
    notice(cluster, old, kind=Kind.REBALANCE)
    answer_interruptions()
    (launch,) = launches()
    close(launch)
    InstanceFactory(cluster=cluster, lifecycle="spot", launch_action_id=launch.pk)
    answer_interruptions()
    close(Action.objects.get(kind="cordon_node"))
    answer_interruptions()
    close(Action.objects.get(kind="drain_node"), "failed", error_message="A budget lets no pod go.")

    answer_interruptions()

    row = Interruption.objects.get()
    assert (row.status, row.note) == ("watched", "A budget lets no pod go.")
    assert Action.objects.get(kind="uncordon_node").is_voluntary is False


def test_given_a_rebalance_replacement_that_boots_when_the_interruption_comes_then_no_second_one_is_bought(
    cluster, clock
):
    replace_on_rebalance(cluster)
    old = cluster.instances.first()
    notice(cluster, old, kind=Kind.REBALANCE)
    answer_interruptions()
    (launch,) = launches()
    close(launch)
    booting(cluster, launch)

    notice(cluster, old)
    pass_time(cluster, clock, timedelta(seconds=20), 2)

    assert launches() == [launch]
    assert Interruption.objects.get(kind="interruption").replacement_action_id == launch.pk


def test_given_a_karpenter_node_that_aws_takes_when_answered_then_it_is_left_to_karpenter(cluster, clock):
    replace_on_rebalance(cluster)
    pool = NodeGroupFactory(cluster=cluster, kind="karpenter_nodepool", asg_name="", launch_template_id="")
    cluster.instances.update(node_group=pool)
    taken, advised = cluster.instances.all()[:2]
    notice(cluster, taken)
    notice(cluster, advised, kind=Kind.REBALANCE)

    pass_time(cluster, clock, timedelta(seconds=20), 2)

    assert launches() == []
    assert Interruption.objects.get(instance=advised).note == "Karpenter looks after its nodes itself."


def test_given_launches_that_fail_when_answered_then_other_pools_are_tried_three_times_in_all(cluster, clock):
    notice(cluster, cluster.instances.first())
    answer_interruptions()

    for _ in range(8):
        for launch in launches():
            close(launch, "failed", error_code="no_capacity")
        clock.shift(timedelta(seconds=16))
        answer_interruptions()

    tried = [{f"{p['zone_id']}:{p['instance_type']}:{p['capacity_type']}", *p["alternatives"]}
             for p in (launch.params for launch in launches())]  # fmt: skip
    assert 1 < len(tried) <= 3
    assert not set.intersection(*tried[:2])
    assert Interruption.objects.get().note


def test_given_a_replacement_that_never_joins_when_its_time_is_over_then_it_goes_and_another_comes(
    cluster, clock
):
    node = cluster.instances.first()
    notice(cluster, node)
    answer_interruptions()
    (launch,) = launches()
    close(launch)
    stuck = booting(cluster, launch)
    Instance.objects.filter(pk=node.pk).update(state="terminated", terminated_at=utcnow())

    pass_time(cluster, clock, timedelta(minutes=1), 5)
    assert launches() == [launch]
    pass_time(cluster, clock, timedelta(minutes=1), 2)

    assert Action.objects.get(kind="terminate_instance").params["instance_id"] == stuck.instance_id
    assert len(launches()) == 2
    assert Interruption.objects.get().replacement_action_id == launches()[1].pk


def test_given_a_member_of_a_group_when_replaced_then_it_leaves_the_group_once_its_replacement_is_ready(
    cluster, clock
):
    notice(cluster, cluster.instances.first())
    answer_interruptions()
    (launch,) = launches()
    close(launch)
    new = booting(cluster, launch)
    answer_interruptions()
    detached = Action.objects.filter(kind="detach_instance")
    assert not detached.exists()

    Instance.objects.filter(pk=new.pk).update(is_ready=True, node_name="new")
    answer_interruptions()
    answer_interruptions()

    assert detached.count() == 1


def test_given_a_rebalance_replacement_that_never_joins_when_time_passes_then_the_signal_is_let_go(
    cluster, clock
):
    replace_on_rebalance(cluster)
    notice(cluster, cluster.instances.first(), kind=Kind.REBALANCE)
    answer_interruptions()
    (launch,) = launches()
    close(launch)
    stuck = booting(cluster, launch)

    pass_time(cluster, clock, timedelta(minutes=2), 3)

    assert Interruption.objects.get().status == "watched"
    assert Action.objects.get(kind="terminate_instance").params["instance_id"] == stuck.instance_id


def test_given_a_pause_in_the_middle_of_a_rebalance_when_time_passes_then_the_node_is_opened(cluster, clock):
    rebalance_under_way(cluster)
    close(Action.objects.get(kind="cordon_node"), result={"changed": True})
    type(cluster).objects.filter(pk=cluster.pk).update(maintenance_mode=True)

    pass_time(cluster, clock, timedelta(seconds=10), 1)

    assert Action.objects.get(kind="uncordon_node").is_voluntary is False
    assert Interruption.objects.get().status == "watched"


def test_given_a_notice_under_a_freeze_when_the_freeze_is_lifted_then_the_node_is_replaced(cluster, clock):
    platform.set_safe_mode(actor=Actor.system(None), value="freeze")
    notice(cluster, cluster.instances.first())
    assert answer_interruptions() == 0
    assert launches() == []

    platform.set_safe_mode(actor=Actor.system(None), value="off")
    pass_time(cluster, clock, timedelta(seconds=16), 1)

    assert len(launches()) == 1
