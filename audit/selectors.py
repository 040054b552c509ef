"""Read the record: the activity feed, one event, and whether the chain holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import Q, QuerySet

from audit.domain import chain
from audit.models import AuditLog
from audit.services import content_of
from spotopt.core.errors import NotFound

PAGE_SIZE = 50
RESOURCE_TYPES = ("cluster", "account", "policy", "template", "user", "organization", "agent", "system")


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """What the feed is narrowed to; empty means all."""

    search: str = ""
    actor_type: str = ""
    resource_type: str = ""
    outcome: str = ""
    cluster_id: UUID | None = None
    before: int | None = None
    """Sequence number that the page ends before."""


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """One event in the feed."""

    id: UUID
    seq: int
    timestamp: datetime
    sentence: str
    event: str
    actor_type: str
    actor_label: str
    resource_type: str
    resource_id: str
    resource_label: str
    outcome: str
    cluster_id: UUID | None
    usd_per_hour: Decimal | None


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """Some events, newest first, and where the next page begins."""

    rows: tuple[ActivityRow, ...]
    next_before: int | None


@dataclass(frozen=True, slots=True)
class ChainState:
    """Whether every stored event still is what was written."""

    rows: int
    broken_at: int | None
    """Sequence number of the first event that is missing, moved or altered; None when all hold."""


def activity_page(wanted: ActivityFilter, *, size: int = PAGE_SIZE) -> ActivityPage:
    """Return one page of the organization's events, newest first (one query)."""
    rows = _filtered(wanted).order_by("-seq")
    found = list(rows[: size + 1])
    shown = tuple(_row(row) for row in found[:size])
    return ActivityPage(rows=shown, next_before=shown[-1].seq if len(found) > size else None)


def event_by_id(event_id: UUID) -> AuditLog:
    """Return one event with its before, after and place in the chain, or raise NotFound."""
    row = AuditLog.objects.filter(pk=event_id).first()
    if row is None:
        raise NotFound("There is no such event.")
    return row


def chain_state() -> ChainState:
    """Re-compute the hash of every event of the organization and return what was found."""
    rows = 0

    def links() -> Iterator[chain.Link]:
        nonlocal rows
        for row in AuditLog.objects.order_by("seq").iterator(chunk_size=2000):
            rows += 1
            yield chain.Link(row.seq, row.prev_hash, row.row_hash, content_of(row))

    return ChainState(broken_at=chain.first_broken(links()), rows=rows)


def _filtered(wanted: ActivityFilter) -> QuerySet[AuditLog]:
    rows = AuditLog.objects.all()
    exact = {
        "actor_type": wanted.actor_type,
        "resource_type": wanted.resource_type,
        "outcome": wanted.outcome,
        "cluster_id": wanted.cluster_id,
    }
    rows = rows.filter(**{name: value for name, value in exact.items() if value})
    if wanted.search:
        text = wanted.search
        rows = rows.filter(
            Q(sentence__icontains=text) | Q(actor_label__icontains=text) | Q(event__icontains=text)
        )
    return rows if wanted.before is None else rows.filter(seq__lt=wanted.before)


def _row(row: AuditLog) -> ActivityRow:
    return ActivityRow(**{name: getattr(row, name) for name in ActivityRow.__slots__})
