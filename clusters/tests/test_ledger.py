from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import uuid4

import time_machine
from hypothesis import given
from hypothesis import strategies as st

from clusters.domain.ledger import hour_slices, workload_changed
from clusters.models import Instance, SavingsEntry
from clusters.selectors.detail import cluster_head
from clusters.selectors.fleet import booked
from clusters.selectors.metrics import Scope, savings
from clusters.selectors.registry import clusters
from clusters.services import ledger
from clusters.services.ledger import book_savings
from clusters.tests.factories import InstanceFactory, WorkloadFactory

START = datetime(2026, 11, 23, 10, 30, tzinfo=UTC)


def _moved(cluster_changes=None):
    """One node removed and one launched by a plan at START; the cluster requests 2,000 millis."""
    plan_id = uuid4()
    removed = InstanceFactory(
        state=Instance.State.TERMINATED,
        terminated_at=START,
        price=Decimal("0.400000"),
        changed_by_plan_id=plan_id,
        requests_baseline_millis=2000,
    )
    launched = InstanceFactory(
        cluster=removed.cluster,
        node_group=removed.node_group,
        lifecycle=Instance.Lifecycle.SPOT,
        launched_at=START - timedelta(minutes=6),
        launch_action_id=uuid4(),
        price=Decimal("0.100000"),
        changed_by_plan_id=plan_id,
        requests_baseline_millis=2000,
    )
    workload = WorkloadFactory(cluster=removed.cluster, replicas=4, cpu_request_millis=500)
    return removed, launched, workload


def _total():
    return sum((entry.usd for entry in SavingsEntry.objects.all()), Decimal(0))


def test_given_a_move_when_booked_after_an_hour_then_the_books_hold_price_times_hours(in_acme):
    _moved()

    with time_machine.travel(START + timedelta(hours=1), tick=False):
        book_savings(organization_id=in_acme.pk)

    assert _total() == Decimal("0.4") - Decimal("0.1") * Decimal("1.1")
    assert {e.kind for e in SavingsEntry.objects.all()} == {"removed", "added"}
    assert SavingsEntry.objects.count() == 4  # two nodes, each in the hours of 10 and 11


def test_given_books_when_booked_again_at_once_then_nothing_changes(in_acme):
    _moved()

    with time_machine.travel(START + timedelta(hours=1), tick=False):
        book_savings(organization_id=in_acme.pk)
        before = list(SavingsEntry.objects.order_by("pk").values("pk", "usd", "booked_until"))
        assert book_savings(organization_id=in_acme.pk) == 0

    assert list(SavingsEntry.objects.order_by("pk").values("pk", "usd", "booked_until")) == before


def test_given_many_small_bookings_when_summed_then_they_equal_one_large_booking(in_acme):
    _moved()

    for minutes in (1, 7, 29, 31, 60, 95):
        with time_machine.travel(START + timedelta(minutes=minutes), tick=False):
            book_savings(organization_id=in_acme.pk)

    hours = Decimal(95) / 60
    expected = Decimal("0.4") * hours - Decimal("0.1") * (hours + Decimal("0.1"))
    assert abs(_total() - expected) < Decimal("0.0000001")


def test_given_a_price_that_moves_when_booked_then_each_stretch_has_the_price_of_its_time(in_acme):
    _, launched, _ = _moved()
    with time_machine.travel(START + timedelta(minutes=15), tick=False):
        book_savings(organization_id=in_acme.pk)
    Instance.objects.filter(pk=launched.pk).update(price=Decimal("0.200000"))

    with time_machine.travel(START + timedelta(minutes=30), tick=False):
        book_savings(organization_id=in_acme.pk)

    spent = Decimal("0.1") * Decimal("0.35") + Decimal("0.2") * Decimal("0.25")
    assert _total() == Decimal("0.4") * Decimal("0.5") - spent


def test_given_a_workload_that_changed_by_a_third_when_booked_then_the_booking_ends(in_acme):
    *_, workload = _moved()
    with time_machine.travel(START + timedelta(minutes=30), tick=False):
        book_savings(organization_id=in_acme.pk)
    booked = _total()
    workload.replicas = 6
    workload.save()

    with time_machine.travel(START + timedelta(minutes=30, seconds=1), tick=False):
        book_savings(organization_id=in_acme.pk)
    workload.replicas = 4
    workload.save()
    with time_machine.travel(START + timedelta(hours=5), tick=False):
        book_savings(organization_id=in_acme.pk)

    assert _total() - booked < Decimal("0.001")
    assert Instance.objects.filter(booking_ended_at__isnull=False).count() == 2


def test_given_a_change_that_only_one_baseline_shows_when_booked_then_saving_and_cost_end_together(in_acme):
    removed, launched, _ = _moved()
    Instance.objects.filter(pk=launched.pk).update(requests_baseline_millis=1600)  # 2,000 is 25 % more

    with time_machine.travel(START + timedelta(minutes=30), tick=False):
        book_savings(organization_id=in_acme.pk)

    removed.refresh_from_db()
    launched.refresh_from_db()
    assert removed.booking_ended_at == launched.booking_ended_at == START + timedelta(minutes=30)


def test_given_thirty_days_when_booked_later_then_nothing_beyond_them_is_booked(in_acme):
    _moved()

    with time_machine.travel(START + timedelta(days=45), tick=False):
        book_savings(organization_id=in_acme.pk)

    assert max(e.booked_until for e in SavingsEntry.objects.filter(kind="removed")) == START + timedelta(
        days=30
    )


def test_given_bookings_that_ended_long_ago_when_booked_again_then_they_are_not_even_read(in_acme):
    removed, launched, _ = _moved()
    ended = _moved()[0]
    Instance.objects.filter(pk=ended.pk).update(booking_ended_at=START + timedelta(days=20))
    Instance.objects.filter(pk=launched.pk).update(
        state=Instance.State.TERMINATED, terminated_at=START + timedelta(days=25)
    )

    def read(after):
        return {account.instance.pk for account in ledger._accounts(START + after)}

    assert {removed.pk, launched.pk, ended.pk} < read(timedelta(days=49))
    assert removed.pk in read(timedelta(days=57))
    assert not {launched.pk, ended.pk} & read(timedelta(days=57))
    assert read(timedelta(days=61)) == set()


def test_given_a_node_without_a_price_when_booked_then_nothing_is_claimed_for_it(in_acme):
    removed, launched, _ = _moved()
    Instance.objects.filter(pk__in=[removed.pk, launched.pk]).update(price=None)

    with time_machine.travel(START + timedelta(hours=1), tick=False):
        assert book_savings(organization_id=in_acme.pk) == 0


def test_given_an_estimated_price_when_booked_then_the_entries_and_every_sum_say_so(in_acme):
    removed, _, _ = _moved()
    Instance.objects.filter(pk=removed.pk).update(price_is_estimate=True)

    with time_machine.travel(START + timedelta(minutes=10), tick=False):
        book_savings(organization_id=in_acme.pk)
    Instance.objects.filter(pk=removed.pk).update(price_is_estimate=False)
    with time_machine.travel(START + timedelta(minutes=20), tick=False):
        book_savings(organization_id=in_acme.pk)  # goes on in the same hour
        sums = booked(now=START)

    told = {entry.kind: entry for entry in SavingsEntry.objects.all()}
    assert {kind: entry.is_estimate for kind, entry in told.items()} == {"removed": True, "added": False}
    assert told["removed"].formula.endswith("(some at an estimated price)")
    head = cluster_head(removed.cluster_id, now=START)
    assert {sums.is_estimated, savings(Scope()).is_estimated, head.is_booked_estimated} == {True}


def test_given_prices_that_were_told_when_booked_then_no_sum_is_called_an_estimate(in_acme):
    _moved()

    with time_machine.travel(START + timedelta(minutes=10), tick=False):
        book_savings(organization_id=in_acme.pk)

    (row,) = clusters()
    assert {booked(now=START).is_estimated, savings(Scope()).is_estimated, row.is_booked_estimated} == {False}


@given(start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
       seconds=st.integers(0, 500_000))  # fmt: skip
def test_law_slices_cover_the_period_once_and_stay_inside_their_hours(start, seconds):
    end = start + timedelta(seconds=seconds)

    slices = list(hour_slices(start, end))

    assert sum(((s.end - s.start) for s in slices), timedelta()) == end - start
    assert all(s.hour <= s.start < s.end <= s.hour + timedelta(hours=1) for s in slices)
    assert all(one.end == two.start for one, two in pairwise(slices))


@given(baseline=st.integers(0, 10**9), current=st.integers(0, 10**9))
def test_law_a_change_is_more_than_a_fifth_of_the_baseline(baseline, current):
    assert workload_changed(baseline_millis=baseline, current_millis=current) == (
        abs(current - baseline) * 5 > baseline
    )
