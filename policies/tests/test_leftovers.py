"""Marks that a plan could not take back are taken back later, and nobody else's are."""

from datetime import timedelta

import pytest

from accounts import platform
from clusters.models import Action, Instance
from policies.models import Plan
from policies.services import execution
from policies.services.leftovers import open_leftovers, organizations_with_marks
from policies.tests.stage import run_plan
from spotopt.core.actor import Actor

LOOKS = 12
"""Five minutes apart: longer than a plan waits for a silent agent and for its own clean-up."""


def marked():
    return [row for row in Instance.objects.filter(state="running") if row.is_cordoned or row.taints]


@pytest.fixture
def half_done(plan, executor, owner):
    """A plan with a node cordoned and others that pods are steered away from."""
    execution.approve_plan(plan_id=plan.pk, actor=owner)
    run_plan(plan, executor, until=lambda: plan.steps.filter(kind="cordon", status="completed").exists())
    assert len(marked()) == 2
    return plan


def time_passes(plan, clock, looks=LOOKS):
    for _ in range(looks):
        clock.shift(timedelta(minutes=5))
        execution.advance_plan(plan_id=plan.pk)
        open_leftovers()


def test_given_an_agent_that_was_away_for_long_when_it_is_back_then_no_mark_of_ours_is_left(
    half_done, executor, clock
):  # fmt: skip
    executor.is_silent = True
    time_passes(half_done, clock)
    executor.is_silent = False
    executor.step()

    for _ in range(3):
        open_leftovers()
        executor.step()

    half_done.refresh_from_db()
    assert half_done.status == Plan.Status.STOPPED
    assert marked() == []
    assert open_leftovers() == 0


def test_given_a_long_freeze_when_it_is_lifted_then_no_mark_of_ours_is_left(
    half_done, executor, clock
):  # fmt: skip
    platform.set_safe_mode(actor=Actor.system(None), value="freeze")
    for _ in range(LOOKS):
        executor.step()
        time_passes(half_done, clock, 1)
    assert len(marked()) == 2
    platform.set_safe_mode(actor=Actor.system(None), value="off")

    for _ in range(3):
        executor.step()
        open_leftovers()
    executor.step()

    assert marked() == []


def test_given_a_plan_under_way_when_looked_at_then_its_marks_are_left(half_done):
    assert organizations_with_marks() == {half_done.organization_id}
    assert open_leftovers() == 0


def test_given_a_node_that_somebody_else_cordoned_when_looked_at_then_it_is_not_asked_about(cluster):
    Instance.objects.filter(pk=cluster.instances.first().pk).update(is_cordoned=True)

    assert open_leftovers() == 0
    assert not Action.objects.exists()
