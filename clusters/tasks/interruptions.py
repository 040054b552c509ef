"""Interruptions: the tick that follows each notice to its end."""

from celery import shared_task

from accounts.models import Organization
from clusters.models import Instance
from clusters.services import interruptions, overdue
from spotopt.core.queue import enqueue
from spotopt.core.tasks import PlatformTask, TenantTask


@shared_task(base=PlatformTask, name="clusters.follow_interruptions")
def follow_interruptions() -> int:
    """Find the organizations with spot nodes."""
    spot = Instance.unscoped.filter(lifecycle=Instance.Lifecycle.SPOT, cluster__isnull=False)
    found = Organization.objects.filter(pk__in=spot.values("organization_id")).values_list("pk", flat=True)
    for organization_id in found:
        enqueue("clusters.follow_organization_interruptions", organization_id=organization_id)
    return len(found)


@shared_task(base=TenantTask, name="clusters.follow_organization_interruptions")
def follow_organization_interruptions(*, organization_id: str) -> int:
    """Ask AWS about overdue nodes and close the organization's notices that are over; return how many."""
    overdue.look_at_overdue()
    interruptions.record_losses()
    return interruptions.follow()
