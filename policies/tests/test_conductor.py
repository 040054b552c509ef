"""Plans carried out on rows, step by step."""

from datetime import timedelta
from decimal import Decimal

from django.db import connection

from audit.models import AuditLog
from clusters.models import Action, Instance, Price
from clusters.services import actions
from clusters.tests.factories import (
    InstanceFactory,
)
from policies.models import Plan
from policies.services import conductor, execution, run
from policies.services.policies import PolicyChange, change_policy
from policies.tests.stage import run_plan
from spotopt.core.clock import utcnow


def _kinds_done(plan):
    return [(s.wave, s.kind, s.status) for s in plan.steps.order_by("seq")]


def test_given_an_approved_plan_when_it_runs_then_every_step_completes_in_order(
    plan, executor, owner, cluster
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)

    run_plan(plan, executor)

    assert plan.status == Plan.Status.COMPLETED, plan.stop_reason
    assert {status for *_, status in _kinds_done(plan)} == {"completed"}
    assert executor.launched == 2
    assert executor.most_disrupted == 1
    assert Instance.objects.filter(state="terminated").count() == 2
    assert not Instance.objects.filter(is_cordoned=True, state="running").exists()
    assert AuditLog.objects.filter(event="policies.plan.completed").count() == 1
    for number in (1, 2):
        ends = {s.kind: s.finished_at for s in plan.steps.filter(wave=number)}
        assert ends["launch"] < ends["cordon"] <= ends["drain"] < ends["terminate"] < ends["verify"]


def test_given_a_policy_that_surges_when_the_plan_drains_then_the_agent_is_told(
    plan, executor, owner, cluster
):
    change = PolicyChange(config={"binpack": {"surge_single_replicas": True}})
    change_policy(cluster_id=cluster.pk, change=change, actor=owner)
    execution.approve_plan(plan_id=plan.pk, actor=owner)

    run_plan(plan, executor)

    drains = Action.objects.filter(kind="drain_node")
    assert [action.params.get("surge") for action in drains] == [True, True]
    assert not Action.objects.exclude(kind="drain_node").filter(params__has_key="surge").exists()


def test_given_two_workers_when_each_tick_runs_twice_then_nothing_happens_twice(plan, executor, owner):
    execution.approve_plan(plan_id=plan.pk, actor=owner)

    for _ in range(60):
        execution.advance_plan(plan_id=plan.pk)
        execution.advance_plan(plan_id=plan.pk)
        executor.step()

    plan.refresh_from_db()
    assert plan.status == Plan.Status.COMPLETED
    assert executor.launched == 2
    assert Action.objects.filter(kind="terminate_instance").count() == 2


def test_given_no_capacity_anywhere_when_it_runs_then_it_stops_after_three_tries_and_touches_nothing(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    executor.broken["launch_node"] = "no_capacity"

    run_plan(plan, executor, ticks=100)

    assert plan.status == Plan.Status.STOPPED
    assert "no_capacity" in plan.stop_reason
    assert Action.objects.filter(kind="launch_node").count() == 3
    assert not Action.objects.filter(kind__in=["cordon_node", "drain_node", "terminate_instance"]).exists()


def test_given_an_agent_that_is_away_while_a_node_boots_when_it_is_back_then_no_second_node_was_bought(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    execution.advance_plan(plan_id=plan.pk)
    executor.is_silent = True
    run_plan(plan, executor, ticks=40)
    executor.is_silent = False
    actions.reap(organization_id=plan.organization_id)

    run_plan(plan, executor)

    assert plan.status == Plan.Status.COMPLETED, plan.stop_reason
    assert executor.launched == 2


def test_given_pods_that_find_no_place_when_verifying_then_the_plan_stops(plan, executor, owner, cluster):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: plan.steps.filter(kind="terminate", status="completed").exists())
    cluster.workloads.filter(pk=cluster.workloads.first().pk).update(pending_replicas=3)

    run_plan(plan, executor, ticks=80, until=lambda: plan.status == Plan.Status.STOPPING)

    assert "3 pods found no place" in plan.stop_reason
    assert plan.steps.get(wave=2, kind="drain").status != "completed"


def test_given_pods_that_waited_before_when_as_many_others_wait_after_then_the_plan_stops_all_the_same(
    plan, executor, owner, cluster
):
    job, evicted = cluster.workloads.all()[:2]
    cluster.workloads.filter(pk=job.pk).update(pending_replicas=2)
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: plan.steps.filter(kind="terminate", status="completed").exists())
    cluster.workloads.filter(pk=job.pk).update(pending_replicas=0)
    cluster.workloads.filter(pk=evicted.pk).update(pending_replicas=2)

    run_plan(plan, executor, ticks=80, until=lambda: plan.status == Plan.Status.STOPPING)

    assert "2 pods found no place" in plan.stop_reason


def test_given_prices_that_rose_since_approval_when_the_wave_would_hardly_save_then_nothing_is_bought(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    Price.objects.create(
        region="us-east-1", zone_id="use1-az1", instance_type="m6i.xlarge", capacity_type="spot",
        usd_per_hour=Decimal("0.14"), observed_at=utcnow(), source="aws",
    )  # fmt: skip

    run_plan(plan, executor)

    assert plan.status == Plan.Status.STOPPED
    assert plan.stop_reason == "Prices rose: the next wave would save $0.0520/h of the $0.1320/h promised."
    assert executor.launched == 0


def test_given_a_launch_that_was_tried_twice_when_both_nodes_live_then_the_plan_pays_for_both(
    plan, executor, owner, monkeypatch
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    launch = executor._launch_node

    def slow_at_first(action):
        launch(action)
        if executor.launched == 1:
            Instance.objects.filter(launch_action_id=action.pk).update(state="running")

    monkeypatch.setattr(executor, "_launch_node", slow_at_first)
    run_plan(plan, executor, until=lambda: executor.launched == 2)
    Instance.objects.filter(launch_action_id__isnull=False).update(is_ready=True)
    run_plan(
        plan, executor, until=lambda: plan.steps.filter(wave=1, kind="verify", status="completed").exists()
    )

    bought = Instance.objects.filter(launch_action_id__isnull=False, state="running")
    assert bought.count() >= 2
    removed = sum(s.usd_per_hour for s in plan.steps.filter(kind="terminate", status="completed"))
    assert run.PlanRun(plan).savings_until(2)[1] == removed - sum(row.price for row in bought)


def test_given_a_node_that_aws_took_before_it_was_terminated_when_verified_then_it_is_no_saving(
    plan, executor, owner, monkeypatch
):
    def taken(action):
        executor._node(action).update(
            state="terminated", terminated_at=utcnow(), is_ready=False,
            termination_reason="Server.SpotInstanceTermination",
        )  # fmt: skip

    monkeypatch.setattr(executor, "_terminate_instance", taken)
    execution.approve_plan(plan_id=plan.pk, actor=owner)

    run_plan(
        plan, executor, until=lambda: plan.steps.filter(wave=1, kind="verify", status="completed").exists()
    )

    assert plan.steps.get(wave=1, kind="terminate").status == "completed"
    assert run.PlanRun(plan).savings_until(1)[1] == -Decimal("0.06")


def test_given_a_new_node_that_aws_takes_when_another_stands_in_for_it_then_the_plan_pays_for_that_one(
    plan, executor, owner, cluster
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(
        plan, executor, until=lambda: plan.steps.filter(wave=1, kind="verify", status="completed").exists()
    )
    reaction = actions.request_action(
        cluster=cluster, kind="launch_node", target="stand-in", params={}, reason="", actor=owner,
        idempotency_key="stand-in", is_voluntary=False,
    )  # fmt: skip
    first = Instance.objects.filter(launch_action_id__isnull=False).order_by("launched_at").first()
    saved = run.PlanRun(plan).savings_until(1)[1]

    Instance.objects.filter(pk=first.pk).update(state="terminated", terminated_at=utcnow())
    InstanceFactory(
        cluster=cluster, price=first.price, launch_action_id=reaction.pk, changed_by_plan_id=plan.pk
    )

    assert run.PlanRun(plan).savings_until(1)[1] == saved


def test_given_a_node_that_costs_far_more_than_quoted_when_its_wave_is_verified_then_the_plan_stops_short(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: executor.launched)
    Instance.objects.filter(launch_action_id__isnull=False).update(price=Decimal("0.19"))

    run_plan(plan, executor)

    assert plan.status == Plan.Status.STOPPED
    assert plan.stop_code == "savings_short"
    assert not plan.steps.filter(wave=2, kind="drain", status="completed").exists()


def test_given_a_person_who_stops_it_when_it_runs_then_pending_actions_are_cancelled(plan, executor, owner):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    execution.advance_plan(plan_id=plan.pk)

    execution.stop_plan(plan_id=plan.pk, actor=owner, reason="Not today.")

    assert set(Action.objects.values_list("status", flat=True)) == {"cancelled"}
    run_plan(plan, executor, ticks=60)
    assert plan.status == Plan.Status.STOPPED
    assert plan.stop_reason.startswith("Not today.")


def test_given_an_action_claimed_meanwhile_when_stopped_then_it_is_let_finish(plan, executor, owner):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    execution.advance_plan(plan_id=plan.pk)
    claimed = Action.objects.filter(kind="launch_node").get()
    actions.claim_for_actuator(action_id=claimed.pk, worker="w")

    execution.stop_plan(plan_id=plan.pk, actor=owner)

    claimed.refresh_from_db()
    assert claimed.status == Action.Status.RUNNING
    assert not Action.objects.filter(status=Action.Status.PENDING).exists()


def test_given_an_agent_silent_at_the_start_when_it_runs_then_nothing_is_bought(plan, owner, cluster, clock):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    clock.shift(timedelta(minutes=2))

    execution.advance_plan(plan_id=plan.pk)

    assert not Action.objects.filter(kind="launch_node").exists()
    assert set(plan.steps.values_list("status", flat=True)) == {"planned"}


def test_given_a_wait_for_the_budget_when_it_runs_then_no_attempt_is_used_up(plan, executor, owner, cluster):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    other = cluster.instances.order_by("node_name").last()
    run_plan(
        plan, executor, until=lambda: plan.steps.filter(wave=1, kind="launch", status="completed").exists()
    )
    Instance.objects.filter(pk=other.pk).update(is_cordoned=True)
    run_plan(plan, executor, ticks=8)
    cordon = plan.steps.get(wave=1, kind="cordon")
    assert (cordon.status, cordon.attempts) == ("planned", 0)
    Instance.objects.filter(pk=other.pk).update(is_cordoned=False)

    run_plan(plan, executor)

    cordon.refresh_from_db()
    assert (plan.status, cordon.status, cordon.attempts) == (Plan.Status.COMPLETED, "completed", 1)


def test_given_a_plan_that_starts_when_it_requests_then_each_request_is_a_transaction_of_its_own(
    plan, owner, monkeypatch
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    outside, depths = len(connection.savepoint_ids), []
    request = run.request_action

    def watched(**given):
        depths.append(len(connection.savepoint_ids))
        return request(**given)

    monkeypatch.setattr(run, "request_action", watched)

    execution.advance_plan(plan_id=plan.pk)

    assert len(depths) > 1
    assert set(depths) == {outside + 1}


def test_given_a_person_who_stops_it_in_the_middle_of_a_tick_when_it_goes_on_then_nothing_is_requested(
    plan, owner, monkeypatch
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    tick = conductor.Conductor.tick

    def stopped_meanwhile(self):
        execution.stop_plan(plan_id=plan.pk, actor=owner)
        tick(self)

    monkeypatch.setattr(conductor.Conductor, "tick", stopped_meanwhile)

    execution.advance_plan(plan_id=plan.pk)

    plan.refresh_from_db()
    assert plan.status == Plan.Status.STOPPING
    assert not Action.objects.filter(plan_id=plan.pk).exists()


def test_given_a_new_node_that_aws_takes_before_it_is_ready_when_the_plan_goes_on_then_another_is_launched(
    plan, executor, owner
):
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    execution.advance_plan(plan_id=plan.pk)
    executor.is_silent = True
    executor.step()
    executor.is_silent = False
    Instance.objects.filter(launch_action_id__isnull=False).update(
        state="terminated", terminated_at=utcnow(), termination_reason="Server.SpotInstanceTermination"
    )

    run_plan(plan, executor)

    assert plan.status == Plan.Status.COMPLETED, plan.stop_reason
    assert executor.launched == 3
