"""Report machines of ours that no record knows: nothing that costs money may run unseen."""

from django.db import transaction

from audit.models import AuditLog
from audit.services import Subject, record
from clusters.models import Instance
from clusters.selectors.strays import strays
from spotopt.core.actor import Actor

FOUND = "clusters.stray.found"


def report_strays() -> int:
    """Record every stray of the organization once, for people to decide; return how many were new."""
    found = list(strays().select_related("cluster__account"))
    known = AuditLog.objects.filter(event=FOUND, resource_id__in=[row.instance_id for row in found])
    told = set(known.values_list("resource_id", flat=True))
    new = [row for row in found if row.instance_id not in told]
    for row in new:
        _tell(row)
    return len(new)


@transaction.atomic
def _tell(row: Instance) -> None:
    name = row.node_name or row.instance_id
    record(
        actor=Actor.system(row.organization_id),
        event=FOUND,
        sentence=f"{name} carries Spotopt's tags, but there is no record of launching it, or it never joined",
        subject=Subject("instance", row.instance_id, name),
        outcome=AuditLog.Outcome.FAILED,
        account_id=row.account_id,
        cluster_id=row.cluster_id,
        after={"launch_action_id": str(row.launch_action_id), "instance_type": row.instance_type},
    )
