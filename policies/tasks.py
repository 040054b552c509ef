"""Optimizer runs and the ticks that move plans on."""

from uuid import UUID

from celery import shared_task

from clusters.models import Cluster
from policies.models import OptimizationJob, Plan, WhatIf
from policies.services import answering, comparison, execution, jobs, karpenter, leftovers, planning
from spotopt.core.errors import SpotOptError
from spotopt.core.queue import enqueue
from spotopt.core.tasks import PlatformTask, TenantTask, TickTask


@shared_task(base=TenantTask, name="policies.run_job")
def run_job(*, organization_id: str, job_id: str) -> None:
    """Run one queued optimization."""
    planning.run_job(job_id=UUID(job_id))


@shared_task(base=TenantTask, name="policies.run_what_if")
def run_what_if(*, organization_id: str, what_if_id: str) -> bool:
    """Compute one queued what-if."""
    return comparison.run_what_if(what_if_id=UUID(what_if_id))


@shared_task(base=PlatformTask, name="policies.run_queued_jobs")
def run_queued_jobs() -> int:
    """Start the queued runs and what-ifs that nobody started, and fail those whose worker died."""
    queued, running = OptimizationJob.Status.QUEUED, OptimizationJob.Status.RUNNING
    runs = OptimizationJob.unscoped.filter(status=queued).values_list("organization_id", "pk")
    for organization_id, job_id in runs:
        enqueue("policies.run_job", organization_id=organization_id, job_id=job_id)
    what_ifs = WhatIf.unscoped.filter(status=queued).values_list("organization_id", "pk")
    for organization_id, what_if_id in what_ifs:
        enqueue("policies.run_what_if", organization_id=organization_id, what_if_id=what_if_id)
    busy = {
        organization_id
        for kind in (OptimizationJob, WhatIf)
        for organization_id in kind.unscoped.filter(status=running).values_list("organization_id", flat=True)
    }
    for organization_id in busy:
        enqueue("policies.fail_stuck_jobs", organization_id=organization_id)
    return len(runs) + len(what_ifs)


@shared_task(base=TickTask, name="policies.fail_stuck_jobs")
def fail_stuck_jobs(*, organization_id: str) -> int:
    """Fail the organization's runs whose worker died."""
    return jobs.fail_stuck_jobs()


@shared_task(base=PlatformTask, name="policies.refresh_proposals")
def refresh_proposals() -> int:
    """Find organizations with reporting clusters, whose proposals may be missing or old."""
    reporting = Cluster.unscoped.filter(snapshot_at__isnull=False, removed_at__isnull=True)
    organization_ids = set(reporting.values_list("organization_id", flat=True))
    for organization_id in organization_ids:
        enqueue("policies.refresh_organization_proposals", organization_id=organization_id)
    return len(organization_ids)


@shared_task(base=TickTask, name="policies.refresh_organization_proposals")
def refresh_organization_proposals(*, organization_id: str) -> int:
    """Ask for plans where the newest one is missing or too old."""
    return planning.refresh_proposals()


@shared_task(base=PlatformTask, name="policies.advance_plans")
def advance_plans() -> int:
    """Move every plan that is under way on."""
    under_way = Plan.unscoped.filter(status__in=execution.UNDER_WAY)
    for organization_id, plan_id in under_way.values_list("organization_id", "pk"):
        enqueue("policies.advance_plan", organization_id=organization_id, plan_id=plan_id)
    return under_way.count()


@shared_task(base=TickTask, name="policies.advance_plan")
def advance_plan(*, organization_id: str, plan_id: str) -> bool:
    """Move one plan as far as it can go now."""
    return execution.advance_plan(plan_id=UUID(plan_id))


@shared_task(base=PlatformTask, name="policies.open_leftovers")
def open_leftovers() -> int:
    """Find the organizations with nodes that may be closed for no reason."""
    organization_ids = leftovers.organizations_with_marks()
    for organization_id in organization_ids:
        enqueue("policies.open_organization_leftovers", organization_id=organization_id)
    return len(organization_ids)


@shared_task(base=TenantTask, name="policies.open_organization_leftovers")
def open_organization_leftovers(*, organization_id: str) -> int:
    """Open the organization's nodes that carry a mark of ours which nobody claims."""
    return leftovers.open_leftovers()


@shared_task(base=TenantTask, name="policies.approve_automatically")
def approve_automatically(*, organization_id: str, plan_id: str) -> str:
    """Approve a plan in the name of a policy in automatic mode; return the status or the refusal."""
    try:
        return execution.approve_automatically(plan_id=UUID(plan_id)).status
    except SpotOptError as refusal:
        return refusal.detail


@shared_task(base=PlatformTask, name="policies.answer_all_interruptions")
def answer_all_interruptions() -> int:
    """Find the organizations with notices that are not over."""
    organization_ids = answering.undecided_organizations()
    for organization_id in organization_ids:
        enqueue("policies.answer_interruptions", organization_id=organization_id)
    return len(organization_ids)


@shared_task(base=TickTask, name="policies.answer_interruptions")
def answer_interruptions(*, organization_id: str) -> int:
    """Launch what replaces the organization's interrupted nodes."""
    return answering.answer_interruptions()


@shared_task(base=PlatformTask, name="policies.steer_all_karpenters")
def steer_all_karpenters() -> int:
    """Find the organizations with clusters in which Karpenter runs."""
    organization_ids = karpenter.organizations_with_karpenter()
    for organization_id in organization_ids:
        enqueue("policies.steer_organization_karpenters", organization_id=organization_id)
    return len(organization_ids)


@shared_task(base=TenantTask, name="policies.steer_organization_karpenters")
def steer_organization_karpenters(*, organization_id: str) -> int:
    """Have Karpenter told what is wanted in each of the organization's clusters."""
    return karpenter.steer_all()


@shared_task(base=TenantTask, name="policies.steer_karpenter")
def steer_karpenter(*, organization_id: str, cluster_id: str) -> int:
    """Have Karpenter told what is wanted in one cluster, after its policy changed."""
    return karpenter.steer(cluster_id=UUID(cluster_id))
