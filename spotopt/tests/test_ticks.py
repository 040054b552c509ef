"""Ticks look at state: a message that waited too long is dropped, so that no backlog outlives its cause."""

import pytest
from celery import current_app
from django.conf import settings
from django_celery_beat.schedulers import ModelEntry

from clusters.tasks.actions import actuate_waiting_actions
from clusters.tasks.interruptions import follow_organization_interruptions, read_interruption_queue
from policies.tasks import advance_plan, answer_interruptions
from spotopt.core.tasks import TICK_SECONDS

FAN_OUT = (
    advance_plan,
    answer_interruptions,
    actuate_waiting_actions,
    follow_organization_interruptions,
    read_interruption_queue,
)


@pytest.mark.django_db
@pytest.mark.parametrize("name", settings.CELERY_BEAT_SCHEDULE)
def test_given_a_tick_when_it_is_sent_then_it_expires_when_the_next_ones_are_due(name):
    entry = ModelEntry.from_entry(name, app=current_app, **settings.CELERY_BEAT_SCHEDULE[name])

    assert entry.options["expires"] >= settings.CELERY_BEAT_SCHEDULE[name]["schedule"] - 1
    assert entry.options["expires"] <= max(5, settings.CELERY_BEAT_SCHEDULE[name]["schedule"])


@pytest.mark.parametrize("task", FAN_OUT, ids=lambda task: task.name)
def test_given_what_a_fast_tick_sends_again_when_it_is_sent_then_it_expires_soon(task):
    assert task.expires == TICK_SECONDS
