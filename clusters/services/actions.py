"""Request, claim and report actions: the only road by which anything is changed."""

from collections.abc import Mapping
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from audit.models import AuditLog
from audit.services import Entry, Subject, record_all
from clusters.domain import actions as rules
from clusters.domain.facts import Verdict
from clusters.domain.guardrails import judge
from clusters.models import Action, Cluster
from clusters.selectors.guard import cluster_facts
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, Gone, GuardrailViolated, NotFound
from spotopt.core.live import announce
from spotopt.core.queue import enqueue

Params = Mapping[str, object]


def request_action(
    *,
    cluster: Cluster,
    kind: str,
    target: str,
    params: Params,
    reason: str,
    actor: Actor,
    idempotency_key: str,
    plan_id: UUID | None = None,
    is_voluntary: bool = True,
) -> Action:
    """Queue one action and return it; the same key returns the first one, whatever its state.

    Raises GuardrailViolated, with nothing queued, when the safety floor forbids it already now, and Conflict
    when the key stands for another act.
    """
    known = Action.objects.filter(idempotency_key=idempotency_key).first()
    if known is not None:
        return _of_the_same_act(known, cluster.pk, kind)
    action = draft(
        cluster=cluster, kind=kind, target=target, params=params, reason=reason, actor=actor,
        idempotency_key=idempotency_key, plan_id=plan_id, is_voluntary=is_voluntary,
    )  # fmt: skip
    require_allowed(action)
    return _queue(action, actor)


def draft(
    *,
    cluster: Cluster,
    kind: str,
    target: str,
    params: Params,
    reason: str,
    actor: Actor,
    idempotency_key: str,
    plan_id: UUID | None = None,
    is_voluntary: bool = True,
) -> Action:
    """Return an action that is neither judged nor stored yet."""
    return Action(
        organization_id=cluster.organization_id,
        cluster=cluster,
        kind=kind,
        route=rules.ROUTES[kind],
        target=target,
        params=dict(params),
        reason=reason[:500],
        requested_by=actor.label,
        plan_id=plan_id,
        idempotency_key=idempotency_key,
        is_voluntary=is_voluntary,
        expires_at=utcnow() + rules.lifetime(kind),
    )


def require_allowed(action: Action) -> None:
    """Raise GuardrailViolated, with ``code``, when the safety floor forbids the action now."""
    verdict = _judge(action)
    if verdict is not None:
        raise GuardrailViolated(verdict.reason, code=verdict.code)


def _judge(action: Action) -> Verdict | None:
    return judge(
        kind=action.kind,
        instance_id=str(action.params.get("instance_id", "")),
        is_voluntary=action.is_voluntary,
        facts=cluster_facts(
            action.cluster_id,
            excluding_action=action.pk,
            with_nodes=rules.looks_at_nodes(action.kind, is_voluntary=action.is_voluntary),
        ),
    )


@transaction.atomic
def _queue(action: Action, actor: Actor) -> Action:
    stored, is_new = Action.objects.get_or_create(
        idempotency_key=action.idempotency_key,
        defaults={name: getattr(action, name) for name in _COPIED},
    )
    if is_new:
        _tell(
            stored,
            actor,
            "requested",
            rules.sentence(kind=stored.kind, status="requested", target=stored.target),
            after=dict(stored.params),
        )
        if stored.route == Action.Route.AWS:
            enqueue("clusters.actuate_action", organization_id=stored.organization_id, action_id=stored.pk)
        else:
            announce(organization_id=stored.organization_id, topic="agent", cluster_id=str(stored.cluster_id))
    return _of_the_same_act(stored, action.cluster_id, action.kind)


def _of_the_same_act(known: Action, cluster_id: UUID, kind: str) -> Action:
    if (known.cluster_id, known.kind) != (cluster_id, kind):
        raise Conflict("The idempotency key stands for another act already.", action_id=str(known.pk))
    return known


_COPIED = (
    "organization_id",
    "cluster",
    "kind",
    "route",
    "target",
    "params",
    "reason",
    "requested_by",
    "plan_id",
    "is_voluntary",
    "expires_at",
)


def claim_for_actuator(*, action_id: UUID, worker: str) -> Action | None:
    """Give the AWS actuator one action, or None when somebody else has it or it is over.

    A claim whose lease ran out is taken over: AWS calls carry the action's id as their token, so that doing
    them again does nothing twice.
    """
    action = Action.objects.filter(pk=action_id, route=Action.Route.AWS).first()
    if action is None:
        return None
    if action.status == Action.Status.RUNNING:
        return action if _take_over(action, worker) else None
    return action if claim(action=action, claimed_by=worker) else None


@transaction.atomic
def claim(*, action: Action, claimed_by: str) -> bool:
    """Move a pending action to running for one caller; tell whether this caller got it."""
    now = utcnow()
    changes = {"claimed_by": claimed_by, "claimed_at": now, "lease_until": now + rules.lease(action.kind)}
    claimed = Action.objects.filter(pk=action.pk, status=Action.Status.PENDING, expires_at__gt=now).update(
        status=Action.Status.RUNNING, updated_at=now, **changes
    )
    if not claimed:
        return False
    verdict = _judge(action)
    action.refresh_from_db()
    if verdict is not None:
        refuse(action, verdict)
        return False
    announce_change(action)
    return True


def _take_over(action: Action, worker: str) -> bool:
    now = utcnow()
    taken = Action.objects.filter(pk=action.pk, status=Action.Status.RUNNING, lease_until__lt=now).update(
        claimed_by=worker, lease_until=now + rules.lease(action.kind), updated_at=now
    )
    action.refresh_from_db()
    return taken == 1


@transaction.atomic
def report_result(
    *,
    action_id: UUID,
    claimed_by: str,
    succeeded: bool,
    result: Params,
    error_code: str = "",
    error_message: str = "",
) -> Action:
    """Close a running action with what its executor says happened; saying the same again changes nothing.

    Raises NotFound for an unknown action, Conflict when another executor holds it, Gone when it is over.
    """
    action = Action.objects.select_for_update(of=("self",)).filter(pk=action_id).first()
    if action is None:
        raise NotFound("There is no such action.")
    outcome = Action.Status.SUCCEEDED if succeeded else Action.Status.FAILED
    if action.claimed_by != claimed_by:
        raise Conflict("Another executor holds this action.", claimed_by=action.claimed_by)
    if action.status == outcome:
        return action
    if not rules.may_move(action.status, outcome):
        raise Gone(f"The action is {action.status} already; the late result is kept but not applied.")
    finish(
        action=action,
        status=outcome,
        result=result,
        error_code=error_code,
        error_message=error_message,
        actor=Actor(kind="agent", organization_id=action.organization_id, label=claimed_by, id=claimed_by),
    )
    return action


@transaction.atomic
def finish(
    *,
    action: Action,
    status: str,
    actor: Actor,
    result: Params | None = None,
    error_code: str = "",
    error_message: str = "",
    usd_per_hour: Decimal | None = None,
) -> None:
    """Move an open action to a final status and record it; raise Conflict when it is over already.

    ``usd_per_hour`` is what the act saves (positive) or costs (negative) from now on.
    """
    if not rules.may_move(action.status, status):
        raise Conflict(f"An action that is {action.status} cannot become {status}.")
    now = utcnow()
    moved = Action.objects.filter(pk=action.pk, status=action.status).update(
        status=status,
        result=dict(result or {}),
        error_code=error_code[:100],
        error_message=error_message[:1024],
        finished_at=now,
        updated_at=now,
    )
    if not moved:
        raise Conflict("The action changed meanwhile.")
    action.refresh_from_db()
    said = rules.sentence(kind=action.kind, status=status, target=action.target, why=error_message)
    _tell(action, actor, status, said, after=dict(result or {}), usd_per_hour=usd_per_hour)


@transaction.atomic
def cancel_pending(*, plan_id: UUID, actor: Actor) -> int:
    """Cancel the plan's actions that nobody has claimed yet; return how many.

    One that is being claimed at this moment counts as claimed: its claim may be waiting for our transaction.
    """
    waiting = list(
        Action.objects.select_for_update(of=("self",), skip_locked=True).filter(
            plan_id=plan_id, status=Action.Status.PENDING
        )
    )
    for action in waiting:
        finish(action=action, status=Action.Status.CANCELLED, actor=actor)
    return len(waiting)


def reap(*, organization_id: UUID) -> int:
    """Close what nobody will finish: what was never claimed in time, and claims without a report.

    An agent is given its lease. An AWS action is taken over by other workers and only closed when none of
    them came to an end within ``ACTUATION_PATIENCE`` of its expiry.
    """
    now = utcnow()
    running = Q(status=Action.Status.RUNNING)
    overdue = Action.objects.filter(
        Q(status=Action.Status.PENDING, expires_at__lte=now)
        | running & Q(route=Action.Route.AGENT, lease_until__lte=now)
        | running & Q(route=Action.Route.AWS, expires_at__lte=now - rules.ACTUATION_PATIENCE)
    )
    system = Actor.system(organization_id)
    count = 0
    for action in overdue:
        waiting = action.status == Action.Status.PENDING
        try:
            finish(
                action=action,
                status=Action.Status.EXPIRED if waiting else Action.Status.FAILED,
                actor=system,
                error_code="expired" if waiting else "lease_expired",
                error_message="Nobody claimed it in time."
                if waiting
                else "Its executor stopped reporting on it.",
            )
        except Conflict:
            continue  # its executor was faster than the reaper
        count += 1
    return count


def refuse(action: Action, verdict: Verdict) -> None:
    """Close an action that the safety floor forbids."""
    finish(
        action=action,
        status=Action.Status.REFUSED,
        actor=Actor.system(action.organization_id),
        error_code=verdict.code,
        error_message=verdict.reason,
    )


def _tell(
    action: Action,
    actor: Actor,
    verb: str,
    sentence: str,
    *,
    after: Params,
    usd_per_hour: Decimal | None = None,
) -> None:
    announce_change(action)
    entry = entry_of(action, verb, sentence, after=after, usd_per_hour=usd_per_hour)
    record_all(actor=actor, entries=[entry])


def entry_of(
    action: Action, verb: str, sentence: str, *, after: Params, usd_per_hour: Decimal | None = None
) -> Entry:
    """Return what goes on the record about an action."""
    kind = "instance" if action.params.get("instance_id") else "cluster"
    return Entry(
        event=f"clusters.action.{verb}",
        sentence=sentence,
        subject=Subject(kind, action.target, action.target),
        outcome=_OUTCOMES.get(verb, AuditLog.Outcome.SUCCESS),
        account_id=action.cluster.account_id,
        cluster_id=action.cluster_id,
        after={"action_id": str(action.pk), "kind": action.kind, "reason": action.reason, **after},
        usd_per_hour=usd_per_hour,
    )


_OUTCOMES: dict[str, str] = {
    Action.Status.REFUSED: AuditLog.Outcome.DENIED,
    Action.Status.EXPIRED: AuditLog.Outcome.FAILED,
    Action.Status.FAILED: AuditLog.Outcome.FAILED,
}


def announce_change(action: Action) -> None:
    """Have open pages look at the action again when the transaction commits."""
    topic = {"plan_id": str(action.plan_id)} if action.plan_id else {}
    announce(
        organization_id=action.organization_id,
        topic="plan" if topic else "cluster",
        cluster_id=str(action.cluster_id),
        **topic,
    )
