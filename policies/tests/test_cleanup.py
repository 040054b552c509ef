"""Plans that end: what they leave behind, and what they leave alone."""

import pytest

from accounts import platform
from audit.models import AuditLog
from clusters.domain.interruptions import Kind as NoticeKind
from clusters.domain.interruptions import Notice
from clusters.models import Action, Instance
from clusters.services import interruptions
from clusters.tests.factories import (
    PlacementFactory,
    WorkloadFactory,
)
from policies.models import Plan
from policies.services import execution
from policies.tests.stage import run_plan
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow


def test_given_safe_mode_in_the_middle_when_it_runs_then_it_stops_and_leaves_the_cluster_tidy(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: plan.steps.filter(kind="launch", status="completed").exists())
    platform.set_safe_mode(actor=Actor.system(None), value="on")

    run_plan(plan, executor, ticks=120)

    assert plan.status == Plan.Status.STOPPED
    assert "Safe mode" in plan.stop_reason
    running = Instance.objects.filter(state="running")
    assert not running.filter(is_cordoned=True).exists()
    assert not [i for i in running if i.taints]
    assert not [i for i in running.filter(launch_action_id__isnull=False) if not i.placements.exists()]


def test_given_a_drain_blocked_by_a_budget_when_it_runs_then_that_node_stays_and_is_uncordoned(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    executor.broken["drain_node"] = "pdb_blocked"

    run_plan(plan, executor, ticks=150)

    assert plan.status in (Plan.Status.STOPPED, Plan.Status.COMPLETED)
    assert plan.steps.get(wave=1, kind="drain").status == "failed"
    assert plan.steps.get(wave=1, kind="terminate").status == "skipped"
    assert not Action.objects.filter(
        kind="terminate_instance", target__startswith="ip-", is_voluntary=True
    ).exists()
    assert not Instance.objects.filter(state="running", is_cordoned=True).exists()
    kept = Instance.objects.filter(state="running", launch_action_id__isnull=True).count()
    assert kept == 10


def test_given_a_removal_that_did_not_happen_when_the_plan_ends_then_its_record_says_so(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    plan.steps.update(status="completed")
    plan.steps.filter(kind="terminate", wave=1).update(status="skipped")

    run_plan(plan, executor)

    assert plan.status == Plan.Status.COMPLETED
    told = AuditLog.objects.get(event="policies.plan.completed").sentence
    assert ", 1 removal left out: saves" in told


def test_given_an_agent_that_falls_silent_when_it_runs_then_it_stops_once_the_agent_is_back(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: plan.steps.filter(kind="launch", status="completed").exists())
    executor.is_silent = True
    run_plan(plan, executor, ticks=70, until=lambda: plan.status == Plan.Status.STOPPING)
    assert "silent" in plan.stop_reason
    assert not Action.objects.filter(kind="terminate_instance").exists()

    executor.is_silent = False
    run_plan(plan, executor, ticks=60)

    assert plan.status == Plan.Status.STOPPED
    assert not [i for i in Instance.objects.filter(state="running") if i.is_cordoned or i.taints]


def test_given_an_agent_that_dies_while_a_node_boots_when_tidied_then_the_node_may_have_pods_and_stays(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    execution.advance_plan(plan_id=plan.pk)
    executor.is_silent = True
    executor.step()
    booting = Instance.objects.filter(launch_action_id__isnull=False)
    booting.update(node_name="", state="running")
    executor.is_silent = False
    executor.step()
    executor.is_silent = True

    run_plan(plan, executor, ticks=400)

    assert plan.status == Plan.Status.STOPPED
    assert "The agent is silent" in plan.stop_reason
    assert booting.get().state == "running"


def _fill_old_nodes_first(executor, monkeypatch, doomed):
    """Have pods go to nodes that were there before, so that the new ones stay empty."""

    def drain(action):
        node = Instance.objects.get(instance_id=action.params["instance_id"])
        Instance.objects.filter(pk=node.pk).update(is_cordoned=True)
        room = executor.cluster.instances.filter(state="running", is_cordoned=False, launch_action_id=None)
        node.placements.update(instance=room.exclude(instance_id__in=doomed).first())

    monkeypatch.setattr(executor, "_drain_node", drain)


@pytest.mark.parametrize(("pods", "idle_left"), [([["shop/Deployment/web-0", 1]], 1), ([], 2)])
def test_given_idle_new_nodes_when_the_plan_ends_then_those_stay_that_the_floor_or_the_plan_needs(
    plan, executor, owner, cluster, monkeypatch, pods, idle_left
):
    doomed = [step.params["instance_id"] for step in plan.steps.filter(kind="cordon")]
    for wave in plan.document["waves"]:
        wave["launches"][0]["pods"] = pods
    plan.save()
    kept = cluster.instances.exclude(instance_id__in=doomed).order_by("pk")[:2]
    Instance.objects.exclude(instance_id__in=[*doomed, *(row.instance_id for row in kept)]).delete()
    _fill_old_nodes_first(executor, monkeypatch, doomed)
    execution.approve_plan(plan_id=plan.pk, actor=owner)

    run_plan(plan, executor, ticks=120)

    assert plan.status == Plan.Status.COMPLETED, plan.stop_reason
    ready = cluster.instances.filter(state="running", is_ready=True, is_cordoned=False)
    assert ready.filter(launch_action_id__isnull=False).count() == idle_left
    assert ready.count() >= 3


def test_given_an_idle_new_node_when_retired_then_it_is_drained_of_pods_that_are_still_ending(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: plan.steps.filter(kind="launch", status="completed").exists())
    execution.stop_plan(plan_id=plan.pk, actor=owner)

    run_plan(plan, executor, ticks=40)

    spare = Instance.objects.filter(launch_action_id__isnull=False).first()
    asked = Action.objects.filter(params__instance_id=spare.instance_id).order_by("created_at")
    assert [row.kind for row in asked] == ["cordon_node", "drain_node", "terminate_instance"]


def test_given_a_node_that_a_person_cordoned_when_the_plan_is_stopped_then_it_stays_cordoned(
    plan, executor, owner, cluster
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    execution.stop_plan(plan_id=plan.pk, actor=owner)
    mine = plan.document["waves"][1]["removals"][0]["instance_id"]
    Instance.objects.filter(instance_id=mine).update(is_cordoned=True)
    executor.step()

    run_plan(plan, executor, ticks=20)

    assert plan.status == Plan.Status.STOPPED
    assert Instance.objects.get(instance_id=mine).is_cordoned
    assert not Action.objects.filter(kind="uncordon_node").exists()


def test_given_a_node_that_a_person_cordoned_before_its_drain_failed_when_tidied_then_it_is_left_to_them(
    plan, executor, owner, monkeypatch
):
    theirs = plan.document["waves"][0]["removals"][0]["instance_id"]
    Instance.objects.filter(instance_id=theirs).update(is_cordoned=True)
    executor.broken = {"drain_node": "eviction_blocked"}
    executor.results = {"uncordon_node": {"changed": False, "kept_cordoned": True}}
    monkeypatch.setattr(executor, "_uncordon_node", lambda action: executor._node(action).update(taints=[]))
    execution.approve_plan(plan_id=plan.pk, actor=owner)

    run_plan(plan, executor)

    assert plan.status in (Plan.Status.STOPPED, Plan.Status.COMPLETED)
    assert "tidied" not in plan.stop_reason
    assert Instance.objects.get(instance_id=theirs).is_cordoned
    asked = Action.objects.filter(kind="uncordon_node", params__instance_id=theirs)
    assert asked.count() == 1


def test_given_a_pod_pending_since_before_when_the_plan_is_stopped_then_its_idle_node_goes_all_the_same(
    plan, executor, owner, cluster
):
    cluster.workloads.filter(pk=cluster.workloads.first().pk).update(pending_replicas=1)
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: plan.steps.filter(kind="launch", status="completed").exists())
    execution.stop_plan(plan_id=plan.pk, actor=owner)

    run_plan(plan, executor, ticks=40)

    assert plan.status == Plan.Status.STOPPED
    assert not Instance.objects.filter(launch_action_id__isnull=False, state="running").exists()


def test_given_pods_that_land_on_a_node_being_retired_when_tidied_then_it_is_opened_and_stays(
    plan, executor, owner, cluster
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: plan.steps.filter(kind="launch", status="completed").exists())
    execution.stop_plan(plan_id=plan.pk, actor=owner)
    spare = Instance.objects.filter(launch_action_id__isnull=False)
    run_plan(plan, executor, ticks=40, until=lambda: Action.objects.filter(kind="cordon_node").exists())
    PlacementFactory(workload=WorkloadFactory(cluster=cluster), instance=spare.get(), count=1)

    run_plan(plan, executor, ticks=40)

    assert plan.status == Plan.Status.STOPPED
    assert (spare.get().state, spare.get().is_cordoned) == ("running", False)


def test_given_a_node_that_aws_is_taking_when_the_plan_is_stopped_then_nothing_opens_it(
    plan, executor, owner, cluster
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(
        plan, executor, until=lambda: plan.steps.filter(wave=1, kind="cordon", status="completed").exists()
    )
    node = cluster.instances.get(instance_id=plan.steps.get(wave=1, kind="cordon").params["instance_id"])
    Instance.objects.filter(pk=node.pk).update(lifecycle="spot")
    told = [Notice(NoticeKind.INTERRUPTION, node.instance_id, utcnow())]
    interruptions.notices_from_agent(cluster_id=cluster.pk, notices=told)
    execution.stop_plan(plan_id=plan.pk, actor=owner)

    run_plan(plan, executor, ticks=5)

    node.refresh_from_db()
    assert (node.state, node.is_cordoned) == ("running", True)
    assert not Action.objects.filter(kind="uncordon_node", params__instance_id=node.instance_id).exists()


def test_given_a_node_that_aws_takes_while_its_plan_runs_then_the_plan_ends_cleanly_and_nothing_stays_closed(
    plan, executor, owner, cluster
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: Action.objects.filter(kind="cordon_node").exists())
    going = cluster.instances.get(instance_id=Action.objects.get(kind="cordon_node").params["instance_id"])
    executor._drain_node(Action.objects.get(kind="cordon_node"))
    Instance.objects.filter(pk=going.pk).update(
        state="terminated", terminated_at=utcnow(), termination_reason="Server.SpotInstanceTermination",
        is_ready=False,
    )  # fmt: skip

    run_plan(plan, executor, ticks=200)

    assert plan.finished_at is not None
    assert not Instance.objects.filter(is_cordoned=True, state="running").exists()
