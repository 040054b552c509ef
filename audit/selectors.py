"""Read the record: the activity feed, one event, and whether the chain holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from audit.domain import chain
from audit.models import AuditChain, AuditLog
from spotopt.core.errors import NotFound
from spotopt.core.tenancy import active_organization_id

PAGE_SIZE = 50
TOP = 10
RESOURCE_TYPES = (
    "cluster", "instance", "account", "policy", "template", "user", "organization", "agent", "system",
)  # fmt: skip


ACTION_REQUESTED = "clusters.action.requested"


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """What the feed is narrowed to; empty means all."""

    search: str = ""
    actor_type: str = ""
    resource_type: str = ""
    outcome: str = ""
    cluster_id: UUID | None = None
    is_summary: bool = False
    """Leave out actions that were only asked for; what became of each follows."""
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
    """Re-compute the hash of every event of the organization and return what was found.

    The end counts too: the chain's head, kept apart, says how many events there must be.
    """
    head = AuditChain.objects.filter(key=str(active_organization_id())).first()
    last_seq, last_hash = (head.seq, head.row_hash) if head else (0, chain.GENESIS)
    rows, newest = 0, chain.GENESIS

    def links() -> Iterator[chain.Link]:
        nonlocal rows, newest
        stored = AuditLog.objects.filter(seq__lte=last_seq).order_by("seq")
        for row in stored.iterator(chunk_size=2000):
            rows, newest = rows + 1, row.row_hash
            yield chain.Link(row.seq, row.prev_hash, row.row_hash, chain.content_of(row))

    broken_at = chain.first_broken(links())
    if broken_at is None and (rows != last_seq or newest != last_hash):
        broken_at = rows + 1
    return ChainState(broken_at=broken_at, rows=rows)


def events() -> QuerySet[AuditLog]:
    """Return the organization's events, newest first."""
    return AuditLog.objects.order_by("-timestamp", "-seq")


@dataclass(frozen=True, slots=True)
class RecordSummary:
    """The record of a period in a few numbers."""

    events: int
    unique_actors: int
    success_percent: float | None
    top_actors: dict[str, int]
    top_events: dict[str, int]


def record_summary(*, start: datetime, end: datetime) -> RecordSummary:
    """Return what happened from ``start`` up to ``end`` (three queries)."""
    rows = AuditLog.objects.filter(timestamp__gte=start, timestamp__lt=end)
    sums = rows.aggregate(
        total=Count("pk"),
        good=Count("pk", filter=Q(outcome=AuditLog.Outcome.SUCCESS)),
        actors=Count("actor_label", distinct=True),
    )
    total = sums["total"]
    return RecordSummary(
        events=total,
        unique_actors=sums["actors"],
        success_percent=round(100 * sums["good"] / total, 1) if total else None,
        top_actors=_most(rows, "actor_label"),
        top_events=_most(rows, "event"),
    )


def _most(rows: QuerySet[AuditLog], column: str) -> dict[str, int]:
    counts = rows.values_list(column).annotate(total=Count("pk")).order_by("-total", column)
    return dict(counts[:TOP])


def _filtered(wanted: ActivityFilter) -> QuerySet[AuditLog]:
    rows = AuditLog.objects.all()
    exact = {
        "actor_type": wanted.actor_type,
        "resource_type": wanted.resource_type,
        "outcome": wanted.outcome,
        "cluster_id": wanted.cluster_id,
    }
    rows = rows.filter(**{name: value for name, value in exact.items() if value})
    if wanted.is_summary:
        rows = rows.exclude(event=ACTION_REQUESTED)
    if wanted.search:
        text = wanted.search
        rows = rows.filter(
            Q(sentence__icontains=text) | Q(actor_label__icontains=text) | Q(event__icontains=text)
        )
    return rows if wanted.before is None else rows.filter(seq__lt=wanted.before)


def _row(row: AuditLog) -> ActivityRow:
    facts = {name: getattr(row, name) for name in ActivityRow.__slots__}
    if row.actor_type == AuditLog.ActorType.AGENT and row.actor_label == row.actor_id:
        facts["actor_label"] = "Agent"  # an executor's id says nothing to a reader; the event's page keeps it
    return ActivityRow(**facts)
