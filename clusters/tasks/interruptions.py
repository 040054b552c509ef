"""Interruptions: the ticks that listen for notices and follow each to its end."""

from uuid import UUID

from celery import shared_task

from accounts.models import Account, Organization
from clusters.models import Instance
from clusters.services import interruptions, listening, overdue
from spotopt.core.queue import enqueue
from spotopt.core.tasks import PlatformTask, TickTask


@shared_task(base=PlatformTask, name="clusters.follow_interruptions")
def follow_interruptions() -> int:
    """Find the organizations with spot nodes."""
    spot = Instance.unscoped.filter(lifecycle=Instance.Lifecycle.SPOT, cluster__isnull=False)
    found = Organization.objects.filter(pk__in=spot.values("organization_id")).values_list("pk", flat=True)
    for organization_id in found:
        enqueue("clusters.follow_organization_interruptions", organization_id=organization_id)
    return len(found)


@shared_task(base=TickTask, name="clusters.follow_organization_interruptions")
def follow_organization_interruptions(*, organization_id: str) -> int:
    """Ask AWS about overdue nodes and close the organization's notices that are over; return how many."""
    overdue.look_at_overdue()
    interruptions.record_losses()
    return interruptions.follow()


@shared_task(base=PlatformTask, name="clusters.read_interruption_queues")
def read_interruption_queues() -> int:
    """Find the accounts with spot nodes that Spotopt may act on."""
    spot = Instance.unscoped.filter(
        lifecycle=Instance.Lifecycle.SPOT, state=Instance.State.RUNNING, cluster__isnull=False
    )
    found = Account.unscoped.filter(
        pk__in=spot.values("account_id"),
        status=Account.Status.ACTIVE,
        permission_mode=Account.PermissionMode.FULL_ACCESS,
    )
    for organization_id, account_id in found.values_list("organization_id", "pk"):
        enqueue("clusters.read_interruption_queue", organization_id=organization_id, account_id=account_id)
    return len(found)


@shared_task(base=TickTask, name="clusters.read_interruption_queue")
def read_interruption_queue(*, organization_id: str, account_id: str) -> int:
    """Take in what AWS says about one account's spot instances."""
    return listening.read_queue(account_id=UUID(account_id))
