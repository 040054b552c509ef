"""Plans approved, refused and rejected."""

from datetime import timedelta
from decimal import Decimal
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.db import connection

from accounts.models import Account
from audit.models import AuditLog
from clusters.models import Price
from policies.models import Plan
from policies.services import execution
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, GuardrailViolated


def test_given_an_old_quote_when_approved_then_it_refuses_and_nothing_changes(plan, owner, clock):
    clock.shift(timedelta(minutes=61))

    with pytest.raises(Conflict, match="over an hour old"):
        execution.approve_plan(plan_id=plan.pk, actor=owner)

    plan.refresh_from_db()
    assert plan.status == Plan.Status.PROPOSED
    assert not AuditLog.objects.filter(event="policies.plan.approved").exists()


def test_given_a_disconnected_account_when_approved_then_it_refuses(plan, owner, cluster):
    Account.objects.filter(pk=cluster.account_id).update(status="disconnected")

    with pytest.raises(Conflict, match="disconnected"):
        execution.approve_plan(plan_id=plan.pk, actor=owner)

    assert Plan.objects.get().status == Plan.Status.PROPOSED


def test_given_a_plan_when_approved_then_its_forecast_is_not_recorded_as_a_saving(plan, owner):
    execution.approve_plan(plan_id=plan.pk, actor=owner)

    assert AuditLog.objects.get(event="policies.plan.approved").usd_per_hour is None


def test_given_prices_that_rose_when_approved_then_it_refuses_with_the_drift(plan, owner):
    Price.objects.create(
        region="us-east-1", zone_id="use1-az1", instance_type="m6i.xlarge", capacity_type="spot",
        usd_per_hour=Decimal("0.066"), observed_at=utcnow(), source="aws",
    )  # fmt: skip

    with pytest.raises(GuardrailViolated) as refusal:
        execution.approve_plan(plan_id=plan.pk, actor=owner)

    assert refusal.value.extra["drift"] == "0.1000"


def test_given_a_viewer_when_approving_then_it_is_forbidden(plan, viewer, acme):
    actor = Actor(kind="user", organization_id=acme.pk, label="vera", id=str(viewer.pk), role="viewer")

    with pytest.raises(Exception, match="needs the role member"):
        execution.approve_plan(plan_id=plan.pk, actor=actor)


def test_given_a_rejected_plan_when_approved_then_it_conflicts(plan, owner):
    execution.reject_plan(plan_id=plan.pk, actor=owner, reason="Too many moves.")

    with pytest.raises(Conflict):
        execution.approve_plan(plan_id=plan.pk, actor=owner)


def test_given_a_plan_that_kept_its_state_in_its_document_when_migrated_then_the_state_has_moved(plan):
    plan.document |= {"stop_code": "savings_short", "waiting_before": {"shop/Job/a": 2}}
    plan.save()
    migration = import_module("policies.migrations.0006_state_of_plans")

    migration.move_out_of_the_document(apps, SimpleNamespace(connection=connection))

    plan.refresh_from_db()
    assert (plan.stop_code, plan.waiting_before) == ("savings_short", {"shop/Job/a": 2})
