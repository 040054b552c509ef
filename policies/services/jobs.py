"""What all work of a worker has in common: claimed once, watched, cancelled between steps, closed once."""

from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from accounts.domain import roles
from audit.models import AuditLog
from audit.services import Subject, record
from policies.domain.watch import Watch
from policies.models import UNFINISHED, OptimizationJob, WhatIf, WorkerJob
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, NotFound
from spotopt.core.live import announce

WAITING = "Waiting for a worker"
STUCK_AFTER = timedelta(minutes=30)
_PHASE_LENGTH = 60
_Status = WorkerJob.Status
_Kind = TypeVar("_Kind", OptimizationJob, WhatIf)
_NAMES: dict[type[WorkerJob], tuple[str, str]] = {
    OptimizationJob: ("policies.optimization", "optimization"),
    WhatIf: ("policies.what_if", "what-if"),
}
"""Prefix of the events of each kind of work, and what people call it."""


class Cancelled(Exception):
    """The work is over for everybody else; whoever still does it should stop and keep nothing."""


def claim(kind: type[_Kind], job_id: UUID, *, phase: str) -> _Kind | None:
    """Return the queued job as this worker's own; None when another has it or it is over."""
    claimed = kind.objects.filter(pk=job_id, status=_Status.QUEUED).update(
        status=_Status.RUNNING, started_at=utcnow(), phase=phase
    )
    return kind.objects.select_related("cluster").get(pk=job_id) if claimed else None


def watch_of(job: OptimizationJob | WhatIf) -> Watch:
    """Return a watch that stores and announces progress, and raises Cancelled once the job is over."""

    def watch(step: str, share: float) -> None:
        still = _running(job).update(phase=step[:_PHASE_LENGTH], progress_percent=round(100 * share))
        if not still:
            raise Cancelled
        tell(job)

    return watch


def complete(job: OptimizationJob | WhatIf, **facts: object) -> None:
    """Close the job with its results; raise Cancelled when it is over already, so that nothing is kept."""
    closed = _running(job).update(
        status=_Status.COMPLETED, phase="Done", progress_percent=100, completed_at=utcnow(), **facts
    )
    if not closed:
        raise Cancelled
    tell(job)


@transaction.atomic
def fail(job: OptimizationJob | WhatIf, reason: str) -> bool:
    """Close a running job with a reason; False, with nothing written, when it is over already."""
    failed = _running(job).update(
        status=_Status.FAILED, error_message=reason[:500], completed_at=utcnow(), phase="Failed"
    )
    if not failed:
        return False
    tell(job)
    _record(
        job,
        Actor.system(job.organization_id),
        "failed",
        f"The {_NAMES[type(job)][1]} of {job.cluster.name} failed: {reason}",
        AuditLog.Outcome.FAILED,
    )
    return True


def fail_stuck_jobs() -> int:
    """Fail the organization's jobs whose worker died; return how many."""
    long_ago = utcnow() - STUCK_AFTER
    kinds: tuple[type[OptimizationJob | WhatIf], ...] = (OptimizationJob, WhatIf)
    stuck = [
        job
        for kind in kinds
        for job in kind.objects.select_related("cluster").filter(
            status=_Status.RUNNING, started_at__lt=long_ago
        )
    ]
    return sum(fail(job, "The worker stopped before it finished.") for job in stuck)


def cancel_job(*, job_id: UUID, actor: Actor) -> OptimizationJob:
    """Return the run, cancelled; its worker stops before its next step. Conflict when it is over."""
    return _cancel(OptimizationJob, job_id, actor)


def cancel_what_if(*, what_if_id: UUID, actor: Actor) -> WhatIf:
    """Return the what-if, cancelled; what it had found stays. Conflict when it is over."""
    return _cancel(WhatIf, what_if_id, actor)


@transaction.atomic
def _cancel(kind: type[_Kind], job_id: UUID, actor: Actor) -> _Kind:
    roles.require_role(actor, roles.MEMBER)
    cancelled = kind.objects.filter(pk=job_id, status__in=UNFINISHED).update(
        status=_Status.CANCELLED, completed_at=utcnow(), phase=""
    )
    job = kind.objects.select_related("cluster").filter(pk=job_id).first()
    if job is None:
        raise NotFound(f"There is no such {_NAMES[kind][1]}.")
    if not cancelled:
        raise Conflict(f"The {_NAMES[kind][1]} is {job.status} already.", job_status=job.status)
    tell(job)
    _record(job, actor, "cancelled", f"Cancelled the {_NAMES[kind][1]} of {job.cluster.name}")
    return job


def tell(job: OptimizationJob | WhatIf) -> None:
    """Let open pages refetch what they show of the job."""
    announce(organization_id=job.organization_id, topic="job", cluster_id=str(job.cluster_id))


def _running(job: OptimizationJob | WhatIf) -> QuerySet[Any]:
    return type(job).objects.filter(pk=job.pk, status=_Status.RUNNING)


def _record(
    job: OptimizationJob | WhatIf,
    actor: Actor,
    verb: str,
    sentence: str,
    outcome: AuditLog.Outcome = AuditLog.Outcome.SUCCESS,
) -> None:
    record(
        actor=actor,
        event=f"{_NAMES[type(job)][0]}.{verb}",
        sentence=sentence,
        subject=Subject("cluster", str(job.cluster_id), job.cluster.name),
        outcome=outcome,
        account_id=job.cluster.account_id,
        cluster_id=job.cluster_id,
    )
