"""Write the record: one row per event, in the caller's transaction, chained to the row before it."""

from collections.abc import Mapping
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


@transaction.atomic
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
    link = _locked_chain(actor.organization_id)
    row = AuditLog(
        organization_id=actor.organization_id,
        timestamp=_milliseconds(),
        event=event,
        sentence=sentence[:500],
        actor_type=actor.kind,
        actor_id=actor.id,
        actor_label=actor.label,
        resource_type=subject.kind,
        resource_id=subject.id,
        resource_label=subject.label[:255],
        outcome=outcome,
        account_id=account_id,
        cluster_id=cluster_id,
        ip_address=actor.ip_address,
        user_agent=actor.user_agent,
        request_id=actor.request_id,
        before=dict(before) if before is not None else None,
        after=dict(after) if after is not None else None,
        usd_per_hour=None if usd_per_hour is None else usd_per_hour.quantize(Decimal("0.000001")),
    )
    row.seq, row.prev_hash = link.seq + 1, link.row_hash
    row.row_hash = chain.row_hash(seq=row.seq, prev_hash=row.prev_hash, content=chain.content_of(row))
    row.save(force_insert=True)
    link.seq, link.row_hash = row.seq, row.row_hash
    link.save(update_fields=["seq", "row_hash"])
    if actor.organization_id is not None:
        announce(organization_id=actor.organization_id, topic="activity", event=event)
    return row


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
    AuditChain.objects.get_or_create(key=key)
    return AuditChain.objects.select_for_update().get(key=key)
