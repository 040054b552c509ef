"""Actions, the ledger and samples: the ticks that keep them moving."""

import socket
from collections.abc import Iterable
from uuid import UUID

from celery import current_task, shared_task

from accounts.models import Organization
from clusters.models import Action, Instance, NodeGroup
from clusters.services import actions, actuation, ledger, sampling, stillness, sweeping
from spotopt.core.queue import enqueue
from spotopt.core.tasks import PlatformTask, TenantTask, TickTask


@shared_task(base=TenantTask, name="clusters.actuate_action")
def actuate_action(*, organization_id: str, action_id: str) -> str:
    """Carry one AWS action out."""
    worker = f"{socket.gethostname()}:{current_task.request.id or 'eager'}"
    return actuation.actuate(action_id=UUID(action_id), worker=worker[:100])


@shared_task(base=TickTask, name="clusters.actuate_waiting_actions")
def actuate_waiting_actions(*, organization_id: str) -> int:
    """Start the organization's AWS actions that nobody works on."""
    waiting = actuation.waiting_actions()
    for action_id in waiting:
        enqueue("clusters.actuate_action", organization_id=organization_id, action_id=action_id)
    return len(waiting)


@shared_task(base=PlatformTask, name="clusters.actuate_pending_actions")
def actuate_pending_actions() -> int:
    """Find organizations with open AWS actions, in case the message that announced one was lost."""
    is_open = Action.unscoped.filter(
        route=Action.Route.AWS, status__in=[Action.Status.PENDING, Action.Status.RUNNING]
    )
    return _for_each(is_open.values_list("organization_id", flat=True), "clusters.actuate_waiting_actions")


@shared_task(base=PlatformTask, name="clusters.reap_actions")
def reap_actions() -> int:
    """Find organizations whose open actions may be overdue."""
    is_open = Action.unscoped.filter(status__in=[Action.Status.PENDING, Action.Status.RUNNING])
    return _for_each(is_open.values_list("organization_id", flat=True), "clusters.reap_overdue_actions")


@shared_task(base=TenantTask, name="clusters.reap_overdue_actions")
def reap_overdue_actions(*, organization_id: str) -> int:
    """Close the organization's overdue actions."""
    return actions.reap(organization_id=UUID(organization_id))


@shared_task(base=PlatformTask, name="clusters.sweep_strays")
def sweep_strays() -> int:
    """Look for machines of ours that no record knows, in every organization that launched any."""
    launched = Instance.unscoped.filter(launch_action_id__isnull=False)
    return _for_each(launched.values_list("organization_id", flat=True), "clusters.report_strays")


@shared_task(base=TenantTask, name="clusters.report_strays")
def report_strays(*, organization_id: str) -> int:
    """Report the organization's machines that no record knows."""
    return sweeping.report_strays()


@shared_task(base=PlatformTask, name="clusters.release_groups")
def release_groups() -> int:
    """Find the organizations with groups that are kept from evening out their zones."""
    held = NodeGroup.unscoped.filter(stilled_at__isnull=False)
    return _for_each(held.values_list("organization_id", flat=True), "clusters.release_organization_groups")


@shared_task(base=TenantTask, name="clusters.release_organization_groups")
def release_organization_groups(*, organization_id: str) -> int:
    """Let the organization's groups even out their zones again where the work is over."""
    return stillness.release_groups()


@shared_task(base=PlatformTask, name="clusters.book_savings")
def book_savings() -> int:
    """Book savings in every organization whose nodes Spotopt changed."""
    changed = Instance.unscoped.filter(changed_by_plan_id__isnull=False)
    return _for_each(changed.values_list("organization_id", flat=True), "clusters.book_organization_savings")


@shared_task(base=TenantTask, name="clusters.book_organization_savings")
def book_organization_savings(*, organization_id: str) -> int:
    """Book the organization's observed hours up to now."""
    return ledger.book_savings(organization_id=UUID(organization_id))


@shared_task(base=PlatformTask, name="clusters.sample_clusters")
def sample_clusters() -> int:
    """Sample the clusters of every organization."""
    return _for_each(
        Organization.objects.values_list("pk", flat=True), "clusters.sample_organization_clusters"
    )


@shared_task(base=TenantTask, name="clusters.sample_organization_clusters")
def sample_organization_clusters(*, organization_id: str) -> int:
    """Take one sample of each cluster of the organization."""
    return sampling.sample_clusters()


def _for_each(organization_ids: Iterable[UUID], task: str) -> int:
    found = set(organization_ids)
    for organization_id in found:
        enqueue(task, organization_id=organization_id)
    return len(found)
