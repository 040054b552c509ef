from datetime import timedelta
from uuid import UUID

import pytest
from django.urls import reverse

from clusters.models import InstanceType
from clusters.tests.factories import ClusterFactory
from policies.forms.whatif import WhatIfForm
from policies.models import OptimizationJob, Plan, WhatIf
from policies.selectors.pages import plan_page
from policies.selectors.whatif import Choices, what_if_page
from policies.services.policies import default_policy_for
from policies.tests.factories import JobFactory, PlanFactory, StepFactory, TemplateFactory, WhatIfFactory
from policies.tests.test_whatif_api import OUTCOME
from spotopt.core.clock import utcnow

NO_CHOICES = Choices((), (), ())


@pytest.fixture
def cluster(in_acme):
    return ClusterFactory(name="prod-1")


@pytest.fixture
def what_if(cluster):
    return WhatIfFactory(
        cluster=cluster,
        status="running",
        phase="3 of 3: Packing",
        progress_percent=70,
        scenarios=[{"name": "As it is"}, {"name": "On-demand only"}, {"name": "Later"}],
        outcomes=[OUTCOME, OUTCOME | {"usd_per_hour_after": "1.200000", "refusals": {"headroom": 1}}],
    )


def test_given_a_what_if_under_way_when_shown_then_it_has_what_is_known_and_can_be_cancelled(
    what_if, member, as_user
):
    page = as_user(member).get(reverse("policies:what-if", args=[what_if.pk]))

    facts = what_if_page(what_if.pk)
    assert [(column.name, column.usd_per_hour_more) for column in facts.columns][2] == ("Later", None)
    assert [(row.label, row.counts) for row in facts.reasons] == [("Kept as headroom", (2, 1, None))]
    assert (facts.done, facts.widest, facts.columns[0].spot_percent) == (2, 2, 40)
    assert "+$146</span>" in page.text
    assert 'aria-valuenow="70"' in page.text
    assert "not computed yet" in page.text

    as_user(member).post(reverse("policies:cancel-what-if", args=[what_if.pk]))
    what_if.refresh_from_db()
    assert what_if.status == WhatIf.Status.CANCELLED


def test_given_the_form_when_sent_then_a_what_if_is_queued_and_opened(cluster, member, as_user):
    answer = as_user(member).post(
        reverse("policies:what-ifs", args=[cluster.pk]),
        {"is_on_demand_only": "on", "spot_price_percent": "20"},
    )

    stored = WhatIf.objects.get()
    assert answer["Location"] == reverse("policies:what-if", args=[stored.pk])
    assert [row["name"] for row in stored.scenarios] == ["As it is", "On-demand only", "Spot prices +20 %"]


@pytest.mark.parametrize(
    ("sent", "field", "message"),
    [
        ({"spot_price_percent": ""}, "__all__", "Fill in at least one part."),
        ({"instance_type": "m5.large"}, "nodes", "needs an instance type and a number"),
        ({"nodes": "3"}, "instance_type", "needs an instance type and a number"),
        ({"spot_price_percent": "-95"}, "spot_price_percent", "greater than or equal to -90"),
        ({"instance_type": "zz9.large", "nodes": "3"}, "instance_type", "is not an instance type"),
    ],
)
def test_given_half_a_scenario_when_sent_then_the_form_says_what_is_missing(
    cluster, member, as_user, sent, field, message
):
    page = as_user(member).post(reverse("policies:what-ifs", args=[cluster.pk]), sent)

    assert page.status_code == 400
    assert message in str(page.context["form"].errors[field])
    assert not WhatIf.objects.exists()


def test_given_every_part_when_read_then_each_is_a_scenario_and_their_combination_is_one_more(in_acme):
    template, policy = TemplateFactory(), default_policy_for(ClusterFactory(name="sibling"))
    InstanceType.objects.all().delete()
    choices = Choices(((str(template.pk), "T"),), ((str(policy.cluster_id), "sibling"),), ())
    form = WhatIfForm(
        {
            "is_on_demand_only": "on", "spot_percentage": "40", "template_id": str(template.pk),
            "policy_of": str(policy.cluster_id), "headroom_percent": "0", "combined": "on",
        },
        choices=choices,
    )  # fmt: skip

    assert form.is_valid(), form.errors
    drafts = form.drafts()

    assert [draft.name for draft in drafts] == [
        "", "", "", "Spot at most 40 %", "0 % kept free", "All together",
    ]  # fmt: skip
    together = drafts[-1]
    assert isinstance(together.template_id, UUID)
    assert together.config == {
        "provisioning": {"spot_percentage": 40},
        "constraints": {"headroom_cpu_percent": 0, "headroom_memory_percent": 0},
    }
    assert together.is_on_demand_only


def test_given_one_part_when_combined_then_there_is_no_second_of_the_same():
    form = WhatIfForm({"is_on_demand_only": "on", "combined": "on"}, choices=NO_CHOICES)

    assert form.is_valid()
    assert len(form.drafts()) == 1


def test_given_an_optimization_under_way_when_the_plans_are_shown_then_it_can_be_cancelled(
    cluster, member, viewer, as_user
):
    job = JobFactory(cluster=cluster, status="running", phase="Searching", progress_percent=40)
    path, stop = reverse("policies:cluster-plans", args=[cluster.pk]), f"/jobs/{job.pk}/cancel"

    assert stop not in as_user(viewer).get(path).text
    assert as_user(viewer).post(stop).status_code == 403
    shown = as_user(member).get(path).text
    as_user(member).post(stop)

    assert stop in shown
    assert "40 %" in shown
    job.refresh_from_db()
    assert job.status == OptimizationJob.Status.CANCELLED


def test_given_a_plan_when_shown_then_it_says_how_near_the_least_it_is_and_what_constraints_cost(
    cluster, viewer, as_user
):
    price = {
        "code": "headroom", "subject": "", "words": "Headroom of 10 %", "usd_per_hour_with": "0.500000",
        "usd_per_hour_without": "0.400000",
    }  # fmt: skip
    plan = PlanFactory(
        cluster=cluster,
        lower_bound_usd_per_hour="0.498",
        constraint_prices={
            "status": "running", "at": utcnow().isoformat(), "tried": 3, "candidates": 9, "prices": [price],
        },
    )  # fmt: skip

    shown = as_user(viewer).get(reverse("policies:plan", args=[plan.pk])).text

    assert "within 0.4 % of the least that is possible under the same rules" in shown
    assert "without it the best plan found costs $292 /mo" in shown
    assert "3 of 9 constraints tried" in shown


@pytest.mark.parametrize(
    ("document", "state"),
    [
        ({}, "waiting"),
        ({"status": "running", "age": 0}, "running"),
        ({"status": "running", "age": 11}, "lost"),
        ({"status": "done", "age": 99}, "done"),
        ({"status": "ended", "age": 99}, "ended"),
    ],
)
def test_given_prices_in_every_state_when_a_plan_is_read_then_it_says_which(cluster, document, state):
    now = utcnow()
    if document:
        at = now - timedelta(minutes=document.pop("age"))
        document |= {"at": at.isoformat(), "tried": 0, "candidates": 0, "prices": []}
    plan = PlanFactory(cluster=cluster, constraint_prices=document)

    assert plan_page(plan.pk, now=now).prices.state == state


def test_given_a_completed_plan_that_left_removals_out_when_shown_then_its_state_says_so(
    cluster, viewer, as_user
):
    plan = PlanFactory(cluster=cluster, status=Plan.Status.COMPLETED)
    StepFactory(plan=plan, kind="terminate", status="completed")
    StepFactory(plan=plan, kind="terminate", status="skipped")
    StepFactory(plan=plan, kind="drain", status="skipped")

    pages = [reverse("policies:plan", args=[plan.pk]), reverse("policies:plans")]
    shown = [as_user(viewer).get(path).text for path in pages]

    assert all("Completed, 1 removal left out" in text for text in shown)


def test_given_an_agent_that_was_silent_when_the_what_if_is_shown_then_it_says_so(what_if, viewer, as_user):
    now = utcnow()
    WhatIf.objects.update(quoted_at=now, snapshot_at=now - timedelta(minutes=16))

    shown = as_user(viewer).get(reverse("policies:what-if", args=[what_if.pk])).text

    assert "silent for over 15 minutes when this was computed" in shown
