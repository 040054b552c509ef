"""Write the record: one row per event, in the caller's transaction, chained to the row before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from audit.domain import chain
from audit.models import AuditChain, AuditLog
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.live import announce, announce_now

ANNOUNCED_BY_NOW = timedelta(seconds=5)
"""An event this old whose commit did not announce it is announced by the sweep."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an event is about; ``kind`` is a resource type of the specification, such as ``cluster``."""

    kind: str
    id: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event, as it goes on the record."""

    event: str
    sentence: str
    subject: Subject
    outcome: str = AuditLog.Outcome.SUCCESS
    account_id: UUID | None = None
    cluster_id: UUID | None = None
    before: Mapping[str, object] | None = None
    after: Mapping[str, object] | None = None
    usd_per_hour: Decimal | None = None


def record(
    *,
    actor: Actor,
    event: str,
    sentence: str,
    subject: Subject,
    outcome: str = AuditLog.Outcome.SUCCESS,
    account_id: UUID | None = None,
    cluster_id: UUID | None = None,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
    usd_per_hour: Decimal | None = None,
) -> AuditLog:
    """Append one event to the organization's chain and announce it when the transaction commits.

    Call it last in a transaction: the chain stays locked until the commit. A failure here fails the act.
    """
    entry = Entry(
        event=event, sentence=sentence, subject=subject, outcome=outcome, account_id=account_id,
        cluster_id=cluster_id, before=before, after=after, usd_per_hour=usd_per_hour,
    )  # fmt: skip
    return record_all(actor=actor, entries=[entry])[0]


@transaction.atomic
def record_all(*, actor: Actor, entries: Sequence[Entry]) -> list[AuditLog]:
    """Append events that happened together, in their order, and announce each kind once; see ``record``."""
    if not entries:
        return []
    link = _locked_chain(actor.organization_id)
    rows = [_row(actor, entry) for entry in entries]
    for row in rows:
        row.seq, row.prev_hash = link.seq + 1, link.row_hash
        row.row_hash = chain.row_hash(seq=row.seq, prev_hash=row.prev_hash, content=chain.content_of(row))
        link.seq, link.row_hash = row.seq, row.row_hash
    AuditLog.objects.bulk_create(rows)
    link.save(update_fields=["seq", "row_hash"])
    if actor.organization_id is not None:
        for event in dict.fromkeys(entry.event for entry in entries):
            announce(organization_id=actor.organization_id, topic="activity", event=event)
    return rows


def _row(actor: Actor, entry: Entry) -> AuditLog:
    return AuditLog(
        organization_id=actor.organization_id,
        timestamp=_milliseconds(),
        event=entry.event,
        sentence=entry.sentence[:500],
        actor_type=actor.kind,
        actor_id=actor.id,
        actor_label=actor.label,
        resource_type=entry.subject.kind,
        resource_id=entry.subject.id,
        resource_label=entry.subject.label[:255],
        outcome=entry.outcome,
        account_id=entry.account_id,
        cluster_id=entry.cluster_id,
        ip_address=actor.ip_address,
        user_agent=actor.user_agent,
        request_id=actor.request_id,
        before=dict(entry.before) if entry.before is not None else None,
        after=dict(entry.after) if entry.after is not None else None,
        usd_per_hour=None if entry.usd_per_hour is None else entry.usd_per_hour.quantize(Decimal("0.000001")),
    )


def announce_pending(*, limit: int = 500) -> int:
    """Announce the oldest events that nobody announced, in order; return how many.

    The outbox of the record: an event is stamped only after the channel layer took it, so that each is
    announced at least once, whatever died in between. The sweep stops where the layer stops taking.
    """
    rows = AuditLog.unscoped.filter(announced_at=None, timestamp__lt=utcnow() - ANNOUNCED_BY_NOW)
    announced = 0
    for row in rows.order_by("timestamp", "organization_id", "seq").only("organization_id", "event")[:limit]:
        if row.organization_id is not None and not announce_now(
            organization_id=row.organization_id, topic="activity", event=row.event
        ):
            break
        announced += AuditLog.unscoped.filter(pk=row.pk, announced_at=None).update(announced_at=utcnow())
    return announced


def _milliseconds() -> datetime:
    now = utcnow()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _locked_chain(organization_id: UUID | None) -> AuditChain:
    key = str(organization_id) if organization_id else "platform"
    known = AuditChain.objects.select_for_update().filter(key=key).first()
    if known is None:
        AuditChain.objects.get_or_create(key=key)
        return AuditChain.objects.select_for_update().get(key=key)
    return known
