import pgtrigger
from django.urls import reverse

from audit.models import AuditLog
from audit.selectors import ActivityFilter, activity_page, chain_state
from audit.services import Subject, record
from spotopt.core.actor import Actor
from spotopt.core.tenancy import tenant


def tell(organization, sentence, **facts):
    return record(
        actor=Actor.system(organization.pk),
        event="clusters.node.drained",
        sentence=sentence,
        subject=Subject("cluster", "c1", "shop"),
        **facts,
    )


def test_given_more_events_than_a_page_when_read_back_then_none_is_lost_or_twice(in_acme):
    for number in range(7):
        tell(in_acme, f"Event {number}")

    first = activity_page(ActivityFilter(), size=5)
    second = activity_page(ActivityFilter(before=first.next_before), size=5)

    assert [row.sentence for row in (*first.rows, *second.rows)] == [f"Event {n}" for n in range(6, -1, -1)]
    assert second.next_before is None


def test_given_a_filter_when_reading_then_only_matching_events_come(in_acme):
    tell(in_acme, "Drained one")
    tell(in_acme, "Could not drain", outcome="failed")

    page = activity_page(ActivityFilter(search="drain", outcome="failed"))

    assert [row.sentence for row in page.rows] == ["Could not drain"]


def test_given_a_summary_when_reading_then_what_was_only_asked_for_is_left_out(in_acme):
    record(
        actor=Actor.system(in_acme.pk),
        event="clusters.action.requested",
        sentence="Asked to drain",
        subject=Subject("instance", "n1", "n1"),
    )
    tell(in_acme, "Drained")

    assert [row.sentence for row in activity_page(ActivityFilter(is_summary=True)).rows] == ["Drained"]
    assert len(activity_page(ActivityFilter()).rows) == 2


def test_given_an_untouched_record_when_verified_then_it_holds(in_acme):
    tell(in_acme, "One")
    tell(in_acme, "Two")

    state = chain_state()

    assert (state.rows, state.broken_at) == (2, None)


def test_given_a_row_altered_behind_our_back_when_verified_then_the_page_names_it(in_acme, alice, as_user):
    tell(in_acme, "One")
    row = tell(in_acme, "Two")
    with pgtrigger.ignore("audit.AuditLog:no_rewrite"):
        AuditLog.objects.filter(pk=row.pk).update(sentence="Other")

    page = as_user(alice).get(reverse("audit:verify"))

    assert "broken at event 2" in page.text


def test_given_an_event_when_opened_then_its_change_is_shown_field_by_field(in_acme, viewer, as_user):
    row = tell(in_acme, "Changed", before={"spot": 60, "min": 3}, after={"spot": 80, "min": 3})

    page = as_user(viewer).get(reverse("audit:event", args=[row.pk]))

    assert [(change.field, change.old_value, change.new_value) for change in page.context["changes"]] == [
        ("spot", 60, 80)
    ]


def test_given_a_stranger_when_reading_then_there_is_nothing(in_acme, rival, stranger, as_user):
    row = tell(in_acme, "Ours")

    assert as_user(stranger).get(reverse("audit:event", args=[row.pk])).status_code == 404
    assert "Ours" not in as_user(stranger).get(reverse("audit:activity")).text
    with tenant(rival.pk):
        assert activity_page(ActivityFilter()).rows == ()


def test_given_nobody_when_reading_then_they_sign_in_first(db, client):
    assert client.get(reverse("audit:activity"))["Location"].startswith(reverse("accounts:login"))


def test_given_an_executor_known_by_its_id_when_the_feed_is_read_then_it_is_called_an_agent(in_acme):
    executor = "6fd11def02b74caea127d1a07f2406ec"
    actor = Actor(kind="agent", organization_id=in_acme.pk, label=executor, id=executor)
    record(
        actor=actor,
        event="clusters.action.succeeded",
        sentence="Drained.",
        subject=Subject("instance", "i", "n"),
    )

    assert [row.actor_label for row in activity_page(ActivityFilter()).rows] == ["Agent"]
