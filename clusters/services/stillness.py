"""Keep a group from evening out its zones while nodes are taken out of it, and let it again afterwards.

A group that lost nodes of one zone launches others there and ends nodes elsewhere, without asking any
disruption budget. The row is written before AWS is asked, so that whatever crashes, the tick lets go.
"""

from contextlib import suppress
from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef

from audit.services import Subject, record
from clusters.aws import autoscaling
from clusters.aws.errors import AwsAccessDenied, AwsError, ResourceMissing
from clusters.aws.session import RegionSession, RoleGrant, session_for
from clusters.domain.actions import DISRUPTIVE, OPEN
from clusters.domain.capacity import ScalingGroup
from clusters.models import Action, Cluster, NodeGroup
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow

REBALANCING = "AZRebalance"
REST = timedelta(minutes=10)
"""A group is let go when nothing was taken out of it for so long and nothing of its cluster is under way."""


def hold_still(*, cluster: Cluster, session: RegionSession, group: ScalingGroup) -> None:
    """Suspend the evening out, unless the group's owner did; a stack that forbids it is left alone.

    So is a group that no scan has found: nothing would remember to let it go.
    """
    rows = NodeGroup.objects.filter(cluster=cluster, asg_name=group.name)
    if REBALANCING in group.suspended:
        rows.filter(stilled_at__isnull=False).update(stilled_at=utcnow(), updated_at=utcnow())
        return
    if not rows.update(stilled_at=utcnow(), updated_at=utcnow()):
        return
    try:
        autoscaling.suspend(session=session, group_name=group.name, process=REBALANCING)
    except AwsAccessDenied:
        rows.update(stilled_at=None, updated_at=utcnow())
        return
    for row in rows.select_related("cluster"):
        _tell(row, "suspended", f"Kept {group.name} from evening out its zones")


def release_groups() -> int:
    """Let the organization's groups even out their zones again where the work is over; return how many.

    What AWS does not answer now is asked again by the next look.
    """
    busy = Action.objects.filter(cluster=OuterRef("cluster"), status__in=OPEN, kind__in=DISRUPTIVE)
    held = NodeGroup.objects.filter(~Exists(busy), stilled_at__lt=utcnow() - REST)
    return sum(_release(row) for row in held.select_related("cluster__account"))


def _release(row: NodeGroup) -> bool:
    account = row.cluster.account
    try:
        session = session_for(RoleGrant(account.role_arn, account.external_id)).in_region(row.cluster.region)
        with suppress(AwsAccessDenied, ResourceMissing):
            autoscaling.resume(session=session, group_name=row.asg_name, process=REBALANCING)
    except AwsError:
        return False
    with transaction.atomic():
        held = NodeGroup.objects.filter(pk=row.pk, stilled_at=row.stilled_at)
        if not held.update(stilled_at=None, updated_at=utcnow()):
            return False  # something more is being taken out of it
        _tell(row, "resumed", f"Let {row.asg_name} even out its zones again")
    return True


def _tell(row: NodeGroup, verb: str, sentence: str) -> None:
    record(
        actor=Actor.system(row.organization_id),
        event=f"clusters.group.rebalancing_{verb}",
        sentence=sentence,
        subject=Subject("node_group", str(row.pk), row.name),
        account_id=row.cluster.account_id,
        cluster_id=row.cluster_id,
    )
