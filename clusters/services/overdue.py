"""Ask AWS what became of nodes that it said it would take."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

from django.db.models import Q

from accounts.models import Account
from clusters.aws import ec2
from clusters.aws.errors import AwsError
from clusters.aws.session import RoleGrant, session_for
from clusters.domain.interruptions import OVERDUE_AFTER
from clusters.models import Instance, Interruption
from clusters.selectors.guard import ALIVE
from clusters.services.region_sync import mark_ended
from spotopt.core.clock import utcnow

ASK_AGAIN_AFTER = timedelta(seconds=30)


def look_at_overdue() -> int:
    """Ask AWS about nodes that outlived their deadline, at most every 30 s; return how many it has taken.

    What cannot be asked now, because AWS throttles or is away, is asked by the next look.
    """
    places: dict[tuple[Account, str], list[str]] = defaultdict(list)
    for row in _overdue():
        places[row.cluster.account, row.region].append(row.instance.instance_id)
    taken = 0
    for (account, region), instance_ids in places.items():
        try:
            taken += _ask(account, region, instance_ids)
        except AwsError:
            continue
    return taken


def _overdue() -> list[Interruption]:
    now = utcnow()
    rows = Interruption.objects.filter(
        Q(instance__last_seen_at=None) | Q(instance__last_seen_at__lt=now - ASK_AGAIN_AFTER),
        status=Interruption.Status.OPEN,
        deadline__lt=now - OVERDUE_AFTER,
        instance__state__in=ALIVE,
    )
    return list(rows.select_related("instance", "cluster__account"))


def _ask(account: Account, region: str, instance_ids: Sequence[str]) -> int:
    session = session_for(RoleGrant(account.role_arn, account.external_id)).in_region(region)
    read_at = utcnow()
    found = ec2.known_instances(session, instance_ids=instance_ids)
    living = [instance.instance_id for instance in found if instance.state != "terminated"]
    Instance.objects.filter(account=account, instance_id__in=living).update(last_seen_at=read_at)
    return mark_ended(account, found, read_at)
