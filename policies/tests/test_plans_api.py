from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from accounts.platform import set_safe_mode
from audit.models import AuditLog
from clusters.models import ClusterSample, InterruptionRate
from clusters.tests.factories import ClusterFactory, InstanceFactory
from mlregistry.domain.heuristic import interruption_risk
from policies.models import OptimizationJob, Plan
from policies.tests.factories import JobFactory, PlanFactory, StepFactory
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow


@pytest.fixture
def cluster(in_acme):
    return ClusterFactory(name="prod-1")


@pytest.fixture
def plan(cluster):
    return PlanFactory(cluster=cluster)


def test_given_a_ready_cluster_when_optimized_then_a_run_is_queued_and_named(api_as, member, cluster):
    answer = api_as(member).post(f"/api/v1/clusters/{cluster.pk}/optimize")

    job = OptimizationJob.objects.get()
    assert answer.status_code == 202
    assert answer.json() == {
        "job_id": str(job.pk), "status": "queued", "estimated_time": "under a minute", "dry_run": False,
    }  # fmt: skip
    assert (job.trigger, job.requested_by) == ("manual", "bob@acme.test")


def test_given_safe_mode_when_optimized_then_the_answer_says_that_it_is_dry(api_as, member, cluster):
    set_safe_mode(actor=Actor(kind="admin", organization_id=None, label="root"), value="on")

    answer = api_as(member).post(f"/api/v1/clusters/{cluster.pk}/optimize")

    assert (answer.status_code, answer.json()["dry_run"]) == (202, True)


def test_given_a_run_under_way_when_optimized_again_then_it_is_named(api_as, member, cluster):
    job = JobFactory(cluster=cluster, status="running")

    answer = api_as(member).post(f"/api/v1/clusters/{cluster.pk}/optimize")

    assert (answer.status_code, answer.json()["job_id"]) == (409, str(job.pk))


def test_given_a_run_moments_ago_when_optimized_again_then_the_cooldown_is_told(
    api_as, member, cluster, time_machine
):
    time_machine.move_to(utcnow(), tick=False)
    JobFactory(cluster=cluster, status="completed", created_at=utcnow() - timedelta(seconds=100))

    answer = api_as(member).post(f"/api/v1/clusters/{cluster.pk}/optimize")

    assert (answer.status_code, answer.json()["retry_after_seconds"]) == (429, 201)
    assert OptimizationJob.objects.count() == 1


@pytest.mark.parametrize("facts", [{"maintenance_mode": True}, {"snapshot_at": None}])
def test_given_a_paused_or_unheard_cluster_when_optimized_then_it_is_refused(api_as, member, in_acme, facts):
    cluster = ClusterFactory(**facts)

    answer = api_as(member).post(f"/api/v1/clusters/{cluster.pk}/optimize")

    assert answer.status_code == 409
    assert not OptimizationJob.objects.exists()


def test_given_a_queued_run_when_cancelled_then_it_is_over_and_recorded(api_as, member, cluster):
    job = JobFactory(cluster=cluster)
    speak = api_as(member)

    first = speak.delete(f"/api/v1/jobs/{job.pk}")
    second = speak.delete(f"/api/v1/jobs/{job.pk}")

    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert (second.status_code, second.json()["job_status"]) == (409, "cancelled")
    assert AuditLog.objects.get().event == "policies.optimization.cancelled"


def test_given_a_running_run_when_cancelled_then_it_is_over(api_as, member, cluster):
    job = JobFactory(cluster=cluster, status="running")

    answer = api_as(member).delete(f"/api/v1/jobs/{job.pk}")

    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


def test_given_a_run_that_is_over_when_cancelled_then_it_is_a_conflict(api_as, member, cluster):
    job = JobFactory(cluster=cluster, status="completed")

    assert api_as(member).delete(f"/api/v1/jobs/{job.pk}").status_code == 409
    job.refresh_from_db()
    assert job.status == "completed"


def test_given_runs_when_listed_then_each_names_its_plan_and_the_queries_do_not_grow(
    api_as, viewer, plan, cluster, django_assert_num_queries
):
    speak, path = api_as(viewer), f"/api/v1/clusters/{cluster.pk}/jobs"
    JobFactory(cluster=cluster, status="failed")
    for _ in range(3):
        PlanFactory(cluster=cluster)

    with django_assert_num_queries(5):
        body = speak.get(path).json()

    assert (list(body), body["total"]) == (["jobs", "total", "page", "page_size"], 5)
    assert [row["plan_id"] for row in body["jobs"]][-1] == str(plan.pk)
    assert [row["plan_id"] for row in speak.get(path, {"status": "failed"}).json()["jobs"]] == [None]
    assert speak.get(f"/api/v1/jobs/{plan.job_id}").json()["plan_id"] == str(plan.pk)


def test_given_plans_when_listed_then_money_is_text_and_the_queries_do_not_grow(
    api_as, viewer, plan, cluster, django_assert_num_queries
):
    speak = api_as(viewer)
    for _ in range(3):
        PlanFactory(status="rejected")

    with django_assert_num_queries(4):
        body = speak.get("/api/v1/plans").json()

    assert body["total"] == 4
    (mine,) = speak.get("/api/v1/plans", {"cluster_id": str(cluster.pk)}).json()["plans"]
    money = {"usd_per_hour_before", "usd_per_hour_saved", "forecast_monthly_savings"}
    assert {name: mine[name] for name in money} == {
        "usd_per_hour_before": "2.000000",
        "usd_per_hour_saved": "1.500000",
        "forecast_monthly_savings": "1095.00",
    }
    assert (mine["saving_percent"], mine["cluster"]) == (75.0, "prod-1")
    assert "document" not in mine
    assert speak.get("/api/v1/plans", {"status": "rejected"}).json()["total"] == 3


def test_given_a_plan_when_opened_then_document_steps_and_refusals_are_shown(api_as, viewer, plan):
    StepFactory(plan=plan, seq=2, kind="drain")
    StepFactory(plan=plan, seq=1, usd_per_hour=Decimal("0.1"))
    speak, path = api_as(viewer), f"/api/v1/plans/{plan.pk}"

    detail, steps, refusals = (speak.get(f"{path}{rest}").json() for rest in ("", "/steps", "/refusals"))

    assert (detail["document"], detail["refusal_count"]) == ({"waves": []}, 1)
    shown = ("seq", "kind", "usd_per_hour", "action_status")
    assert [tuple(row[name] for name in shown) for row in steps["steps"]] == [
        (1, "launch", "0.100000", None),
        (2, "drain", "0.000000", None),
    ]
    assert refusals["refusals"] == [
        {"subject_kind": "node", "subject": "n1", "code": "young", "reason": "Too young."}
    ]


def test_given_a_proposal_when_rejected_then_the_reason_is_kept_and_it_cannot_be_stopped(
    api_as, member, plan
):
    speak, path = api_as(member), f"/api/v1/plans/{plan.pk}"

    rejected = speak.post(f"{path}/reject", {"reason": "not today"}, format="json")
    stopped = speak.post(f"{path}/stop", {}, format="json")

    assert (rejected.status_code, rejected.json()["status"], rejected.json()["stop_reason"]) == (
        200, "rejected", "not today",
    )  # fmt: skip
    assert stopped.status_code == 409


def test_given_another_organizations_plan_when_touched_then_it_is_not_found(api_as, stranger, plan):
    speak, path = api_as(stranger), f"/api/v1/plans/{plan.pk}"

    answers = [
        *(speak.get(f"{path}{rest}") for rest in ("", "/steps", "/refusals")),
        *(speak.post(f"{path}/{act}", {}, format="json") for act in ("approve", "reject", "stop")),
        speak.get(f"/api/v1/jobs/{plan.job_id}"),
        speak.delete(f"/api/v1/jobs/{plan.job_id}"),
        speak.get(f"/api/v1/plans/{uuid4()}"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 9
    assert speak.get("/api/v1/plans").json()["plans"] == []
    plan.refresh_from_db()
    assert plan.status == Plan.Status.PROPOSED


def test_given_measured_nodes_when_the_cards_are_read_then_each_number_is_exact(api_as, viewer, cluster):
    InstanceFactory(cluster=cluster, price=Decimal("1.000000"), last_seen_at=utcnow())
    spot = InstanceFactory(
        cluster=cluster, price=Decimal("0.300000"), lifecycle="spot", last_seen_at=utcnow()
    )
    InterruptionRate.objects.create(
        region=spot.region,
        instance_type=spot.instance_type,
        bucket=4,
        savings_percent=70,
        fetched_at=utcnow(),
    )

    body = api_as(viewer).get("/api/v1/metrics/kpi").json()

    risk = interruption_risk(bucket=4)
    assert body.pop("as_of").endswith("Z")
    assert body == {
        "monthly_spend": "949.00",
        "net_savings": "0.00",
        "fleet_health": round(100 * (0.4 * (1 - risk) + 0.3 * 12 / 20 + 0.3), 1),
        "active_nodes": 2,
        "spot_nodes": 1,
        "spot_percentage": 50.0,
        "spot_risk": round(risk, 4),
        "efficiency_score": "F",
        "efficiency_percent": round((12 + 100 * 4000 / 14800) / 2, 1),
        "estimated": False,
    }


def test_given_nothing_measured_when_the_cards_are_read_then_they_are_unknown(api_as, viewer, cluster):
    InstanceFactory(cluster=cluster, price=None, cpu_util=None, memory_util=None)

    body = api_as(viewer).get("/api/v1/metrics/kpi").json()

    assert body == {
        "monthly_spend": "0.00", "net_savings": "0.00", "fleet_health": None, "active_nodes": 1,
        "spot_nodes": 0, "spot_percentage": 0.0, "spot_risk": None, "efficiency_score": None,
        "efficiency_percent": None, "estimated": True, "as_of": None,
    }  # fmt: skip


def test_given_proposals_when_projected_then_only_they_count_and_the_parts_add_up(
    api_as, viewer, plan, cluster
):
    InstanceFactory(cluster=cluster, price=Decimal("2.000000"))
    PlanFactory(cluster=cluster, status="completed")
    ClusterFactory()
    at = utcnow() - timedelta(days=8)
    ClusterSample.objects.create(
        organization_id=cluster.organization_id, cluster=cluster, taken_at=at, usd_per_hour=Decimal("2.5"),
        nodes=1, spot_nodes=0, pods=1, pending_pods=0,
    )  # fmt: skip
    speak = api_as(viewer)

    body = speak.get("/api/v1/metrics/projection").json()
    week = speak.get("/api/v1/metrics/projection", {"timeframe": "7d", "cluster_id": str(cluster.pk)}).json()

    assert {name: body[name] for name in ("unoptimized_cost", "optimized_cost", "potential_savings")} == {
        "unoptimized_cost": "1460.00", "optimized_cost": "365.00", "potential_savings": "1095.00",
    }  # fmt: skip
    assert body["breakdown"] == {
        "spot_replacement": "730.00", "bin_packing": "365.00", "hibernation": "0.00", "rightsizing": "0.00",
    }  # fmt: skip
    assert [point["value"] for point in body["timeline"]] == ["1825.00"]
    assert (body["clusters_planned"], body["clusters_total"]) == (1, 2)
    assert (week["timeline"], week["clusters_total"]) == ([], 1)
    assert speak.get("/api/v1/metrics/projection", {"timeframe": "1y"}).status_code == 400
