"""Run the optimizer on a cluster and keep what it proposes, refusals included."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import OuterRef, Q, Subquery

from accounts.domain import roles
from accounts.models import Account
from audit.services import Subject, record
from clusters.models import Cluster
from clusters.services.market import refresh_spot_prices
from policies.domain import planfile
from policies.domain.constraints import Scene
from policies.domain.document import resolve
from policies.domain.optimizer import propose
from policies.domain.plan import PlanProposal, Wave
from policies.domain.shapes import CapacityType, ClusterSnapshot, Offer
from policies.domain.watch import Watch, part_of
from policies.models import UNFINISHED, ClusterPolicy, OptimizationJob, Plan, PlanStep
from policies.selectors.snapshot import cluster_snapshot, offers
from policies.services import jobs
from policies.services.execution import UNDER_WAY, may_approve_itself
from policies.services.explaining import explain_plan
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
                phase=jobs.WAITING,
            )
    except IntegrityError:
        running = OptimizationJob.objects.filter(cluster=cluster, status__in=UNFINISHED).first()
        raise Conflict(
            "An optimization is already under way.", job_id=str(running.pk) if running else None
        ) from None
    jobs.tell(job)
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
    """Run one queued job and return its plan; None when it is over, or is cancelled on the way.

    A job that fails keeps the reason; nothing else is written.
    """
    job = jobs.claim(OptimizationJob, job_id, phase="Reading the cluster")
    if job is None:
        return None
    try:
        return _propose(job)
    except jobs.Cancelled:
        return None
    except SpotOptError as error:
        jobs.fail(job, error.detail)
        return None


def _propose(job: OptimizationJob) -> Plan:
    watch = jobs.watch_of(job)
    policy = default_policy_for(job.cluster)
    rules = resolve(policy.config, policy.template)
    snapshot = cluster_snapshot(job.cluster_id)
    pools = pools_for(snapshot, watch)
    proposal = propose(
        snapshot=snapshot, offers=pools, rules=rules, now=utcnow(), watch=part_of(watch, 0.1, 1.0)
    )
    plan = _store(job, policy, snapshot, proposal)
    explain_plan(plan=plan, scene=Scene(snapshot, pools, rules, proposal))
    return plan


def pools_for(snapshot: ClusterSnapshot, watch: Watch) -> tuple[Offer, ...]:
    """Return the pools on offer, reading spot prices first when none are known yet (a fresh account).

    Raises Conflict when the region has no price at all.
    """
    pools = offers(snapshot)
    if not any(offer.capacity_type is CapacityType.SPOT for offer in pools):
        watch("Reading spot prices", 0.05)
        refresh_spot_prices()
        pools = offers(snapshot)
    if not pools:
        raise Conflict("No prices are known for this region yet; scan the account again.")
    return pools


@transaction.atomic
def _store(
    job: OptimizationJob, policy: ClusterPolicy, snapshot: ClusterSnapshot, proposal: PlanProposal
) -> Plan:
    facts = _facts(policy, snapshot, proposal)
    plan = None if proposal.waves else _renewed(job, facts)
    is_news = plan is None
    plan = plan or _replacing_older_proposals(job, proposal, facts)
    jobs.complete(
        job,
        results={
            "plan_id": str(plan.pk),
            "usd_per_hour_saved": str(plan.usd_per_hour_saved),
            "refusals": len(proposal.refusals),
        },
    )
    _announce_plan(plan)
    if proposal.waves and may_approve_itself(policy, risk=proposal.risk):
        enqueue("policies.approve_automatically", organization_id=plan.organization_id, plan_id=plan.pk)
    if is_news:
        _record_proposal(plan, bool(proposal.waves))
    return plan


def _facts(policy: ClusterPolicy, snapshot: ClusterSnapshot, proposal: PlanProposal) -> dict[str, object]:
    return {
        "policy_version": policy.version,
        "quoted_at": proposal.quoted_at,
        "usd_per_hour_before": proposal.usd_per_hour_before,
        "usd_per_hour_after": proposal.usd_per_hour_after,
        "lower_bound_usd_per_hour": proposal.lower_bound_usd_per_hour,
        "spot_replacement_usd_per_hour": proposal.breakdown.spot_replacement,
        "bin_packing_usd_per_hour": proposal.breakdown.bin_packing,
        "risk": proposal.risk,
        "nodes_before": proposal.nodes_before,
        "nodes_after": proposal.nodes_after,
        "pods_moved": proposal.pods_moved,
        "document": {
            "waves": planfile.waves_as_json(proposal),
            "snapshot_at": snapshot.taken_at.isoformat(),
        },
        "refusals": planfile.refusals_as_json(proposal.refusals),
    }


def _renewed(job: OptimizationJob, facts: dict[str, object]) -> Plan | None:
    """Return the cluster's empty proposal with the new figures; None when the newest one is not empty.

    So a cluster with nothing to change has one such plan, not one for every look.
    """
    standing = Plan.objects.filter(cluster=job.cluster, status=Plan.Status.PROPOSED)
    plan = standing.select_for_update(of=("self",)).order_by("-created_at").first()
    if plan is None or plan.document["waves"]:
        return None
    facts |= {"job": job, "constraint_prices": {}}
    for name, value in facts.items():
        setattr(plan, name, value)
    plan.save(update_fields=[*facts, "updated_at"])
    return plan


def _replacing_older_proposals(
    job: OptimizationJob, proposal: PlanProposal, facts: dict[str, object]
) -> Plan:
    Plan.objects.filter(cluster=job.cluster, status=Plan.Status.PROPOSED).update(
        status=Plan.Status.SUPERSEDED, updated_at=utcnow()
    )
    plan = Plan.objects.create(organization_id=job.organization_id, cluster=job.cluster, job=job, **facts)
    PlanStep.objects.bulk_create(_steps(plan, proposal.waves))
    return plan


def _record_proposal(plan: Plan, is_worthwhile: bool) -> None:
    record(
        actor=Actor.system(plan.organization_id),
        event="policies.plan.proposed",
        sentence=_sentence(plan, is_worthwhile),
        subject=Subject("cluster", str(plan.cluster_id), plan.cluster.name),
        cluster_id=plan.cluster_id,
        account_id=plan.cluster.account_id,
        after={"plan_id": str(plan.pk), "nodes_before": plan.nodes_before, "nodes_after": plan.nodes_after},
    )


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


def _announce_plan(plan: Plan) -> None:
    for topic in ("plan", "job"):
        announce(
            organization_id=plan.organization_id,
            topic=topic,
            plan_id=str(plan.pk),
            cluster_id=str(plan.cluster_id),
        )
