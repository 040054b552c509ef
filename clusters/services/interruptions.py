"""React to AWS taking spot nodes back: close the node at once, empty it in time, see how it ended."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet, Sum

from audit.models import AuditLog
from audit.services import Entry, Subject, record_all
from clusters.domain import interruptions as rules
from clusters.domain.interruptions import (
    BROKEN_OFF,
    DRAIN_MARGIN,
    FALSE_ALARM_AFTER,
    FLAG_LASTS,
    TAKEN_BACK,
    Notice,
    Reception,
    Source,
)
from clusters.models import Action, Cluster, Instance, Interruption
from clusters.selectors.guard import ALIVE
from clusters.services.actions import request_action
from clusters.services.handover import Wanted, request_together
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import GuardrailViolated
from spotopt.core.live import announce
from spotopt.core.queue import enqueue

Status = Interruption.Status
_ACCOUNT = "cluster__account"
_Key = tuple[str, str]
"""Instance id and kind of a notice."""


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
    told = [(found.get(notice.instance_id), notice) for notice in notices]
    objections = [_objection(node, notice) for node, notice in told]
    first: dict[_Key, tuple[Instance, Notice]] = {}
    for (node, notice), objection in zip(told, objections, strict=True):
        if node is not None and objection is None:
            first.setdefault(_key(notice), (node, notice))
    begun = _begin(first, source)
    _drain([row for row in begun.values() if row.kind == Interruption.Kind.INTERRUPTION])
    _tell_noticed(list(begun.values()))
    return [
        objection or (Reception.RECORDED if begun.pop(_key(notice), None) else Reception.KNOWN)
        for notice, objection in zip(notices, objections, strict=True)
    ]


def _key(notice: Notice) -> _Key:
    return notice.instance_id, notice.kind.value


def _objection(node: Instance | None, notice: Notice) -> Reception | None:
    """Return why a notice cannot count, None when it may."""
    if notice.is_stale(utcnow()):
        return Reception.STALE
    if node is None:
        return Reception.UNKNOWN_NODE
    if node.lifecycle != Instance.Lifecycle.SPOT:
        return Reception.NOT_SPOT
    return None if node.state in ALIVE else Reception.KNOWN


@transaction.atomic
def _begin(told: Mapping[_Key, tuple[Instance, Notice]], source: Source) -> dict[_Key, Interruption]:
    """Store what is new, or what a false alarm had closed, and have the nodes closed; return those rows."""
    known = {
        (row.instance.instance_id, row.kind): row
        for row in Interruption.objects.select_for_update(of=("self",))
        .select_related("instance", _ACCOUNT)
        .filter(instance__in=[node for node, _ in told.values()])
        .order_by("pk")
    }
    new = {
        key: _new(node, notice, source) for key, (node, notice) in sorted(told.items()) if key not in known
    }
    Interruption.objects.bulk_create(new.values(), ignore_conflicts=True)  # others may tell it now too
    stored = Interruption.objects.filter(pk__in=[row.pk for row in new.values()])
    ours = set(stored.values_list("pk", flat=True))
    begun = {key: row for key, row in new.items() if row.pk in ours}
    begun |= {key: row for key, row in known.items() if key in told and _reopen(row, told[key][1])}
    _cordon([row for row in begun.values() if row.kind == Interruption.Kind.INTERRUPTION])
    return begun


def _new(node: Instance, notice: Notice, source: Source) -> Interruption:
    return Interruption(
        instance=node,
        kind=notice.kind.value,
        source=source.value,
        noticed_at=notice.at,
        deadline=notice.ends_at,
        pods_at_notice=getattr(node, "movable", None) or 0,
        **_origin(node),
    )


def _reopen(row: Interruption, notice: Notice) -> bool:
    """Open a row again that a false alarm had closed before this notice; tell whether that was so."""
    if row.status != Status.FALSE_ALARM or notice.at <= row.noticed_at:
        return False
    row.status, row.noticed_at, row.deadline = Status.OPEN, notice.at, notice.ends_at
    row.replacement_decided_at = row.replacement_action_id = row.ended_at = None
    row.note = ""
    row.save()
    return True


def _origin(node: Instance) -> dict[str, Any]:
    return {
        "organization_id": node.organization_id,
        "cluster": node.cluster,
        "region": node.region,
        "zone_id": node.az_id,
        "instance_type": node.instance_type,
    }


def _cordon(rows: Sequence[Interruption]) -> None:
    _ask(rows, Action.Kind.CORDON_NODE, _until, "AWS takes the node back in two minutes.")


def _drain(rows: Sequence[Interruption]) -> None:
    now = utcnow()
    in_time = [row for row in rows if row.deadline is not None and row.deadline - DRAIN_MARGIN > now]
    _ask(in_time, Action.Kind.DRAIN_NODE, _until, "Its pods leave before AWS takes the node.")


def _until(row: Interruption) -> dict[str, object]:
    return {"deadline": row.deadline.isoformat()} if row.deadline else {}


def request_for(
    row: Interruption,
    kind: str,
    *,
    target: str,
    params: dict[str, object],
    reason: str,
    is_voluntary: bool,
    number: int = 1,
) -> Action:
    """Request one act of the reaction to a notice; asking for the same ``number`` again returns the first.

    Raises GuardrailViolated when the safety floor forbids it.
    """
    return request_action(
        cluster=row.cluster,
        kind=kind,
        target=target,
        params=params,
        reason=reason,
        actor=Actor.system(row.organization_id),
        idempotency_key=action_key(row, kind, number),
        is_voluntary=is_voluntary,
    )


def action_key(row: Interruption, kind: str, number: int = 1) -> str:
    """Return the key under which an act of the reaction is requested for the ``number``-th time."""
    return rules.action_key(row.pk, row.noticed_at, kind, number)


def _ask(
    rows: Sequence[Interruption], kind: str, params: Callable[[Interruption], dict[str, object]], reason: str
) -> None:
    """Ask for an act on the nodes; what a freeze forbids, or an agent broke off, is asked again later."""
    by_cluster: dict[Cluster, list[Interruption]] = defaultdict(list)
    for row in rows:
        if row.instance.node_name:
            by_cluster[row.cluster].append(row)
        else:
            _note(row, "The instance had not become a node yet.")
    for cluster, ours in by_cluster.items():
        keys = _next_keys(ours, kind)
        wanted = [
            Wanted(kind, row.instance.node_name, _node(row) | params(row), reason, keys[row.pk])
            for row in ours
        ]
        try:
            request_together(cluster=cluster, wanted=wanted, actor=Actor.system(ours[0].organization_id))
        except GuardrailViolated as refusal:
            for row in ours:
                _note(row, refusal.detail)


def _next_keys(rows: Sequence[Interruption], kind: str) -> dict[UUID, str]:
    """Return under which key each notice's act is asked for: a new one when the last was broken off."""
    nodes = [row.instance.instance_id for row in rows]
    ended = Action.objects.filter(kind=kind, error_code__in=BROKEN_OFF, params__instance_id__in=nodes)
    broken = list(ended.values_list("idempotency_key", flat=True))
    times = {row.pk: sum(key.startswith(action_key(row, kind)) for key in broken) for row in rows}
    return {row.pk: action_key(row, kind, times[row.pk] + 1) for row in rows}


def _node(row: Interruption) -> dict[str, object]:
    return {"node_name": row.instance.node_name, "instance_id": row.instance.instance_id}


def _note(row: Interruption, note: str) -> None:
    row.note = note[:500]
    row.save(update_fields=["note", "updated_at"])


# --- how it ends -----------------------------------------------------------------------------------------


def follow() -> int:
    """Bring every open notice on: do what a crash left out, close what is over; return how many ended."""
    rows = list(Interruption.objects.filter(status=Status.OPEN).select_related("instance", _ACCOUNT))
    now = utcnow()
    living = [row for row in rows if row.instance.state in ALIVE and row.deadline and now < row.deadline]
    _cordon(living)
    _drain(living)
    return sum(_close(row, now) for row in rows)


def _close(row: Interruption, now: datetime) -> bool:
    """Close a notice that is over and tell whether it is."""
    node = row.instance
    if node.state not in ALIVE:
        return end(row, _ending(row, node), node.terminated_at or now)
    if row.kind == Interruption.Kind.REBALANCE or row.deadline is None or now < row.deadline:
        return False
    if (
        now - row.deadline < FALSE_ALARM_AFTER
        or node.last_seen_at is None
        or node.last_seen_at < row.deadline
    ):
        return False  # AWS has not been asked since, or may be late
    return _dismiss(row, now)


def _ending(row: Interruption, node: Instance) -> str:
    is_taken = row.kind == Interruption.Kind.INTERRUPTION or TAKEN_BACK in node.termination_reason
    return Status.TAKEN if is_taken else Status.MOVED


@transaction.atomic
def _dismiss(row: Interruption, now: datetime) -> bool:
    """Close a false alarm, and only then take back its cordon, unless the node was cordoned before."""
    is_ended = end(row, Status.FALSE_ALARM, now)
    cordon = Action.objects.filter(idempotency_key=action_key(row, Action.Kind.CORDON_NODE)).first()
    if is_ended and cordon is not None and cordon.result.get("changed"):
        _ask([row], Action.Kind.UNCORDON_NODE, lambda _: {}, "AWS did not take the node back.")
    return is_ended


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
    """Keep what was decided about a replacement: the launch, or why there is no other."""
    Interruption.objects.filter(pk=row.pk).update(
        replacement_decided_at=utcnow(),
        replacement_action_id=action.pk if action else row.replacement_action_id,
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


def _tell_noticed(rows: Sequence[Interruption]) -> None:
    if not rows:
        return
    organization_id = rows[0].organization_id
    entries = [
        _entry(row, f"clusters.{row.kind}.noticed", f"AWS gave {_GIVEN[row.kind]} {_name(row)}", row.status)
        for row in rows
    ]
    record_all(actor=Actor.system(organization_id, "AWS"), entries=entries)
    for row in {row.cluster_id: row for row in rows}.values():
        _announce(row)
    enqueue("policies.answer_interruptions", organization_id=organization_id)


_GIVEN: dict[str, str] = {
    Interruption.Kind.INTERRUPTION: "two minutes' notice for",
    Interruption.Kind.REBALANCE: "a rebalance signal for",
}


def _tell(row: Interruption, event: str, sentence: str, status: str) -> None:
    record_all(actor=Actor.system(row.organization_id, "AWS"), entries=[_entry(row, event, sentence, status)])


def _entry(row: Interruption, event: str, sentence: str, status: str) -> Entry:
    return Entry(
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
