"""When the optimizer runs, what it refuses to begin, and who may let its plan go."""

from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine

from accounts.models import Account
from audit.models import AuditLog
from clusters.models import Cluster, Instance, Price, Workload
from clusters.tests.factories import (
    ClusterFactory,
    InstanceFactory,
    NodeGroupFactory,
    PlacementFactory,
    WorkloadFactory,
)
from policies.models import ClusterPolicy, OptimizationJob, Plan
from policies.services import execution, jobs, planning
from policies.services.explaining import GIVES_WAY_AFTER
from policies.services.policies import default_policy_for
from policies.tests.factories import JobFactory, PlanFactory, StepFactory
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, Forbidden, GuardrailViolated, NotFound, TooManyRequests
from spotopt.core.tenancy import tenant

Status = OptimizationJob.Status


@pytest.fixture
def cluster(in_acme):
    row = ClusterFactory()
    group = NodeGroupFactory(cluster=row)
    for _ in range(6):
        node = InstanceFactory(cluster=row, node_group=group)
        PlacementFactory(workload=WorkloadFactory(cluster=row, replicas=1), instance=node, count=1)
    return row


def _ask(cluster, actor):
    return planning.request_optimization(cluster_id=cluster.pk, actor=actor)


def _plan_of(job):
    return planning.run_job(job_id=job.pk)


def test_given_a_reporting_cluster_when_asked_and_run_then_a_plan_with_its_steps_is_proposed(
    cluster, owner, prices
):
    job = _ask(cluster, owner)

    plan = _plan_of(job)

    job.refresh_from_db()
    assert (job.status, job.phase, job.results["plan_id"]) == (Status.COMPLETED, "Done", str(plan.pk))
    assert plan.status == Plan.Status.PROPOSED
    assert plan.usd_per_hour_before == Decimal("1.152000")
    assert plan.usd_per_hour_saved >= 0
    removals = sum(len(wave["removals"]) for wave in plan.document["waves"])
    assert plan.steps.filter(kind="terminate").count() == removals
    assert _plan_of(job) is None  # a second worker finds nothing to do


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"maintenance_mode": True}, "paused for maintenance"),
        ({"snapshot_at": None}, "has not reported yet"),
        ({"snapshot_at": "old"}, "silent for over five minutes"),
    ],
)
def test_given_a_cluster_that_is_not_ready_when_asked_then_it_refuses_and_writes_nothing(
    cluster, owner, changes, reason
):
    old = utcnow() - timedelta(minutes=5, seconds=1)
    Cluster.objects.update(**{name: old if value == "old" else value for name, value in changes.items()})

    with pytest.raises(Conflict, match=reason):
        _ask(cluster, owner)

    assert not OptimizationJob.objects.exists()
    assert not AuditLog.objects.exists()


def test_given_a_disconnected_account_when_asked_then_it_refuses(cluster, owner):
    Account.objects.update(status=Account.Status.DISCONNECTED)

    with pytest.raises(Conflict, match="disconnected"):
        _ask(cluster, owner)


def test_given_a_removed_cluster_when_asked_then_it_is_not_found(cluster, owner):
    Cluster.objects.update(removed_at=utcnow())

    with pytest.raises(NotFound):
        _ask(cluster, owner)


def test_given_a_run_under_way_when_asked_again_then_it_names_that_run(cluster, owner):
    job = _ask(cluster, owner)

    with pytest.raises(Conflict) as conflict:
        _ask(cluster, owner)

    assert conflict.value.extra["job_id"] == str(job.pk)
    assert OptimizationJob.objects.count() == 1


def test_given_a_plan_under_way_when_asked_then_it_names_that_plan(cluster, owner):
    plan = PlanFactory(cluster=cluster, status=Plan.Status.RUNNING)

    with pytest.raises(Conflict) as conflict:
        _ask(cluster, owner)

    assert conflict.value.extra["plan_id"] == str(plan.pk)


def test_given_a_run_moments_ago_when_asked_then_it_says_how_long_to_wait_and_then_runs(cluster, owner):
    with time_machine.travel("2026-11-23T12:00:00Z", tick=False) as clock:
        Cluster.objects.update(snapshot_at=utcnow())
        JobFactory(cluster=cluster, status=Status.COMPLETED, trigger=OptimizationJob.Trigger.MANUAL)
        clock.shift(timedelta(minutes=4))
        with pytest.raises(TooManyRequests) as refusal:
            _ask(cluster, owner)
        clock.shift(timedelta(minutes=1))
        Cluster.objects.update(snapshot_at=utcnow())

        job = _ask(cluster, owner)

    assert 60 <= refusal.value.extra["retry_after_seconds"] <= 61
    assert job.status == Status.QUEUED


def test_given_a_viewer_when_asking_or_cancelling_then_both_are_forbidden(cluster, viewer, acme, owner):
    actor = Actor(kind="user", organization_id=acme.pk, label="vera", id=str(viewer.pk), role="viewer")
    job = _ask(cluster, owner)

    with pytest.raises(Forbidden):
        _ask(cluster, actor)
    with pytest.raises(Forbidden):
        jobs.cancel_job(job_id=job.pk, actor=actor)

    job.refresh_from_db()
    assert job.status == Status.QUEUED


def test_given_no_prices_when_run_then_the_job_fails_with_the_reason_and_no_plan(cluster, owner, monkeypatch):
    asked = []
    monkeypatch.setattr(planning, "refresh_spot_prices", lambda: asked.append(1))
    job = _ask(cluster, owner)

    assert _plan_of(job) is None

    job.refresh_from_db()
    assert asked == [1]
    assert job.status == Status.FAILED
    assert job.error_message.startswith("No prices are known")
    assert not Plan.objects.exists()


def test_given_spot_prices_that_are_missing_when_run_then_they_are_read_first(
    cluster, owner, prices, monkeypatch
):
    spot = Price.objects.get(capacity_type="spot")
    usd, pk = spot.usd_per_hour, spot.pk
    Price.objects.filter(pk=pk).update(capacity_type="on_demand", zone_id="elsewhere")
    monkeypatch.setattr(
        planning,
        "refresh_spot_prices",
        lambda: Price.objects.filter(pk=pk).update(capacity_type="spot", zone_id="use1-az1"),
    )

    plan = _plan_of(_ask(cluster, owner))

    assert plan is not None
    assert Price.objects.get(pk=pk).usd_per_hour == usd
    assert Price.objects.get(pk=pk).capacity_type == "spot"


def test_given_clusters_that_report_when_refreshed_twice_then_each_is_asked_for_once(cluster, in_acme):
    silent = ClusterFactory(snapshot_at=utcnow() - timedelta(minutes=6))
    paused = ClusterFactory(maintenance_mode=True)

    assert planning.refresh_proposals() == 1
    assert planning.refresh_proposals() == 0

    assert [job.cluster_id for job in OptimizationJob.objects.all()] == [cluster.pk]
    assert not OptimizationJob.objects.filter(cluster__in=[silent, paused]).exists()


def test_given_a_job_whose_worker_died_when_swept_twice_then_it_fails_once(cluster):
    job = JobFactory(cluster=cluster, status=Status.RUNNING, started_at=utcnow() - timedelta(minutes=31))
    JobFactory(cluster=ClusterFactory(), status=Status.RUNNING, started_at=utcnow() - timedelta(minutes=29))

    assert jobs.fail_stuck_jobs() == 1
    assert jobs.fail_stuck_jobs() == 0

    job.refresh_from_db()
    assert (job.status, job.error_message) == (Status.FAILED, "The worker stopped before it finished.")
    assert AuditLog.objects.filter(event="policies.optimization.failed").count() == 1


def test_given_a_slow_worker_whose_job_was_given_up_when_it_ends_then_nothing_of_it_is_kept(
    cluster, owner, prices, monkeypatch
):
    standing = PlanFactory(cluster=cluster)
    OptimizationJob.objects.update(trigger=OptimizationJob.Trigger.DISCOVERY)  # no cooldown
    job = _ask(cluster, owner)
    propose = planning.propose

    def slowly(**facts):
        OptimizationJob.objects.filter(pk=job.pk).update(started_at=utcnow() - timedelta(minutes=31))
        assert jobs.fail_stuck_jobs() == 1
        return propose(**facts)

    monkeypatch.setattr(planning, "propose", slowly)

    assert _plan_of(job) is None

    job.refresh_from_db()
    standing.refresh_from_db()
    assert (job.status, job.error_message) == (Status.FAILED, "The worker stopped before it finished.")
    assert standing.status == Plan.Status.PROPOSED
    assert Plan.objects.count() == 1


def test_given_a_run_under_way_when_cancelled_then_it_stops_before_its_next_step_and_keeps_nothing(
    cluster, owner, prices, monkeypatch
):
    job = _ask(cluster, owner)
    heard = []

    def searching(*, watch, **facts):
        watch("first", 0.2)
        jobs.cancel_job(job_id=job.pk, actor=owner)
        heard.append("first")
        watch("second", 0.4)
        heard.append("second")

    monkeypatch.setattr(planning, "propose", searching)

    assert _plan_of(job) is None

    job.refresh_from_db()
    assert (job.status, heard) == (Status.CANCELLED, ["first"])
    assert not Plan.objects.exists()


def test_given_a_run_when_it_searches_then_its_progress_is_stored(cluster, owner, prices, monkeypatch):
    job, seen = _ask(cluster, owner), []
    propose = planning.propose

    def observed(*, watch, **facts):
        def look(step, share):
            watch(step, share)
            seen.append(OptimizationJob.objects.values_list("phase", "progress_percent").get(pk=job.pk))

        return propose(watch=look, **facts)

    monkeypatch.setattr(planning, "propose", observed)

    _plan_of(job)

    assert seen[0] == ("Bounding the cost from below", 10)
    assert [percent for _, percent in seen] == sorted(percent for _, percent in seen)
    job.refresh_from_db()
    assert (job.phase, job.progress_percent) == ("Done", 100)


def test_given_nothing_to_change_twice_when_run_then_the_empty_plan_is_renewed(cluster, owner, prices):
    Instance.objects.update(price=Decimal("0.000001"))
    first = _plan_of(_ask(cluster, owner))
    OptimizationJob.objects.update(trigger=OptimizationJob.Trigger.DISCOVERY)  # no cooldown

    job = _ask(cluster, owner)
    second = _plan_of(job)

    assert (second.pk, second.job_id, second.status) == (first.pk, job.pk, Plan.Status.PROPOSED)
    assert second.quoted_at > first.quoted_at
    assert Plan.objects.count() == 1
    assert AuditLog.objects.filter(event="policies.plan.proposed").count() == 1


def test_given_a_plan_when_proposed_then_its_constraints_are_priced_afterwards(cluster, owner, prices):
    Workload.objects.update(constraints={"do_not_disrupt": True})

    plan = _plan_of(_ask(cluster, owner))

    plan.refresh_from_db()
    found = plan.constraint_prices
    assert (found["status"], found["tried"]) == ("done", found["candidates"])
    assert {price["code"] for price in found["prices"]} <= {"do_not_disrupt", "az_spread", "headroom"}


def test_given_a_plan_that_was_rejected_meanwhile_when_it_is_explained_then_that_ends_early(
    cluster, owner, prices, monkeypatch
):
    explain = planning.explain_plan

    def late(*, plan, scene):
        execution.reject_plan(plan_id=plan.pk, actor=owner)
        explain(plan=plan, scene=scene)

    monkeypatch.setattr(planning, "explain_plan", late)

    plan = _plan_of(_ask(cluster, owner))

    plan.refresh_from_db()
    assert plan.constraint_prices == {
        "status": "ended", "at": plan.constraint_prices["at"], "tried": 0, "candidates": 0, "prices": [],
    }  # fmt: skip


def test_given_another_organization_s_run_that_waits_when_a_plan_is_explained_then_it_gives_way(
    cluster, owner, prices, rival
):
    Workload.objects.update(constraints={"do_not_disrupt": True})
    with tenant(rival.pk), time_machine.travel(utcnow() - 2 * GIVES_WAY_AFTER):
        JobFactory(status=Status.QUEUED)

    plan = _plan_of(_ask(cluster, owner))

    plan.refresh_from_db()
    assert (plan.constraint_prices["status"], plan.constraint_prices["tried"]) == ("ended", 0)


def _policy(cluster, *, mode="automatic", is_active=True, **approval):
    policy = default_policy_for(cluster)
    policy.mode, policy.is_active = ClusterPolicy.Mode(mode), is_active
    policy.config = {**policy.config, "approval": approval}
    policy.save()
    return policy


@pytest.mark.parametrize(
    ("changes", "risk", "may"),
    [
        ({}, 0.1, True),
        ({"max_risk": 0.1}, 0.1, True),
        ({"max_risk": 0.09}, 0.1, False),
        ({"required": True}, 0.1, False),
        ({"is_active": False}, 0.1, False),
        ({"mode": "recommend"}, 0.1, False),
    ],
)
def test_given_a_policy_when_a_plan_asks_to_run_by_itself_then_mode_switch_and_risk_decide(
    cluster, changes, risk, may
):
    assert execution.may_approve_itself(_policy(cluster, **changes), risk=risk) is may


def _proposal(cluster):
    node = cluster.instances.first()
    removal = {
        "node_id": node.node_name, "instance_id": node.instance_id, "usd_per_hour": "0.192000",
        "reason_code": "empty", "reason": "Empty.", "pods_moved": 0,
    }  # fmt: skip
    plan = PlanFactory(cluster=cluster, document={"waves": [{"launches": [], "removals": [removal]}]})
    StepFactory(plan=plan, kind="verify", target="cluster")
    return plan


def test_given_an_automatic_policy_when_its_plan_is_due_then_it_is_approved_in_its_name(cluster):
    plan = _proposal(cluster)
    _policy(cluster)

    approved = execution.approve_automatically(plan_id=plan.pk)

    assert (approved.status, approved.decided_by) == (Plan.Status.APPROVED, "Automatic policy")


def test_given_a_policy_switched_off_meanwhile_when_its_plan_is_due_then_a_person_must_decide(cluster):
    plan = _proposal(cluster)
    _policy(cluster, is_active=False)

    with pytest.raises(Conflict, match="no longer"):
        execution.approve_automatically(plan_id=plan.pk)

    plan.refresh_from_db()
    assert plan.status == Plan.Status.PROPOSED


@pytest.mark.parametrize(("hours", "may"), [(23, False), (25, True)])
def test_given_a_plan_that_fell_short_when_another_is_due_then_only_a_person_may_start_it_for_a_day(
    cluster, owner, hours, may
):
    PlanFactory(
        cluster=cluster,
        status=Plan.Status.STOPPED,
        finished_at=utcnow() - timedelta(hours=hours),
        document={"waves": []},
        stop_code="savings_short",
    )
    plan = _proposal(cluster)
    _policy(cluster)

    if may:
        assert execution.approve_automatically(plan_id=plan.pk).status == Plan.Status.APPROVED
    else:
        with pytest.raises(GuardrailViolated, match="a person decides"):
            execution.approve_automatically(plan_id=plan.pk)
        assert execution.approve_plan(plan_id=plan.pk, actor=owner).status == Plan.Status.APPROVED


def test_given_another_plan_since_when_approved_then_it_is_refused_as_outdated(cluster, owner):
    plan = _proposal(cluster)
    PlanFactory(cluster=cluster, status=Plan.Status.COMPLETED, started_at=utcnow() + timedelta(seconds=1))

    with pytest.raises(Conflict, match="Another plan has changed the cluster"):
        execution.approve_plan(plan_id=plan.pk, actor=owner)


def test_given_a_node_without_a_price_when_planned_then_it_is_neither_counted_nor_removed(
    cluster, owner, prices
):
    unpriced = cluster.instances.first()
    Instance.objects.filter(pk=unpriced.pk).update(price=None)

    plan = _plan_of(_ask(cluster, owner))

    assert plan.usd_per_hour_before == Decimal("0.960000")
    assert not plan.steps.filter(target=unpriced.node_name).exists()
