from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest

from audit.models import AuditLog
from audit.services import Subject, record
from spotopt.core.actor import Actor


@pytest.fixture
def events(in_acme, time_machine):
    """Four events: one each noon from 2025-03-01."""

    def write(day, outcome, label, event, usd=None):
        time_machine.move_to(datetime(2025, 3, day, 12, tzinfo=UTC), tick=False)
        return record(
            actor=Actor(kind="user", organization_id=in_acme.pk, label=label, id=label),
            event=event,
            sentence=f"Did {event}",
            subject=Subject("policy" if "policy" in event else "cluster", "1", "prod-1"),
            outcome=outcome,
            cluster_id=uuid4(),
            before={"a": 1},
            after={"a": 2},
            usd_per_hour=usd,
        )

    written = [
        write(1, "success", "alice", "policies.policy.updated"),
        write(2, "failed", "bob", "policies.optimization.failed"),
        write(3, "denied", "bob", "clusters.cluster.removed"),
        write(4, "success", "alice", "policies.plan.completed", Decimal("1.25")),
    ]
    time_machine.move_to(datetime(2025, 3, 4, 12, 0, 1, tzinfo=UTC), tick=False)
    return written


def seqs(answer):
    return [row["seq"] for row in answer.json()["logs"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [4, 3, 2, 1]),
        ({"start_date": "2025-03-02", "end_date": "2025-03-03"}, [3, 2]),
        ({"start_date": "2025-03-02T12:00:00Z"}, [4, 3, 2]),
        ({"end_date": "2025-03-02T13:00:00+02:00"}, [1]),
        ({"actor": "bob"}, [3, 2]),
        ({"event": "policies."}, [4, 2, 1]),
        ({"resource_type": "policy"}, [1]),
        ({"outcome": "denied"}, [3]),
        ({"outcome": ["failed", "denied"]}, [3, 2]),
        ({"q": "optimization"}, [2]),
        ({"page_size": 1, "page": 2}, [3]),
    ],
)
def test_given_a_query_when_the_record_is_listed_then_it_is_narrowed_and_stable(
    api_as, viewer, events, query, expected
):
    assert seqs(api_as(viewer).get("/api/v1/audit", query)) == expected


def test_given_one_cluster_when_the_record_is_listed_then_only_its_events_show(api_as, viewer, events):
    assert seqs(api_as(viewer).get("/api/v1/audit", {"cluster_id": str(events[2].cluster_id)})) == [3]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"start_date": "2025-03-03", "end_date": "2025-03-01"}, "end_date"),
        ({"start_date": "yesterday"}, "start_date"),
        ({"end_date": "2025-02-30"}, "end_date"),
        ({"outcome": "maybe"}, "outcome"),
        ({"cluster_id": "x"}, "cluster_id"),
    ],
)
def test_given_a_bad_query_when_the_record_is_listed_then_its_field_is_named(
    api_as, viewer, events, query, field
):
    answer = api_as(viewer).get("/api/v1/audit", query)

    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


def test_given_an_event_when_listed_then_it_has_the_documented_fields(api_as, viewer, events):
    body = api_as(viewer).get("/api/v1/audit", {"page_size": 1}).json()

    assert (body["total"], body["page"], body["page_size"]) == (4, 1, 1)
    assert body["logs"][0] | {"id": "", "cluster_id": ""} == {
        "id": "", "seq": 4, "timestamp": "2025-03-04T12:00:00.000Z", "actor": "alice", "actor_id": "alice",
        "actor_type": "user", "event": "policies.plan.completed", "sentence": "Did policies.plan.completed",
        "resource": "prod-1", "resource_id": "1", "resource_type": "cluster", "outcome": "success",
        "account_id": None, "cluster_id": "", "ip_address": None, "user_agent": "", "request_id": "",
        "usd_per_hour": "1.250000",
    }  # fmt: skip


def test_given_an_event_when_opened_then_its_change_and_its_link_are_shown(api_as, viewer, events):
    speak = api_as(viewer)

    detail = speak.get(f"/api/v1/audit/{events[1].pk}").json()
    diff = speak.get(f"/api/v1/audit/{events[1].pk}/diff").json()

    assert detail["prev_hash"] == events[0].row_hash
    assert diff == {
        "before": {"a": 1},
        "after": {"a": 2},
        "diff": [{"field": "a", "old_value": 1, "new_value": 2, "change_type": "modified"}],
    }


def test_given_a_period_when_summed_up_then_counts_and_shares_are_exact(api_as, viewer, events):
    assert api_as(viewer).get("/api/v1/audit/summary", {"days": 1}).json() == {
        "events": 1,
        "unique_actors": 1,
        "success_percent": 100.0,
        "top_actors": {"alice": 1},
        "top_events": {"policies.plan.completed": 1},
    }


def test_given_the_feed_when_read_then_it_is_the_documented_shape_and_the_queries_do_not_grow(
    api_as, viewer, events, django_assert_num_queries
):
    speak = api_as(viewer)

    with django_assert_num_queries(4):
        body = speak.get("/api/v1/activity/live", {"limit": 2}).json()

    assert (body["total"], len(body["events"])) == (4, 2)
    assert body["events"][0] | {"id": "", "cluster_id": ""} == {
        "id": "", "timestamp": "2025-03-04T12:00:00.000Z", "action": "Did policies.plan.completed",
        "event": "policies.plan.completed", "actor": "alice", "savings": "1.250000", "status": "success",
        "resource_id": "1", "cluster_id": "",
    }  # fmt: skip
    assert len(speak.get("/api/v1/activity/live", {"limit": 1000, "offset": 3}).json()["events"]) == 1


def test_given_another_organizations_record_when_read_then_nothing_of_it_shows(api_as, stranger, events):
    speak = api_as(stranger)

    assert speak.get("/api/v1/audit").json()["logs"] == []
    assert speak.get("/api/v1/activity/live").json() == {"events": [], "total": 0}
    assert speak.get(f"/api/v1/audit/{events[0].pk}").status_code == 404
    assert speak.get(f"/api/v1/audit/{events[0].pk}/diff").status_code == 404
    assert speak.get("/api/v1/audit/verify").json() == {"ok": True, "rows": 0, "first_bad_seq": None}
    assert AuditLog.objects.count() == 4
