from datetime import timedelta

import pytest
from django.db import InternalError, connection, transaction

from audit.domain.chain import content_of, row_hash
from audit.models import AuditChain, AuditLog
from audit.selectors import chain_state
from audit.services import Subject, announce_pending, record
from audit.tasks import announce_events
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow


def write(organization, count=1, event="clusters.cluster.paused"):
    return [
        record(
            actor=Actor.system(organization.pk),
            event=event,
            sentence=f"Event {number}",
            subject=Subject("cluster", str(number), f"cluster-{number}"),
            before={"number": number, "share": 0.1, "list": [1, "two", None]},
            after={"number": number + 1},
        )
        for number in range(count)
    ]


def tamper(sql, *params):
    """Do what the database's owner could do: switch the triggers off and rewrite history."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql, params)
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit_logs SET sentence = 'nothing happened'",
        "UPDATE audit_logs SET row_hash = prev_hash",
        "UPDATE audit_logs SET updated_at = now()",
        "DELETE FROM audit_logs",
    ],
)
def test_given_an_event_when_it_is_changed_or_deleted_then_the_database_refuses(in_acme, sql):
    (event,) = write(in_acme)

    with pytest.raises(InternalError, match=r"Cannot (update|delete) rows"), transaction.atomic():
        connection.cursor().execute(sql)

    assert AuditLog.objects.get() == event


def test_given_an_event_when_it_is_stamped_as_announced_then_the_database_allows_it(in_acme):
    write(in_acme)

    assert AuditLog.objects.update(announced_at=utcnow()) == 1
    assert chain_state().broken_at is None


def test_given_untouched_events_when_verified_then_all_hold(api_as, viewer, in_acme):
    write(in_acme, 5)

    assert api_as(viewer).get("/api/v1/audit/verify").json() == {"ok": True, "rows": 5, "first_bad_seq": None}


@pytest.mark.parametrize(
    ("sql", "first_bad"),
    [
        ("UPDATE audit_logs SET sentence = 'nothing happened' WHERE seq = 3", 3),
        ("UPDATE audit_logs SET actor_label = 'somebody else' WHERE seq = 3", 3),
        ("UPDATE audit_logs SET before = '{\"number\": 9}' WHERE seq = 3", 3),
        ("UPDATE audit_logs SET timestamp = timestamp - interval '1 day' WHERE seq = 3", 3),
        ("UPDATE audit_logs SET row_hash = repeat('a', 64) WHERE seq = 3", 3),
        ("DELETE FROM audit_logs WHERE seq = 3", 3),
        ("DELETE FROM audit_logs WHERE seq = 1", 1),
        ("DELETE FROM audit_logs WHERE seq > 3", 4),
        ("DELETE FROM audit_logs", 1),
    ],
)
def test_given_a_row_rewritten_behind_the_triggers_when_verified_then_the_first_bad_one_is_named(
    api_as, viewer, in_acme, sql, first_bad
):
    write(in_acme, 5)

    tamper(sql)

    answer = api_as(viewer).get("/api/v1/audit/verify").json()
    assert (answer["ok"], answer["first_bad_seq"]) == (False, first_bad)


def test_given_a_forged_hash_when_the_row_is_rewritten_with_it_then_the_next_row_betrays_it(in_acme):
    events = write(in_acme, 3)
    forged = events[1]
    forged.sentence = "nothing happened"
    forged.row_hash = row_hash(seq=2, prev_hash=forged.prev_hash, content=content_of(forged))

    tamper(
        "UPDATE audit_logs SET sentence = %s, row_hash = %s WHERE seq = 2", forged.sentence, forged.row_hash
    )

    assert chain_state().broken_at == 3


def test_given_another_organizations_events_when_verified_then_only_ones_own_count(in_acme, rival):
    write(in_acme, 2)

    assert (chain_state().rows, AuditChain.objects.count()) == (2, 1)


@pytest.fixture
def announced(monkeypatch):
    told = []

    def take(*, organization_id, topic, **facts):
        told.append((organization_id, topic, facts))
        return True

    monkeypatch.setattr("audit.services.announce_now", take)
    return told


def test_given_events_nobody_announced_when_swept_then_each_is_told_once_in_order(
    in_acme, announced, time_machine
):
    for name in ("a.one", "a.two", "a.three"):
        write(in_acme, event=name)
    assert (announce_pending(), announced) == (0, [])

    time_machine.move_to(utcnow() + timedelta(seconds=6))

    assert (announce_events(), announce_events()) == (3, 0)
    assert announced == [(in_acme.pk, "activity", {"event": name}) for name in ("a.one", "a.two", "a.three")]
    assert not AuditLog.objects.filter(announced_at=None).exists()


def test_given_a_layer_that_takes_nothing_when_swept_then_nothing_is_stamped_and_the_next_sweep_tells(
    in_acme, announced, monkeypatch, time_machine
):
    write(in_acme, 2)
    time_machine.move_to(utcnow() + timedelta(seconds=6))
    with monkeypatch.context() as patch:
        patch.setattr("audit.services.announce_now", lambda **_: False)
        assert announce_pending() == 0
    assert AuditLog.objects.filter(announced_at=None).count() == 2

    assert announce_pending() == 2


def test_given_a_platform_event_when_swept_then_it_is_stamped_without_a_listener(db, announced, time_machine):
    record(
        actor=Actor.system(None), event="accounts.safe_mode.changed", sentence="x", subject=Subject("system")
    )
    time_machine.move_to(utcnow() + timedelta(seconds=6))

    assert (announce_pending(), announced) == (1, [])


def test_given_the_real_channel_layer_when_swept_then_it_takes_the_event(in_acme, time_machine):
    write(in_acme)
    time_machine.move_to(utcnow() + timedelta(seconds=6))

    assert announce_pending() == 1
