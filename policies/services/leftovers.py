"""Open nodes that carry a mark of ours for no reason: their plan ended while nothing could be put back."""

from collections.abc import Iterator
from uuid import UUID

from django.db.models import Q, QuerySet

from clusters.domain.actions import OPEN
from clusters.models import Action, Cluster, Instance, Interruption
from clusters.selectors.guard import ALIVE
from clusters.services.actions import request_action
from policies.domain.progress import FRESH_SNAPSHOT
from policies.models import Plan
from policies.services.cleanup import MARKS, SOFT_TAINT
from policies.services.execution import UNDER_WAY
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import GuardrailViolated

_KINDS = (Action.Kind.SOFT_CORDON_NODE, *MARKS, Action.Kind.UNCORDON_NODE)


def organizations_with_marks() -> set[UUID]:
    """Return the organizations with nodes that are cordoned or that we steer pods away from."""
    return set(
        Instance.unscoped.filter(_IS_MARKED, state__in=ALIVE).values_list("organization_id", flat=True)
    )


def open_leftovers() -> int:
    """Ask to open the organization's nodes that nobody claims any more; return how many."""
    return sum(_open(row, last) for row, last in _leftovers())


_IS_MARKED = Q(is_cordoned=True) | Q(taints__contains=[{"key": SOFT_TAINT}])


def _leftovers() -> Iterator[tuple[Instance, Action]]:
    """Yield the nodes whose mark the newest report shows, each with the last thing that we did to it.

    A node that is cordoned although we never closed it, or opened it since, was cordoned by somebody else.
    """
    for row in _unclaimed():
        done = Action.objects.filter(
            cluster=row.cluster, kind__in=_KINDS, params__instance_id=row.instance_id
        )
        last = done.exclude(claimed_at=None).order_by("claimed_at").last()
        if last is None or not _is_seen(last.cluster, last):
            continue
        was_opened = last.kind == Action.Kind.UNCORDON_NODE and last.status == Action.Status.SUCCEEDED
        was_steered = last.kind == Action.Kind.SOFT_CORDON_NODE
        is_steered = any(taint.get("key") == SOFT_TAINT for taint in row.taints)
        if not was_opened and (is_steered or not was_steered):
            yield row, last


def _is_seen(cluster: Cluster, action: Action) -> bool:
    """Tell whether the agent has reported since the action ended."""
    seen, ended = cluster.snapshot_at, action.finished_at
    return seen is not None and ended is not None and seen > ended


def _unclaimed() -> QuerySet[Instance]:
    """Return the marked nodes of reporting clusters that no plan, notice or open action is about."""
    plans = Plan.objects.filter(status__in=UNDER_WAY).values("cluster")
    notices = Interruption.objects.filter(status=Interruption.Status.OPEN).values("instance")
    acts = Action.objects.filter(status__in=OPEN, kind__in=_KINDS)
    busy = list(acts.values_list("params__instance_id", flat=True))
    rows = Instance.objects.filter(_IS_MARKED, state__in=ALIVE).exclude(node_name="")
    rows = rows.filter(cluster__snapshot_at__gt=utcnow() - FRESH_SNAPSHOT)
    rows = rows.exclude(cluster__in=plans).exclude(pk__in=notices).exclude(instance_id__in=busy)
    return rows.select_related("cluster")


def _open(row: Instance, last: Action) -> bool:
    try:
        request_action(
            cluster=last.cluster,
            kind=Action.Kind.UNCORDON_NODE,
            target=row.node_name,
            params={"node_name": row.node_name, "instance_id": row.instance_id},
            reason="What closed the node is over, and nothing needs it closed.",
            actor=Actor.system(row.organization_id),
            idempotency_key=f"leftover:{row.pk}:{last.pk}",
            is_voluntary=False,
        )
    except GuardrailViolated:
        return False  # a freeze; the next look asks again
    return True
