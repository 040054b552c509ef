"""Approve, reject and carry out plans. Ticks move them on; every tick may run twice."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError, connection, transaction

from accounts import platform
from accounts.domain import roles
from accounts.models import Account
from audit.services import Subject, record
from clusters.models import Cluster
from policies.domain import planfile
from policies.domain.document import parse
from policies.domain.progress import MAX_PRICE_DRIFT, MAX_QUOTE_AGE, SAVINGS_SHORT, SHORT_MEMORY
from policies.models import ClusterPolicy, Plan
from policies.services.conductor import Conductor
from policies.services.run import PlanMoved, PlanRun, usd_today
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, GuardrailViolated, NotFound
from spotopt.core.live import announce
from spotopt.core.queue import enqueue

UNDER_WAY = (Plan.Status.APPROVED, Plan.Status.RUNNING, Plan.Status.STOPPING)


@transaction.atomic
def approve_plan(*, plan_id: UUID, actor: Actor) -> Plan:
    """Freeze the plan and queue its first step; refuse if its prices moved or a switch forbids it."""
    roles.require_role(actor, roles.MEMBER)
    plan = _locked(plan_id)
    if plan.status in UNDER_WAY:
        return plan
    _refuse_unless_approvable(plan)
    plan.status, plan.decided_by, plan.decided_at = Plan.Status.APPROVED, actor.label, utcnow()
    try:
        with transaction.atomic():
            plan.save(update_fields=["status", "decided_by", "decided_at", "updated_at"])
    except IntegrityError:
        raise Conflict("Another plan is being carried out on this cluster.") from None
    enqueue("policies.advance_plan", organization_id=plan.organization_id, plan_id=plan.pk)
    _tell(plan, actor, "approved", f"Approved the plan for {plan.cluster.name}")
    return plan


@transaction.atomic
def approve_automatically(*, plan_id: UUID) -> Plan:
    """Approve a plan in the name of its cluster's policy; refuse when the policy no longer allows that."""
    plan = _locked(plan_id)
    policy = ClusterPolicy.objects.filter(cluster=plan.cluster).first()
    if policy is None or not may_approve_itself(policy, risk=plan.risk):
        raise Conflict("The policy no longer lets this plan run without a person.")
    if _fell_short(plan):
        raise GuardrailViolated(
            "A plan of the last day saved less than it promised; a person decides about the next.",
            code=SAVINGS_SHORT,
        )
    actor = Actor.system(plan.organization_id, "Automatic policy")
    return approve_plan(plan_id=plan_id, actor=actor)


def _fell_short(plan: Plan) -> bool:
    ended = Plan.objects.filter(cluster=plan.cluster, finished_at__gt=utcnow() - SHORT_MEMORY)
    return ended.filter(stop_code=SAVINGS_SHORT).exists()


def may_approve_itself(policy: ClusterPolicy, *, risk: float) -> bool:
    """Tell whether the policy lets a plan of this risk run without a person."""
    approval = parse(policy.config).approval
    is_automatic = policy.is_active and policy.mode == ClusterPolicy.Mode.AUTOMATIC
    return bool(is_automatic and not approval.required and risk <= approval.max_risk)


@transaction.atomic
def reject_plan(*, plan_id: UUID, actor: Actor, reason: str = "") -> Plan:
    """Turn the proposal down; nothing in the cluster changes."""
    roles.require_role(actor, roles.MEMBER)
    plan = _locked(plan_id)
    if plan.status == Plan.Status.REJECTED:
        return plan
    if plan.status != Plan.Status.PROPOSED:
        raise Conflict(f"The plan is {plan.get_status_display().lower()}; only a proposal can be rejected.")
    plan.status, plan.decided_by, plan.decided_at = Plan.Status.REJECTED, actor.label, utcnow()
    plan.stop_reason = reason[:500]
    plan.save(update_fields=["status", "decided_by", "decided_at", "stop_reason", "updated_at"])
    _tell(plan, actor, "rejected", f"Rejected the plan for {plan.cluster.name}")
    return plan


@transaction.atomic
def stop_plan(*, plan_id: UUID, actor: Actor, reason: str = "") -> Plan:
    """Stop a running plan safely: nothing new starts, nodes are uncordoned, spare nodes go."""
    roles.require_role(actor, roles.MEMBER)
    plan = _locked(plan_id)
    if plan.status not in UNDER_WAY:
        raise Conflict(f"The plan is {plan.get_status_display().lower()}; there is nothing to stop.")
    PlanRun(plan).stop(reason or f"Stopped by {actor.label}.")
    enqueue("policies.advance_plan", organization_id=plan.organization_id, plan_id=plan.pk)
    _tell(plan, actor, "stop_requested", f"Asked to stop the plan for {plan.cluster.name}")
    return plan


def advance_plan(*, plan_id: UUID) -> bool:
    """Move one plan as far as it can go now; False when it is over or another worker is at it."""
    with _only_worker(plan_id) as is_mine:
        plans = Plan.objects.select_related("cluster").filter(pk=plan_id, status__in=UNDER_WAY)
        plan = plans.first() if is_mine else None
        if plan is None:
            return False
        with suppress(PlanMoved):
            Conductor(plan).tick()
        return True


@contextmanager
def _only_worker(plan_id: UUID) -> Iterator[bool]:
    """Tell whether the plan is this worker's until the block ends; a dead worker's hold ends with it."""
    key = int.from_bytes(plan_id.bytes[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [key])
        is_mine: bool = cursor.fetchone()[0]
        try:
            yield is_mine
        finally:
            if is_mine:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [key])


def _locked(plan_id: UUID) -> Plan:
    plan = (
        Plan.objects.select_for_update(of=("self",))
        .select_related("cluster", "cluster__account")
        .filter(pk=plan_id)
        .first()
    )
    if plan is None:
        raise NotFound("There is no such plan.")
    return plan


def _refuse_unless_approvable(plan: Plan) -> None:
    if plan.status != Plan.Status.PROPOSED:
        raise Conflict(f"The plan is {plan.get_status_display().lower()}; ask for a new one.")
    if not plan.document["waves"]:
        raise Conflict("The plan changes nothing; there is nothing to approve.")
    if plan.cluster.account.status == Account.Status.DISCONNECTED:
        raise Conflict("The AWS account is disconnected; link it again first.")
    if utcnow() - plan.quoted_at > MAX_QUOTE_AGE:
        raise Conflict(
            "The plan's prices are over an hour old; ask for a new one.", quoted_at=plan.quoted_at.isoformat()
        )
    if Plan.objects.filter(cluster=plan.cluster, started_at__gt=plan.quoted_at).exists():
        raise Conflict("Another plan has changed the cluster since; ask for a new one.")
    if platform.get_safe_mode() != "off":
        raise GuardrailViolated("Safe mode is on: no plan is carried out.", code="safe_mode")
    if plan.cluster.maintenance_mode:
        raise GuardrailViolated("The cluster is paused for maintenance.", code="paused")
    drift = _price_drift(plan)
    if drift > MAX_PRICE_DRIFT:
        raise GuardrailViolated(
            "Prices rose since the plan was made; ask for a new one.", code="price_drift", drift=str(drift)
        )


def _price_drift(plan: Plan) -> Decimal:
    """Return by which share the new nodes of the plan have become dearer since it was quoted."""
    launches = [
        launch for wave in planfile.waves_from_json(plan.document["waves"]) for launch in wave.launches
    ]
    quoted = sum((launch.usd_per_hour for launch in launches), Decimal(0))
    if not quoted:
        return Decimal(0)
    return (usd_today(plan.cluster.region, launches) / quoted - 1).quantize(Decimal("0.0001"))


def _tell(plan: Plan, actor: Actor, verb: str, sentence: str) -> None:
    cluster: Cluster = plan.cluster
    announce(
        organization_id=plan.organization_id, topic="plan", plan_id=str(plan.pk), cluster_id=str(cluster.pk)
    )
    record(
        actor=actor,
        event=f"policies.plan.{verb}",
        sentence=sentence,
        subject=Subject("cluster", str(cluster.pk), cluster.name),
        cluster_id=cluster.pk,
        account_id=cluster.account_id,
        after={"plan_id": str(plan.pk), "status": plan.status},
    )
