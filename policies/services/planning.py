"""Run the optimizer on a cluster and keep what it proposes, refusals included."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import OuterRef, Q, Subquery

from accounts.domain import roles
from accounts.models import Account
from audit.models import AuditLog
from audit.services import Subject, record
from clusters.models import Cluster
from clusters.services.market import refresh_spot_prices
from policies.domain import planfile
from policies.domain.document import resolve
from policies.domain.optimizer import propose
from policies.domain.plan import PlanProposal, Wave
from policies.domain.shapes import CapacityType, ClusterSnapshot, Offer
from policies.models import ClusterPolicy, OptimizationJob, Plan, PlanStep
from policies.selectors.snapshot import cluster_snapshot, offers
from policies.services.execution import UNDER_WAY, may_approve_itself
from policies.services.policies import default_policy_for
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, NotFound, SpotOptError, TooManyRequests
from spotopt.core.live import announce
from spotopt.core.queue import enqueue

COOLDOWN = timedelta(minutes=5)
REFRESH_AFTER = timedelta(minutes=50)
"""Proposals may be approved for an hour; the next one is ready before."""
REPORTING = timedelta(minutes=5)
STUCK_AFTER = timedelta(minutes=30)


@transaction.atomic
def request_optimization(
    *, cluster_id: UUID, actor: Actor, trigger: str = OptimizationJob.Trigger.MANUAL
) -> OptimizationJob:
    """Queue one run of the optimizer.

    Raises NotFound, Conflict (a run or a plan is under way, paused, no agent) or TooManyRequests (cooldown
    of five minutes after a run by hand).
    """
    roles.require_role(actor, roles.MEMBER)
    cluster = Cluster.objects.select_related("account").filter(pk=cluster_id, removed_at__isnull=True).first()
    if cluster is None:
        raise NotFound("There is no such cluster.")
    _refuse_unless_ready(cluster, trigger)
    try:
        with transaction.atomic():
            job = OptimizationJob.objects.create(
                organization_id=cluster.organization_id,
                cluster=cluster,
                trigger=trigger,
                requested_by=actor.label,
                phase="Waiting for a worker",
            )
    except IntegrityError:
        running = OptimizationJob.objects.filter(cluster=cluster, status__in=["queued", "running"]).first()
        raise Conflict(
            "An optimization is already under way.", job_id=str(running.pk) if running else None
        ) from None
    announce(organization_id=cluster.organization_id, topic="job", cluster_id=str(cluster.pk))
    enqueue("policies.run_job", organization_id=cluster.organization_id, job_id=job.pk)
    record(
        actor=actor,
        event="policies.optimization.requested",
        sentence=f"Asked to optimize {cluster.name}",
        subject=Subject("cluster", str(cluster.pk), cluster.name),
        cluster_id=cluster.pk,
        account_id=cluster.account_id,
    )
    return job


def refresh_proposals() -> int:
    """Ask for a plan wherever the newest one is missing or too old to approve; return how many were asked.

    So a new customer sees what could be saved as soon as the agent has reported, without pressing anything.
    """
    newest = (
        OptimizationJob.objects.filter(cluster=OuterRef("pk")).order_by("-created_at").values("created_at")
    )
    clusters = Cluster.objects.filter(
        removed_at__isnull=True,
        maintenance_mode=False,
        account__status=Account.Status.ACTIVE,
        snapshot_at__gte=utcnow() - REPORTING,
    ).annotate(asked_at=Subquery(newest[:1]))
    due = clusters.filter(Q(asked_at__isnull=True) | Q(asked_at__lt=utcnow() - REFRESH_AFTER))
    asked = 0
    for cluster in due:
        actor = Actor.system(cluster.organization_id)
        try:
            request_optimization(
                cluster_id=cluster.pk, actor=actor, trigger=OptimizationJob.Trigger.DISCOVERY
            )
        except Conflict:
            continue  # a run or a plan is under way; the next tick looks again
        asked += 1
    return asked


def _refuse_unless_ready(cluster: Cluster, trigger: str) -> None:
    if cluster.maintenance_mode:
        raise Conflict("The cluster is paused for maintenance; resume it first.", code="paused")
    if cluster.account.status == Account.Status.DISCONNECTED:
        raise Conflict("The AWS account is disconnected; link it again first.", code="account_disconnected")
    if cluster.snapshot_at is None:
        raise Conflict("The agent has not reported yet; connect it first.", code="agent_missing")
    if utcnow() - cluster.snapshot_at > REPORTING:
        raise Conflict(
            "The agent has been silent for over five minutes; nothing is planned on old news.",
            code="agent_offline",
            snapshot_at=cluster.snapshot_at.isoformat(),
        )
    busy = Plan.objects.filter(cluster=cluster, status__in=UNDER_WAY).first()
    if busy is not None:
        raise Conflict("A plan is being carried out on this cluster.", plan_id=str(busy.pk))
    if trigger != OptimizationJob.Trigger.MANUAL:
        return
    last = OptimizationJob.objects.filter(cluster=cluster, trigger=trigger).order_by("-created_at").first()
    if last and last.status == OptimizationJob.Status.COMPLETED and utcnow() - last.created_at < COOLDOWN:
        wait = int((last.created_at + COOLDOWN - utcnow()).total_seconds()) + 1
        raise TooManyRequests(
            f"The cluster was optimized moments ago; try again in {wait} s.", retry_after_seconds=wait
        )


def run_job(*, job_id: UUID) -> Plan | None:
    """Run one queued job and return its plan; None when another worker has it or it is over.

    A job that fails keeps the reason; nothing else is written.
    """
    claimed = OptimizationJob.objects.filter(pk=job_id, status=OptimizationJob.Status.QUEUED).update(
        status=OptimizationJob.Status.RUNNING, started_at=utcnow(), phase="Reading the cluster"
    )
    if not claimed:
        return None
    job = OptimizationJob.objects.select_related("cluster").get(pk=job_id)
    try:
        return _propose(job)
    except SpotOptError as error:
        _fail(job, error.detail)
        return None


def _propose(job: OptimizationJob) -> Plan:
    policy = default_policy_for(job.cluster)
    rules = resolve(policy.config, policy.template)
    snapshot = cluster_snapshot(job.cluster_id)
    pools = _offers(job, snapshot)
    if not pools:
        raise Conflict("No prices are known for this region yet; scan the account again.")
    _phase(job, "Searching for the cheapest safe plan")
    proposal = propose(snapshot=snapshot, offers=pools, rules=rules, now=utcnow())
    return _store(job, policy, snapshot, proposal)


def _offers(job: OptimizationJob, snapshot: ClusterSnapshot) -> tuple[Offer, ...]:
    """Return the pools on offer, reading spot prices first when none are known yet (a fresh account)."""
    pools = offers(snapshot)
    if any(offer.capacity_type is CapacityType.SPOT for offer in pools):
        return pools
    _phase(job, "Reading spot prices")
    refresh_spot_prices()
    return offers(snapshot)


def _phase(job: OptimizationJob, phase: str) -> None:
    OptimizationJob.objects.filter(pk=job.pk).update(phase=phase)
    announce(organization_id=job.organization_id, topic="job", cluster_id=str(job.cluster_id))


@transaction.atomic
def _store(
    job: OptimizationJob, policy: ClusterPolicy, snapshot: ClusterSnapshot, proposal: PlanProposal
) -> Plan:
    _complete(job)
    Plan.objects.filter(cluster=job.cluster, status=Plan.Status.PROPOSED).update(
        status=Plan.Status.SUPERSEDED, updated_at=utcnow()
    )
    plan = Plan.objects.create(
        organization_id=job.organization_id,
        cluster=job.cluster,
        job=job,
        policy_version=policy.version,
        quoted_at=proposal.quoted_at,
        usd_per_hour_before=proposal.usd_per_hour_before,
        usd_per_hour_after=proposal.usd_per_hour_after,
        lower_bound_usd_per_hour=proposal.lower_bound_usd_per_hour,
        spot_replacement_usd_per_hour=proposal.breakdown.spot_replacement,
        bin_packing_usd_per_hour=proposal.breakdown.bin_packing,
        risk=proposal.risk,
        nodes_before=proposal.nodes_before,
        nodes_after=proposal.nodes_after,
        pods_moved=proposal.pods_moved,
        document={"waves": planfile.waves_as_json(proposal), "snapshot_at": snapshot.taken_at.isoformat()},
        refusals=planfile.refusals_as_json(proposal.refusals),
    )
    PlanStep.objects.bulk_create(_steps(plan, proposal.waves))
    OptimizationJob.objects.filter(pk=job.pk).update(
        results={
            "plan_id": str(plan.pk),
            "usd_per_hour_saved": str(plan.usd_per_hour_saved),
            "refusals": len(proposal.refusals),
        },
    )
    _announce_plan(plan)
    if proposal.waves and may_approve_itself(policy, risk=proposal.risk):
        enqueue("policies.approve_automatically", organization_id=plan.organization_id, plan_id=plan.pk)
    record(
        actor=Actor.system(job.organization_id),
        event="policies.plan.proposed",
        sentence=_sentence(plan, bool(proposal.waves)),
        subject=Subject("cluster", str(job.cluster_id), job.cluster.name),
        cluster_id=job.cluster_id,
        account_id=job.cluster.account_id,
        after={"plan_id": str(plan.pk), "nodes_before": plan.nodes_before, "nodes_after": plan.nodes_after},
    )
    return plan


def _complete(job: OptimizationJob) -> None:
    """Close the job; raise Conflict when it was given up meanwhile, so that nothing of it is kept."""
    completed = OptimizationJob.objects.filter(pk=job.pk, status=OptimizationJob.Status.RUNNING).update(
        status=OptimizationJob.Status.COMPLETED, phase="Done", completed_at=utcnow()
    )
    if not completed:
        raise Conflict("The run took too long and was given up.")


def _sentence(plan: Plan, is_worthwhile: bool) -> str:
    if not is_worthwhile:
        return f"Found nothing worth changing in {plan.cluster.name}"
    return f"Proposed a plan for {plan.cluster.name}: {plan.nodes_before} to {plan.nodes_after} nodes"


def _steps(plan: Plan, waves: tuple[Wave, ...]) -> Iterator[PlanStep]:
    seq = 0
    for number, wave in enumerate(waves, start=1):
        for kind, target, usd, params in _rows(wave):
            seq += 1
            yield PlanStep(
                organization_id=plan.organization_id,
                plan=plan,
                seq=seq,
                wave=number,
                kind=kind,
                target=target,
                usd_per_hour=usd,
                params=params,
            )


def _rows(wave: Wave) -> Iterator[tuple[str, str, Decimal, dict[str, str]]]:
    kinds = PlanStep.Kind
    for launch in wave.launches:
        yield (
            kinds.LAUNCH,
            launch.id,
            launch.usd_per_hour,
            {
                "instance_type": launch.instance_type,
                "zone": launch.zone,
                "capacity_type": launch.capacity_type.value,
            },
        )
    for removal in wave.removals:
        params = {"instance_id": removal.instance_id, "node_name": removal.node_id, "reason": removal.reason}
        for kind in (kinds.CORDON, kinds.DRAIN, kinds.TERMINATE):
            yield kind, removal.node_id, removal.usd_per_hour, params
    yield kinds.VERIFY, "cluster", Decimal(0), {}


@transaction.atomic
def _fail(job: OptimizationJob, reason: str) -> bool:
    """Close a running job with a reason; False, with nothing written, when it is over already."""
    failed = OptimizationJob.objects.filter(pk=job.pk, status=OptimizationJob.Status.RUNNING).update(
        status=OptimizationJob.Status.FAILED,
        error_message=reason[:500],
        completed_at=utcnow(),
        phase="Failed",
    )
    if not failed:
        return False
    announce(organization_id=job.organization_id, topic="job", cluster_id=str(job.cluster_id))
    record(
        actor=Actor.system(job.organization_id),
        event="policies.optimization.failed",
        sentence=f"Could not optimize {job.cluster.name}: {reason}",
        subject=Subject("cluster", str(job.cluster_id), job.cluster.name),
        outcome=AuditLog.Outcome.FAILED,
        cluster_id=job.cluster_id,
    )
    return True


def fail_stuck_jobs() -> int:
    """Fail the organization's jobs whose worker died; return how many."""
    stuck = OptimizationJob.objects.select_related("cluster").filter(
        status=OptimizationJob.Status.RUNNING, started_at__lt=utcnow() - STUCK_AFTER
    )
    return sum(_fail(job, "The worker stopped before it finished.") for job in stuck)


def _announce_plan(plan: Plan) -> None:
    for topic in ("plan", "job"):
        announce(
            organization_id=plan.organization_id,
            topic=topic,
            plan_id=str(plan.pk),
            cluster_id=str(plan.cluster_id),
        )
