import pytest
from rest_framework.test import APIClient

from audit.models import AuditLog
from audit.services import Subject, record
from clusters.tests.factories import ClusterFactory
from policies.tests.factories import PlanFactory, SteeringFactory, TemplateFactory, WhatIfFactory
from spotopt.core.actor import Actor

READS = [
    "clusters", "clusters/summary", "clusters/{cluster}", "clusters/{cluster}/nodes",
    "clusters/{cluster}/node-groups", "clusters/{cluster}/workloads", "clusters/{cluster}/actions",
    "clusters/{cluster}/jobs", "clusters/{cluster}/what-if", "what-ifs/{what_if}",
    "clusters/{cluster}/karpenter",
    "jobs/{job}", "plans", "plans/{plan}", "plans/{plan}/steps",
    "plans/{plan}/refusals", "templates", "templates/{template}", "policies/{cluster}",
    "policies/{cluster}/revisions", "metrics/kpi", "metrics/projection", "metrics/composition",
    "metrics/timeseries", "metrics/savings", "activity/live", "audit", "audit/{event}", "audit/{event}/diff",
    "audit/verify", "audit/summary", "hibernation", "hibernation/{cluster}",
]  # fmt: skip
WRITES = [
    ("patch", "clusters/{cluster}"), ("patch", "clusters/{cluster}/maintenance"),
    ("post", "clusters/{cluster}/optimize"), ("post", "clusters/{cluster}/what-if"),
    ("post", "clusters/{cluster}/karpenter/{steering}/apply"),
    ("delete", "what-ifs/{what_if}"), ("delete", "jobs/{job}"), ("post", "plans/{plan}/approve"),
    ("post", "plans/{plan}/reject"), ("post", "plans/{plan}/stop"), ("post", "templates"),
    ("patch", "templates/{template}"), ("delete", "templates/{template}"),
    ("patch", "templates/{template}/default"), ("post", "templates/{template}/clone"),
    ("patch", "policies/{cluster}"), ("delete", "policies/{cluster}"), ("post", "policies/{cluster}/revert"),
    *(("patch", f"policies/{knob}") for knob in (
        "karpenter", "strategy", "binpack", "fallback", "spread", "exclusions", "rightsize", "buffer",
        "constraints", "affinity")),
    ("post", "hibernation/schedule"), ("patch", "hibernation/tz"), ("patch", "hibernation/prewarm"),
    ("patch", "hibernation/{cluster}"), ("delete", "hibernation/{cluster}"),
]  # fmt: skip
ASKS = [("post", "templates/validate"), ("post", "policies/preview")]
STAFF = [
    ("get", "admin/config"),
    ("patch", "admin/config"),
    ("get", "admin/models"),
    ("get", "lab/experiments"),
]
OWNERS = [("delete", "clusters/{cluster}")]
EVERY = [*(("get", path) for path in READS), *WRITES, *ASKS, *STAFF, *OWNERS]


@pytest.fixture
def world(in_acme):
    cluster = ClusterFactory()
    plan = PlanFactory(cluster=cluster)
    event = record(
        actor=Actor.system(in_acme.pk), event="clusters.x.y", sentence="x", subject=Subject("cluster")
    )
    return {
        "cluster": cluster.pk,
        "plan": plan.pk,
        "job": plan.job_id,
        "what_if": WhatIfFactory(cluster=cluster).pk,
        "template": TemplateFactory().pk,
        "steering": SteeringFactory(cluster=cluster).pk,
        "event": event.pk,
    }


def knock(client, method, path, world):
    return getattr(client, method)(f"/api/v1/{path.format(**world)}", {}, format="json").status_code


def test_given_nobody_when_they_knock_then_every_door_asks_who_they_are(world):
    answers = {(method, path): knock(APIClient(), method, path, world) for method, path in EVERY}

    assert set(answers.values()) == {401}


def test_given_a_viewer_when_they_knock_then_they_read_and_ask_and_nothing_else(api_as, viewer, world):
    speak = api_as(viewer)

    reads = {path: knock(speak, "get", path, world) for path in READS}
    asks = {path: knock(speak, method, path, world) for method, path in ASKS}
    others = {
        (method, path): knock(speak, method, path, world) for method, path in [*WRITES, *STAFF, *OWNERS]
    }

    assert {path: status for path, status in reads.items() if status != 200} == {}
    assert set(asks.values()) == {400}
    assert {door: status for door, status in others.items() if status != 403} == {}
    assert AuditLog.objects.count() == 1


def test_given_a_member_when_they_knock_then_they_write_but_do_not_remove_or_govern(api_as, member, world):
    speak = api_as(member)

    writes = {(method, path): knock(speak, method, path, world) for method, path in WRITES}
    others = {(method, path): knock(speak, method, path, world) for method, path in STAFF}
    removed = speak.delete(f"/api/v1/clusters/{world['cluster']}", {"name": "x"}, format="json")

    shut_out = {door: status for door, status in writes.items() if status in (401, 403, 405) or status >= 500}
    assert shut_out == {}
    assert set(others.values()) == {403}
    assert removed.status_code == 403


def test_given_a_stranger_when_they_knock_with_our_ids_then_nothing_is_found(api_as, stranger, world):
    speak = api_as(stranger)
    named = [(method, path) for method, path in EVERY if "{" in path]
    full = {"name": "x", "version": 1, "enabled": True, "timezone": "UTC", "mode": "automatic"}

    answers = {
        (method, path): getattr(speak, method)(
            f"/api/v1/{path.format(**world)}", full, format="json"
        ).status_code
        for method, path in named
    }

    assert {door: status for door, status in answers.items() if status != 404} == {}


def test_given_staff_without_a_membership_when_they_knock_then_only_the_platforms_doors_open(
    api_as, super_admin, world
):
    speak = api_as(super_admin)

    ours = {path: knock(speak, "get", path, world) for path in READS}
    staff = [knock(speak, method, path, world) for method, path in STAFF]

    assert set(ours.values()) == {403}
    assert staff == [200, 400, 200, 200]


def test_given_a_refusal_when_answered_then_it_is_a_problem_document(api_as, viewer, world):
    answer = api_as(viewer).patch(f"/api/v1/clusters/{world['cluster']}", {}, format="json")

    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["type"]) == (403, "/problems/forbidden")
