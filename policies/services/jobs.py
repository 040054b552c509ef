"""Withdraw optimizer runs that have not begun."""

from uuid import UUID

from django.db import transaction

from accounts.domain import roles
from audit.services import Subject, record
from policies.models import OptimizationJob
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, NotFound
from spotopt.core.live import announce


@transaction.atomic
def cancel_job(*, job_id: UUID, actor: Actor) -> OptimizationJob:
    """Return the job, cancelled; raise Conflict once a worker has it or it is over."""
    roles.require_role(actor, roles.MEMBER)
    cancelled = OptimizationJob.objects.filter(pk=job_id, status=OptimizationJob.Status.QUEUED).update(
        status=OptimizationJob.Status.CANCELLED, completed_at=utcnow(), phase=""
    )
    job = OptimizationJob.objects.select_related("cluster").filter(pk=job_id).first()
    if job is None:
        raise NotFound("There is no such job.")
    if not cancelled:
        raise Conflict(
            f"The job is {job.status} already; only a queued one can be cancelled.", job_status=job.status
        )
    record(
        actor=actor,
        event="policies.optimization.cancelled",
        sentence=f"Cancelled the optimization of {job.cluster.name}",
        subject=Subject("cluster", str(job.cluster_id), job.cluster.name),
        account_id=job.cluster.account_id,
        cluster_id=job.cluster_id,
    )
    announce(organization_id=job.organization_id, topic="job", cluster_id=str(job.cluster_id))
    return job
