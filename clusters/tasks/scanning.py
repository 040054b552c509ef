"""Scans: one task carries out a run, one tick finds what is due, dead or forgotten."""

from uuid import UUID

from celery import shared_task

from clusters.services import scanning
from spotopt.core.tasks import PlatformTask, TenantTask


@shared_task(base=TenantTask, name="clusters.scan_account", acks_late=True)
def scan_account(*, organization_id: UUID | str, account_id: UUID | str, run_id: UUID | str) -> bool:
    """Carry out a queued scan; running it again does nothing."""
    try:
        return scanning.scan_account(account_id=UUID(str(account_id)), run_id=UUID(str(run_id)))
    except Exception:
        scanning.abandon(run_id=UUID(str(run_id)), reason="The scan broke off. It will be tried again.")
        raise


@shared_task(base=PlatformTask, name="clusters.start_due_scans", acks_late=True)
def start_due_scans() -> int:
    """Queue the scans that are due and recover the ones whose worker died."""
    return scanning.start_due_scans()
