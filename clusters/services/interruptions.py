"""React to AWS taking spot nodes back: close the node at once, empty it in time, see how it ended."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet, Sum

from audit.models import AuditLog
from audit.services import Subject, record
from clusters.domain import interruptions as rules
from clusters.domain.interruptions import (
    DRAIN_MARGIN,
    FALSE_ALARM_AFTER,
    FLAG_LASTS,
    TAKEN_BACK,
    Kind,
    Notice,
    Reception,
    Source,
)
from clusters.models import Action, Instance, Interruption
from clusters.selectors.guard import ALIVE
from clusters.services.actions import request_action
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import GuardrailViolated
from spotopt.core.live import announce
from spotopt.core.queue import enqueue

Status = Interruption.Status
_ACCOUNT = "cluster__account"


def notices_from_agent(*, cluster_id: UUID, notices: Sequence[Notice]) -> list[Reception]:
    """Take in what a cluster's agent read on its nodes; return what became of each notice, in order."""
    return _take_in(Instance.objects.filter(cluster_id=cluster_id), notices, Source.AGENT)


def notices_from_queue(*, account_id: UUID, notices: Sequence[Notice]) -> list[Reception]:
    """Take in what AWS's events of an account say; return what became of each notice, in order."""
    nodes = Instance.objects.filter(account_id=account_id, cluster__removed_at__isnull=True)
    return _take_in(nodes, notices, Source.QUEUE)


def _take_in(nodes: QuerySet[Instance], notices: Sequence[Notice], source: Source) -> list[Reception]:
    """Close every node before any is emptied: of many notices at once, none waits for another's drain."""
    found = {
        row.instance_id: row
        for row in nodes.filter(
            instance_id__in=[notice.instance_id for notice in notices], cluster__isnull=False
        )
        .select_related(_ACCOUNT)
        .annotate(movable=Sum("placements__count", filter=~Q(placements__workload__kind="DaemonSet")))
    }
    receptions, begun = [], []
    for notice in notices:
        reception, row = _receive(found.get(notice.instance_id), notice, source)
        receptions.append(reception)
        if row is not None:
            begun.append(row)
    for row in begun:
        if row.kind == Interruption.Kind.INTERRUPTION:
            _drain(row)
    for row in begun:
        _tell_noticed(row)
    return receptions


def _receive(node: Instance | None, notice: Notice, source: Source) -> tuple[Reception, Interruption | None]:
    if notice.is_stale(utcnow()):
        return Reception.STALE, None
    if node is None:
        return Reception.UNKNOWN_NODE, None
    if node.lifecycle != Instance.Lifecycle.SPOT:
        return Reception.NOT_SPOT, None
    if node.state not in ALIVE:
        return Reception.KNOWN, None
    with transaction.atomic():
        row = _store(node, notice, source)
        if row is None:
            return Reception.KNOWN, None
        if notice.kind is Kind.INTERRUPTION:
            _cordon(row)
    return Reception.RECORDED, row


def _store(node: Instance, notice: Notice, source: Source) -> Interruption | None:
    """Return the new row of a notice, or one that a false alarm had closed; None when it is known."""
    row, is_new = Interruption.objects.select_for_update(of=("self",)).get_or_create(
        instance=node,
        kind=notice.kind.value,
        defaults={
            **_origin(node),
            "source": source.value,
            "noticed_at": notice.at,
            "deadline": notice.ends_at,
            "pods_at_notice": getattr(node, "movable", None) or 0,
        },
    )
    if is_new:
        return row
    if row.status != Status.FALSE_ALARM or notice.at <= row.noticed_at:
        return None
    row.status, row.noticed_at, row.deadline = Status.OPEN, notice.at, notice.ends_at
    row.replacement_decided_at = row.replacement_action_id = row.ended_at = None
    row.note = ""
    row.save()
    return row


def _origin(node: Instance) -> dict[str, object]:
    return {
        "organization_id": node.organization_id,
        "cluster_id": node.cluster_id,
        "region": node.region,
        "zone_id": node.az_id,
        "instance_type": node.instance_type,
    }


def _cordon(row: Interruption) -> None:
    assert row.deadline is not None  # noqa: S101  # every interruption has one
    params: dict[str, object] = {"deadline": row.deadline.isoformat()}
    _ask(row, Action.Kind.CORDON_NODE, params, "AWS takes the node back in two minutes.")


def _drain(row: Interruption) -> None:
    assert row.deadline is not None  # noqa: S101  # every interruption has one
    seconds = int((row.deadline - DRAIN_MARGIN - utcnow()).total_seconds())
    if seconds > 0:
        deadline = row.deadline.isoformat()
        params: dict[str, object] = {"timeout_seconds": seconds, "deadline": deadline}
        _ask(row, Action.Kind.DRAIN_NODE, params, "Its pods leave before AWS takes the node.")


def request_for(
    row: Interruption, kind: str, *, target: str, params: dict[str, object], reason: str, is_voluntary: bool
) -> Action:
    """Request one act of the reaction to a notice; asking again returns the first.

    Raises GuardrailViolated when the safety floor forbids it.
    """
    return request_action(
        cluster=row.cluster,
        kind=kind,
        target=target,
        params=params,
        reason=reason,
        actor=Actor.system(row.organization_id),
        idempotency_key=action_key(row, kind),
        is_voluntary=is_voluntary,
    )


def action_key(row: Interruption, kind: str) -> str:
    """Return the key under which an act of the reaction is requested."""
    return rules.action_key(row.pk, row.noticed_at, kind)


def _ask(row: Interruption, kind: str, params: dict[str, object], reason: str) -> None:
    """Ask for an act on the node itself; what a freeze forbids is noted, and asked again by the next look."""
    node = row.instance
    if not node.node_name:
        _note(row, "The instance had not become a node yet.")
        return
    params = {"node_name": node.node_name, "instance_id": node.instance_id, **params}
    try:
        request_for(row, kind, target=node.node_name, params=params, reason=reason, is_voluntary=False)
    except GuardrailViolated as refusal:
        _note(row, refusal.detail)


def _note(row: Interruption, note: str) -> None:
    row.note = note[:500]
    row.save(update_fields=["note", "updated_at"])


# --- how it ends -----------------------------------------------------------------------------------------


def follow() -> int:
    """Bring every open notice on: do what a crash left out, close what is over; return how many ended."""
    open_rows = Interruption.objects.filter(status=Status.OPEN).select_related("instance", "cluster__account")
    return sum(_follow(row, utcnow()) for row in open_rows)


def _follow(row: Interruption, now: datetime) -> bool:
    node = row.instance
    if node.state not in ALIVE:
        return end(row, _ending(row, node), node.terminated_at or now)
    if row.kind == Interruption.Kind.REBALANCE or row.deadline is None:
        return False
    if now < row.deadline:
        _cordon(row)
        _drain(row)
        return False
    if (
        now - row.deadline < FALSE_ALARM_AFTER
        or node.last_seen_at is None
        or node.last_seen_at < row.deadline
    ):
        return False  # AWS has not been asked since, or may be late
    _reopen_node(row)
    return end(row, Status.FALSE_ALARM, now)


def _ending(row: Interruption, node: Instance) -> str:
    is_taken = row.kind == Interruption.Kind.INTERRUPTION or TAKEN_BACK in node.termination_reason
    return Status.TAKEN if is_taken else Status.MOVED


def _reopen_node(row: Interruption) -> None:
    """Take back the cordon that a notice was the reason for, unless the node was cordoned before."""
    cordon = Action.objects.filter(idempotency_key=action_key(row, Action.Kind.CORDON_NODE)).first()
    if cordon is not None and cordon.result.get("changed"):
        _ask(row, Action.Kind.UNCORDON_NODE, {}, "AWS did not take the node back.")


@transaction.atomic
def end(row: Interruption, status: str, at: datetime, note: str = "") -> bool:
    """Close an open notice and record how it ended; return whether this call closed it."""
    is_verified = row.is_verified or TAKEN_BACK in row.instance.termination_reason
    ended = Interruption.objects.filter(pk=row.pk, status=Status.OPEN).update(
        status=status,
        ended_at=at,
        is_verified=is_verified,
        note=(note or row.note)[:500],
        updated_at=utcnow(),
    )
    if not ended:
        return False
    row.refresh_from_db()
    if not (row.kind == Interruption.Kind.REBALANCE and status == Status.WATCHED):
        _tell(row, f"clusters.interruption.{status}", _SENTENCES[status].format(node=_name(row)), status)
    _announce(row)
    return True


_SENTENCES: dict[str, str] = {
    Status.TAKEN: "AWS took {node} back",
    Status.MOVED: "{node} was replaced before AWS asked for it",
    Status.WATCHED: "{node} was left alone",
    Status.FALSE_ALARM: "AWS did not take {node} back after all",
}


def note_replacement(*, row: Interruption, action: Action | None, note: str = "") -> None:
    """Keep what was decided about a replacement: the launch, or why there is none."""
    Interruption.objects.filter(pk=row.pk).update(
        replacement_decided_at=utcnow(),
        replacement_action_id=action.pk if action else None,
        note=(note or row.note)[:500],
        updated_at=utcnow(),
    )
    _announce(row)


def record_losses() -> int:
    """Note the spot nodes that AWS took lately without a notice that reached us; return how many."""
    lost = Instance.objects.filter(
        cluster__isnull=False,
        terminated_at__gt=utcnow() - FLAG_LASTS,
        termination_reason__contains=TAKEN_BACK,
    ).exclude(interruptions__kind=Interruption.Kind.INTERRUPTION)
    return sum(_record_loss(node) for node in lost.select_related(_ACCOUNT))


@transaction.atomic
def _record_loss(node: Instance) -> bool:
    at = node.terminated_at or utcnow()
    row, is_new = Interruption.objects.get_or_create(
        instance=node,
        kind=Interruption.Kind.INTERRUPTION,
        defaults={
            **_origin(node),
            "source": Interruption.Source.SCAN,
            "status": Status.TAKEN,
            "noticed_at": at,
            "deadline": at,
            "ended_at": at,
            "is_verified": True,
            "note": "No notice reached us before the node went.",
        },
    )
    if is_new:
        said = f"AWS took {_name(row)} back without a notice that reached us"
        _tell(row, "clusters.interruption.taken", said, Status.TAKEN)
        _announce(row)
    return is_new


def _tell_noticed(row: Interruption) -> None:
    said = (
        "two minutes' notice for" if row.kind == Interruption.Kind.INTERRUPTION else "a rebalance signal for"
    )
    _tell(row, f"clusters.{row.kind}.noticed", f"AWS gave {said} {_name(row)}", row.status)
    _announce(row)
    enqueue("policies.answer_interruptions", organization_id=row.organization_id)


def _tell(row: Interruption, event: str, sentence: str, status: str) -> None:
    record(
        actor=Actor.system(row.organization_id, "AWS"),
        event=event,
        sentence=sentence,
        subject=Subject("instance", row.instance.instance_id, _name(row)),
        outcome=AuditLog.Outcome.SUCCESS,
        account_id=row.cluster.account_id,
        cluster_id=row.cluster_id,
        after={
            "source": row.source,
            "status": status,
            "pool": f"{row.zone_id}:{row.instance_type}",
            "deadline": row.deadline.isoformat() if row.deadline else None,
            "note": row.note,
        },
    )


def _announce(row: Interruption) -> None:
    announce(organization_id=row.organization_id, topic="cluster", cluster_id=str(row.cluster_id))


def _name(row: Interruption) -> str:
    return row.instance.node_name or row.instance.instance_id
