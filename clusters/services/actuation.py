"""Carry AWS actions out: claim each, have its executor do it, close it; safe to do again after a crash."""

import random
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from accounts.models import Account
from clusters.aws.errors import (
    AwsError,
    AwsFailed,
    AwsSessionExpired,
    AwsThrottled,
    AwsTimeout,
    AwsUnreachable,
    GroupAtMinimum,
)
from clusters.aws.session import AccountSession, RegionSession, RoleGrant, session_for
from clusters.models import Action
from clusters.services import actions, launching, leaving
from clusters.services.asking import NotVisibleYet, Outcome, Overtaken, held
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, GuardrailViolated

RETRY_AFTER = timedelta(seconds=10)
"""Actions that AWS throttled together come back spread over as long again."""
_PASSING = (
    AwsThrottled,
    AwsTimeout,
    AwsUnreachable,
    AwsFailed,
    AwsSessionExpired,
    NotVisibleYet,
    GroupAtMinimum,
)
"""After these the action is tried again with the same token: nobody knows whether AWS acted, or another
member left the group between our look at its sizes and our request."""


def actuate(*, action_id: UUID, worker: str) -> str:
    """Claim one AWS action, do it, and close it; return its status, or ``skipped`` when another has it."""
    action = actions.claim_for_actuator(action_id=action_id, worker=worker)
    if action is None:
        return "skipped"
    account = action.cluster.account
    if account.status == Account.Status.DISCONNECTED:
        message = "The AWS account is disconnected."
        return _close(
            action, Outcome(is_success=False, error_code="account_disconnected", error_message=message)
        )
    try:
        session = session_for(RoleGrant(account.role_arn, account.external_id))
        outcome = _carried_out(action, session)
    except Overtaken:
        return "skipped"  # the worker that took over records how it ends
    except _PASSING as error:
        return _try_again_later(action, error)
    except GuardrailViolated as refusal:
        code = str(refusal.extra["code"])
        outcome = Outcome(is_success=False, is_refused=True, error_code=code, error_message=refusal.detail)
    except AwsError as error:
        outcome = Outcome(is_success=False, error_code=error.code, error_message=error.detail)
    return _close(action, outcome)


def _carried_out(action: Action, session: AccountSession) -> Outcome:
    try:
        return _EXECUTORS[action.kind](action, session.in_region(action.cluster.region))
    except AwsSessionExpired:
        session.expire()
        raise


def waiting_actions() -> list[UUID]:
    """Return the organization's AWS actions that nobody works on: never started, or left by a dead worker."""
    now = utcnow()
    rows = Action.objects.filter(route=Action.Route.AWS)
    pending = rows.filter(status=Action.Status.PENDING, expires_at__gt=now)
    abandoned = rows.filter(status=Action.Status.RUNNING, lease_until__lt=now)
    return [*pending.values_list("pk", flat=True), *abandoned.values_list("pk", flat=True)]


def _close(action: Action, outcome: Outcome) -> str:
    if not held(action).exists():
        return "skipped"  # a worker that took over records how it ends
    status = Action.Status.SUCCEEDED if outcome.is_success else Action.Status.FAILED
    try:
        actions.finish(
            action=action,
            status=Action.Status.REFUSED if outcome.is_refused else status,
            actor=Actor.system(action.organization_id, "AWS actuator"),
            result=outcome.result,
            error_code=outcome.error_code,
            error_message=outcome.error_message,
            usd_per_hour=outcome.usd_per_hour,
        )
    except Conflict:
        action.refresh_from_db()  # somebody was faster; what they recorded stands
    return str(action.status)


def _try_again_later(action: Action, error: AwsError) -> str:
    spread = random.uniform(1, 2)  # noqa: S311  # no secret
    held(action).update(
        lease_until=utcnow() + RETRY_AFTER * spread,
        error_code=error.code[:100],
        error_message=error.detail[:1024],
    )
    return "waiting"


_EXECUTORS: dict[str, Callable[[Action, RegionSession], Outcome]] = {
    Action.Kind.LAUNCH_NODE: launching.launch,
    Action.Kind.TERMINATE_INSTANCE: leaving.terminate,
    Action.Kind.DETACH_INSTANCE: leaving.detach,
    Action.Kind.RESTORE_MINIMUM: leaving.restore_minimum,
}
