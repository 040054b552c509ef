from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.urls import reverse

from accounts.models import Account
from clusters.models import Cluster
from policies.models import OptimizationJob, Plan, PlanStep
from policies.selectors import pages
from spotopt.core.clock import utcnow
from spotopt.core.errors import NotFound
from spotopt.core.tenancy import tenant


@pytest.fixture
def cluster(in_acme):
    account = Account.objects.create(
        organization=in_acme, alias="Main", aws_account_id="123456789012", status="active"
    )
    return cluster_in(account, "shop")


def cluster_in(account, name):
    return Cluster.objects.create(
        organization=account.organization, account=account, name=name, region="eu-west-1"
    )


def plan_for(cluster, status="proposed", *, before="1.00", after="0.40", age=timedelta(0), **facts):
    job = OptimizationJob.objects.create(
        organization=cluster.organization, cluster=cluster, status="completed", requested_by="alice@acme.test"
    )
    made = utcnow() - age
    defaults = {
        "lower_bound_usd_per_hour": Decimal("0.30"),
        "spot_replacement_usd_per_hour": Decimal("0.40"),
        "bin_packing_usd_per_hour": Decimal("0.20"),
        "risk": 0.05,
        "nodes_before": 10,
        "nodes_after": 4,
        "pods_moved": 30,
        "document": {"waves": [{"launches": [], "removals": []}]},
        "refusals": [],
    }
    return Plan.objects.create(
        organization=cluster.organization,
        cluster=cluster,
        job=job,
        policy_version=1,
        status=status,
        quoted_at=made,
        created_at=made,
        usd_per_hour_before=Decimal(before),
        usd_per_hour_after=Decimal(after),
        **(defaults | facts),
    )


def step_of(plan, seq, kind, status="planned", *, target="ip-1", wave=1, **facts):
    over = status in ("completed", "failed", "skipped")
    return PlanStep.objects.create(
        organization=plan.organization,
        plan=plan,
        seq=seq,
        wave=wave,
        kind=kind,
        target=target,
        status=status,
        usd_per_hour=Decimal("0.25"),
        finished_at=utcnow() if over else None,
        **facts,
    )


def test_given_proposals_when_the_potential_is_summed_then_the_parts_add_up(cluster):
    plan_for(cluster)
    other = cluster_in(cluster.account, "search")
    plan_for(other, after="1.00", spot_replacement_usd_per_hour=0, bin_packing_usd_per_hour=0)

    found = pages.potential()

    assert (found.usd_per_hour, found.plans) == (Decimal("0.60"), 1)
    assert found.spot_replacement + found.bin_packing == found.usd_per_hour


def test_given_two_proposals_for_one_cluster_when_summed_then_only_the_newest_counts(cluster):
    plan_for(cluster, after="0.10", age=timedelta(hours=1))
    plan_for(cluster, after="0.90")

    assert pages.potential().usd_per_hour == Decimal("0.10")


def test_given_the_steps_of_a_removal_when_shown_then_they_are_one_line(cluster):
    plan = plan_for(cluster, "running")
    step_of(plan, 1, "launch", "completed", target="n1")
    step_of(plan, 2, "cordon", "completed")
    step_of(plan, 3, "drain", "running", note="3 pods left")
    step_of(plan, 4, "terminate")
    step_of(plan, 5, "verify", target="cluster")

    wave = pages.plan_page(plan.pk, now=utcnow()).waves[0]

    assert [(line.title, line.target, line.status) for line in wave.lines] == [
        ("Launch node", "n1", "completed"),
        ("Remove", "ip-1", "running"),
        ("Verify", "cluster", "planned"),
    ]
    assert [line.usd_per_hour for line in wave.lines] == [Decimal("0.25"), Decimal("-0.25"), 0]
    assert wave.lines[1].notes == ("3 pods left",)
    assert (wave.launches, wave.removals, wave.done) == (1, 1, 2)


def test_given_waves_when_shown_then_the_first_that_is_not_over_is_the_current_one(cluster):
    plan = plan_for(cluster, "running")
    step_of(plan, 1, "launch", "completed", wave=1)
    step_of(plan, 2, "launch", wave=2)
    step_of(plan, 3, "launch", wave=3)

    waves = pages.plan_page(plan.pk, now=utcnow()).waves

    assert [wave.is_current for wave in waves] == [False, True, False]


def test_given_a_stopped_plan_when_shown_then_what_was_skipped_does_not_count_as_done(
    cluster, alice, as_user
):
    plan = plan_for(cluster, "stopped")
    step_of(plan, 1, "cordon", "completed")
    step_of(plan, 2, "drain", "skipped", note="No other place.")
    step_of(plan, 3, "terminate", "skipped", note="No other place.")

    page = pages.plan_page(plan.pk, now=utcnow())

    assert (page.steps_done, page.steps_left_out, page.steps_total) == (1, 2, 3)
    assert page.remaining is None
    assert page.waves[0].lines[0].notes == ("No other place.",)
    shown = as_user(alice).get(reverse("policies:plan", args=[plan.pk])).text
    assert '1 of 3 steps done, <span class="tone-warn">2 left out</span>' in shown


def test_given_a_step_under_way_when_shown_then_the_page_says_what_is_done_now(cluster, alice, as_user):
    plan = plan_for(cluster, "running")
    step_of(plan, 1, "drain", "running", target="ip-10-0-0-7.ec2.internal")

    page = as_user(alice).get(reverse("policies:plan", args=[plan.pk]))

    assert 'Now: drain <span class="mono">ip-10-0-0-7</span>' in page.text


def test_given_waves_when_forecast_then_each_boots_once_and_removes_in_turn(cluster):
    plan = plan_for(cluster)
    step_of(plan, 1, "launch", wave=1)
    step_of(plan, 2, "terminate", wave=1)
    step_of(plan, 3, "terminate", wave=2)
    step_of(plan, 4, "terminate", wave=2)

    assert pages.plan_page(plan.pk, now=utcnow()).expected == timedelta(minutes=3 + 1 + 2, seconds=2 * 30)


def test_given_refusals_when_shown_then_they_are_gathered_by_what_they_are_about_and_by_reason(cluster):
    refusals = [
        {"subject_kind": kind, "subject": name, "code": code, "reason": f"Because {name}."}
        for kind, name, code in (
            ("pool", "p", "pool_size"),
            ("workload", "b", "local_storage"),
            ("node", "d", "new_code"),
            ("node", "a", "too_young"),
            ("node", "c", "too_young"),
            ("pool", "q", "pool_size"),
        )
    ]
    plan = plan_for(cluster, refusals=refusals)

    parts = pages.plan_page(plan.pk, now=utcnow()).refusals

    shown = [(part.title, part.count, [(g.label, len(g.subjects)) for g in part.groups]) for part in parts]
    assert shown == [
        ("Nodes that stay", 3, [("Launched too recently", 2), ("New code", 1)]),
        ("Workloads that cannot move", 1, [("Data on the node's own disk", 1)]),
        ("Pools not bought from", 2, [("Not bought: size is excluded by the template", 2)]),
    ]
    assert parts[0].groups[0].subjects[0] == ("a", "Because a.")


@pytest.mark.parametrize("count", [1, 30])
def test_given_few_or_many_steps_when_a_plan_is_read_then_the_queries_are_as_many(
    cluster, count, django_assert_num_queries
):
    plan = plan_for(cluster)
    for number in range(count):
        step_of(plan, number, "launch", target=f"n{number}")

    with django_assert_num_queries(3):
        page = pages.plan_page(plan.pk, now=utcnow())

    assert page.steps_total == count


def test_given_an_old_quote_when_the_plan_is_opened_then_it_cannot_be_approved_any_more(
    cluster, alice, as_user
):
    plan = plan_for(cluster, age=timedelta(hours=2))

    page = as_user(alice).get(reverse("policies:plan", args=[plan.pk]))

    assert "Compute it again" in page.text
    assert reverse("policies:approve", args=[plan.pk]) not in page.text


def test_given_a_viewer_when_they_decide_about_a_plan_then_nothing_changes(cluster, viewer, as_user):
    plan = plan_for(cluster)
    browser = as_user(viewer)

    answers = [
        browser.post(reverse(f"policies:{act}", args=[plan.pk])).status_code
        for act in ("approve", "reject", "stop")
    ]

    assert answers == [403, 403, 403]
    plan.refresh_from_db()
    assert (plan.status, plan.decided_by) == ("proposed", "")


def test_given_a_stranger_when_a_plan_is_asked_for_then_there_is_none(cluster, stranger, as_user):
    plan = plan_for(cluster)
    browser = as_user(stranger)

    assert browser.get(reverse("policies:plan", args=[plan.pk])).status_code == 404
    assert browser.post(reverse("policies:reject", args=[plan.pk])).status_code == 404
    plan.refresh_from_db()
    assert plan.status == "proposed"


def test_given_no_such_plan_when_read_then_it_is_not_found(cluster, rival):
    plan = plan_for(cluster)

    with pytest.raises(NotFound):
        pages.plan_page(uuid4(), now=utcnow())
    with tenant(rival.pk), pytest.raises(NotFound):
        pages.plan_page(plan.pk, now=utcnow())


@pytest.mark.parametrize("path", ["dashboard", "plans", "palette"])
def test_given_few_or_many_plans_when_a_page_is_asked_for_then_the_queries_are_as_many(
    cluster, alice, as_user, path, django_assert_max_num_queries
):
    browser = as_user(alice)
    for number in range(10):
        plan_for(cluster_in(cluster.account, f"c{number}"))

    with django_assert_max_num_queries(22):
        answer = browser.get(reverse(f"policies:{path}"), {"q": "c"})

    assert answer.status_code == 200
