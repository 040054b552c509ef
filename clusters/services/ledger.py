"""Book what Spotopt saved: what removed nodes no longer cost, minus what launched nodes do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import F, Max, Q, QuerySet, Sum

from accounts.models import Organization
from clusters.domain.ledger import BOOKING_PERIOD, Slice, bookable_until, hour_slices, workload_changed
from clusters.models import Instance, SavingsEntry, Workload
from spotopt.core.clock import utcnow
from spotopt.core.live import announce

Kind = SavingsEntry.Kind
LATEST = timedelta(days=30)
"""For so long an hour may wait to be booked, should the platform be away."""
_SIGN = {Kind.REMOVED: 1, Kind.ADDED: -1}
_FORMULA = {
    Kind.REMOVED: "recorded price × hours since AWS stopped billing the removed node",
    Kind.ADDED: "− recorded price × hours that the launched node was billed",
}
_ESTIMATED = " (some at an estimated price)"


@dataclass(frozen=True, slots=True)
class _Account:
    """One instance whose hours are booked."""

    instance: Instance
    kind: Kind
    since: datetime
    until: datetime


@transaction.atomic
def book_savings(*, organization_id: UUID) -> int:
    """Book every observed hour that is not booked yet, up to now; return how many entries were written.

    Running twice books nothing twice: each instance continues where its last entry ends.
    """
    # no_key: whoever writes a row of the organization shares its key, and neither should wait for the other
    lock = Organization.objects.select_for_update(skip_locked=True, no_key=True).filter(pk=organization_id)
    if not lock.exists():
        return 0
    now = utcnow()
    _end_changed_bookings(now)
    entries = list(_new_entries(list(_accounts(now))))
    SavingsEntry.objects.bulk_create(
        entries,
        update_conflicts=True,
        unique_fields=["instance", "kind", "hour"],
        update_fields=["booked_until", "usd_per_hour", "usd", "is_estimate", "formula", "updated_at"],
    )
    if entries:
        announce(organization_id=organization_id, topic="savings")
    return len(entries)


def requested_cpu_millis(cluster_id: UUID) -> int:
    """Return the CPU that the cluster's workloads request now, in thousandths of a core."""
    total = Workload.objects.filter(cluster_id=cluster_id).aggregate(
        cpu=Sum(F("cpu_request_millis") * F("replicas"))
    )
    return total["cpu"] or 0


def _end_changed_bookings(now: datetime) -> None:
    """End the bookings whose workload changed; what a plan removed and what it launched end together."""
    current = {
        row["cluster_id"]: row["cpu"] or 0
        for row in Workload.objects.values("cluster_id").annotate(
            cpu=Sum(F("cpu_request_millis") * F("replicas"))
        )
    }
    open_rows = Instance.objects.filter(requests_baseline_millis__isnull=False, booking_ended_at__isnull=True)
    changed = [
        row.pk
        for row in open_rows.only("pk", "cluster_id", "requests_baseline_millis")
        if row.cluster_id is not None
        and workload_changed(
            baseline_millis=row.requests_baseline_millis or 0, current_millis=current.get(row.cluster_id, 0)
        )
    ]
    plans = Instance.objects.filter(pk__in=changed, changed_by_plan_id__isnull=False)
    together = Q(pk__in=changed) | Q(changed_by_plan_id__in=plans.values("changed_by_plan_id"))
    Instance.objects.filter(together, booking_ended_at__isnull=True).update(booking_ended_at=now)


def _accounts(now: datetime) -> Iterator[_Account]:
    """Yield what may have hours to book: nothing whose booking ended more than ``LATEST`` ago."""
    lately, begun = now - LATEST, now - LATEST - BOOKING_PERIOD
    open_rows = Instance.objects.filter(Q(booking_ended_at=None) | Q(booking_ended_at__gt=lately))
    removed = open_rows.filter(changed_by_plan_id__isnull=False, launch_action_id__isnull=True)
    for row in removed.filter(terminated_at__gt=begun):
        since = row.terminated_at or now
        until = bookable_until(since=since, now=now, ended_at=row.booking_ended_at)
        yield _Account(row, Kind.REMOVED, since, until)
    launched = open_rows.filter(launch_action_id__isnull=False, launched_at__gt=begun)
    for row in launched.filter(Q(terminated_at=None) | Q(terminated_at__gt=lately)):
        billed_until = row.terminated_at or now
        until = bookable_until(since=row.launched_at, now=billed_until, ended_at=row.booking_ended_at)
        yield _Account(row, Kind.ADDED, row.launched_at, until)


def _new_entries(accounts: list[_Account]) -> Iterator[SavingsEntry]:
    entries = SavingsEntry.objects.filter(instance__in=[account.instance.pk for account in accounts])
    booked = {
        (row["instance_id"], row["kind"]): row["until"]
        for row in entries.values("instance_id", "kind").annotate(until=Max("booked_until"))
    }
    current = _to_extend(entries, booked.values())
    for account in accounts:
        price, cluster_id = account.instance.price, account.instance.cluster_id
        if price is None or cluster_id is None:
            continue  # a price that was never recorded books nothing
        start = max(account.since, booked.get((account.instance.pk, account.kind), account.since))
        for piece in hour_slices(start, account.until):
            known = current.get((account.instance.pk, account.kind, piece.hour))
            yield _entry(account, piece, known, price, cluster_id)


def _to_extend(
    entries: QuerySet[SavingsEntry], ends: Iterable[datetime]
) -> dict[tuple[UUID, str, datetime], SavingsEntry]:
    hours = {end.replace(minute=0, second=0, microsecond=0) for end in ends}
    return {(row.instance_id, row.kind, row.hour): row for row in entries.filter(hour__in=hours)}


def _entry(
    account: _Account, piece: Slice, known: SavingsEntry | None, price: Decimal, cluster_id: UUID
) -> SavingsEntry:
    instance = account.instance
    usd = piece.usd(price) * _SIGN[account.kind]
    is_estimate = instance.price_is_estimate or (known is not None and known.is_estimate)
    return SavingsEntry(
        organization_id=instance.organization_id,
        cluster_id=cluster_id,
        plan_id=instance.changed_by_plan_id,
        instance=instance,
        kind=account.kind,
        hour=piece.hour,
        booked_from=known.booked_from if known else piece.start,
        booked_until=piece.end,
        usd_per_hour=price,
        usd=usd + (known.usd if known else 0),
        is_estimate=is_estimate,
        formula=_FORMULA[account.kind] + (_ESTIMATED if is_estimate else ""),
    )
