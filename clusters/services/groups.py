"""What people decide about node groups: give one its minimum back, or let plans lower it again."""

from uuid import UUID

from django.db import transaction

from accounts.permissions import Role, require_role
from audit.services import Subject, record
from clusters.models import Action, NodeGroup
from clusters.services.actions import request_action
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, NotFound


def restore_minimum(*, cluster_id: UUID, group_id: UUID, actor: Actor) -> Action:
    """Queue the restoring of the minimum that plans lowered; plans keep it from then on.

    Safe mode and pause let it pass, since it only gives capacity back. Raises Conflict when the minimum was
    never lowered.
    """
    require_role(actor, Role.MEMBER)
    group = _group(cluster_id, group_id)
    if group.original_min_size is None:
        raise Conflict(f"The minimum of {group.name} was never lowered.", code="not_lowered")
    under_way = Action.objects.filter(
        cluster_id=cluster_id,
        kind=Action.Kind.RESTORE_MINIMUM,
        target=group.name,
        status__in=[Action.Status.PENDING, Action.Status.RUNNING],
    ).first()
    if under_way is not None:
        return under_way
    return request_action(
        cluster=group.cluster,
        kind=Action.Kind.RESTORE_MINIMUM,
        target=group.name,
        params={"group_name": group.asg_name, "minimum": group.original_min_size},
        reason=f"{actor.label} asked for its minimum of {group.original_min_size} back.",
        actor=actor,
        idempotency_key=f"restore/{group.pk}/{utcnow().isoformat()}",
        is_voluntary=False,
    )


@transaction.atomic
def release_minimum(*, cluster_id: UUID, group_id: UUID, actor: Actor) -> NodeGroup:
    """Let plans lower the group's minimum again; return the group."""
    require_role(actor, Role.MEMBER)
    group = _group(cluster_id, group_id)
    released = NodeGroup.objects.filter(pk=group.pk, keeps_minimum=True).update(
        keeps_minimum=False, updated_at=utcnow()
    )
    if released:
        record(
            actor=actor,
            event="clusters.group.minimum_released",
            sentence=f"Let plans lower the minimum of {group.name} again",
            subject=Subject("node_group", str(group.pk), group.name),
            account_id=group.cluster.account_id,
            cluster_id=cluster_id,
            before={"keeps_minimum": True},
            after={"keeps_minimum": False},
        )
    group.refresh_from_db()
    return group


def _group(cluster_id: UUID, group_id: UUID) -> NodeGroup:
    rows = NodeGroup.objects.select_related("cluster__account").filter(
        cluster_id=cluster_id, cluster__removed_at__isnull=True
    )
    group = rows.exclude(asg_name="").filter(pk=group_id).first()
    if group is None:
        raise NotFound("There is no such node group that AWS scales.")
    return group
