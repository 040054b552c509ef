from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Account
from clusters.models import Cluster, DiscoveryRun
from simulator.fleets import CUSTOMER

PROBLEM = "application/problem+json"


@pytest.fixture
def scanned(linked):
    """An active account with one cluster and one partial scan."""
    Account.objects.filter(pk=linked.pk).update(status="active")
    Cluster.objects.create(
        organization_id=linked.organization_id, account=linked, name="shop", region="us-east-1",
        arn=f"arn:aws:eks:us-east-1:{CUSTOMER}:cluster/shop", k8s_version="1.33",
    )  # fmt: skip
    DiscoveryRun.objects.create(
        organization_id=linked.organization_id, account=linked, trigger="schedule", status="partial",
        progress=100, regions_total=2, regions_done=2, clusters_found=1, instances_found=4,
        errors={"eu-south-1": "not enabled"}, started_at=linked.created_at, finished_at=linked.created_at,
    )  # fmt: skip
    return linked


def calls(account_id):
    """Every door here, as (method, path, body)."""
    return [
        ("post", "/api/v1/connect/verify", {"account_id": str(account_id), "role_arn": "nonsense"}),
        ("post", f"/api/v1/accounts/{account_id}/validate", {}),
        ("get", f"/api/v1/accounts/{account_id}/scan", None),
        ("post", f"/api/v1/accounts/{account_id}/resync", {}),
        ("get", f"/api/v1/clusters/discover?account_id={account_id}", None),
        ("post", "/api/v1/clusters/discover", {"account_id": str(account_id)}),
    ]


def call(api, method, path, body):
    return getattr(api, method)(path, body, format="json") if body is not None else api.get(path)


def test_given_our_stack_when_verified_by_api_then_permissions_and_a_first_count_come_back(
    aws, pending, alice, api_as
):
    role_arn = aws.make_role(pending.external_id)

    answer = api_as(alice).post(
        "/api/v1/connect/verify",
        {"account_id": str(pending.pk), "role_arn": role_arn, "external_id": "chosen-by-me"},
        format="json",
    )

    assert answer.status_code == 200
    body = answer.json()
    assert (body["status"], body["account_status"]) == ("verified", "scanning")
    assert body["discovered_resources"]["clusters"] == 3
    granted = {row["action"]: row["granted"] for row in body["permissions"]}
    assert granted["ec2:DescribeInstances"] is True
    assert granted["autoscaling:UpdateAutoScalingGroup"] is None


def test_given_a_role_that_cannot_be_used_when_verified_by_api_then_a_problem_document_says_why(
    aws, pending, alice, api_as
):
    answer = api_as(alice).post(
        "/api/v1/connect/verify",
        {"account_id": str(pending.pk), "role_arn": f"arn:aws:iam::{CUSTOMER}:role/Missing"},
        format="json",
    )

    assert (answer.status_code, answer.headers["Content-Type"]) == (400, PROBLEM)
    body = answer.json()
    assert (body["type"], body["code"]) == ("/problems/verification-failed", "role_not_assumable")
    assert "does not exist" in body["detail"]


def test_given_an_unreachable_aws_when_verified_by_api_then_it_is_a_bad_gateway(aws, pending, alice, api_as):
    role_arn = aws.make_role(pending.external_id)
    aws.server.faults.unreachable = True

    answer = api_as(alice).post(
        "/api/v1/connect/verify", {"account_id": str(pending.pk), "role_arn": role_arn}, format="json"
    )

    assert (answer.status_code, answer.json()["code"]) == (502, "aws_unreachable")


def test_given_a_partial_scan_when_followed_then_progress_and_skipped_regions_are_told(
    scanned, viewer, api_as
):
    answer = api_as(viewer).get(f"/api/v1/accounts/{scanned.pk}/scan")

    body = answer.json()
    assert answer.status_code == 200
    assert (body["status"], body["progress"], body["account_status"]) == ("partial", 100, "active")
    assert body["errors"] == {"eu-south-1": "not enabled"}
    assert body["message"] == "Found 1 clusters and 4 instances; 1 regions could not be read."


def test_given_no_scan_yet_when_followed_then_there_is_nothing(pending, alice, api_as):
    assert api_as(alice).get(f"/api/v1/accounts/{pending.pk}/scan").status_code == 404


def test_given_an_idle_account_when_synced_twice_then_the_first_run_is_returned(scanned, member, api_as):
    api = api_as(member)

    first = api.post(f"/api/v1/accounts/{scanned.pk}/resync", {}, format="json")
    second = api.post(f"/api/v1/accounts/{scanned.pk}/resync", {}, format="json")

    assert first.status_code == 202
    assert second.json()["id"] == first.json()["id"]
    assert DiscoveryRun.objects.filter(trigger="manual").count() == 1


def test_given_a_scan_when_clusters_are_listed_then_its_age_and_gaps_are_told(scanned, viewer, api_as):
    api = api_as(viewer)
    with CaptureQueriesContext(connection) as queries:
        answer = api.get(f"/api/v1/clusters/discover?account_id={scanned.pk}")

    body = answer.json()
    assert answer.status_code == 200
    assert [row["name"] for row in body["clusters"]] == ["shop"]
    assert (body["total"], body["skipped"]) == (1, {"eu-south-1": "not enabled"})
    assert body["clusters"][0]["managed"] is False
    assert len(queries) <= 7
    nowhere = api.get(f"/api/v1/clusters/discover?account_id={scanned.pk}&regions=eu-west-1")
    assert nowhere.json()["clusters"] == []


def test_given_a_discovery_a_moment_ago_when_asked_again_then_it_is_too_soon(scanned, member, api_as):
    api, body = api_as(member), {"account_id": str(scanned.pk)}

    assert api.post("/api/v1/clusters/discover", body, format="json").status_code == 202
    again = api.post("/api/v1/clusters/discover", body, format="json")

    assert (again.status_code, again.json()["type"]) == (429, "/problems/too-many-requests")


@pytest.mark.parametrize("number", range(6))
def test_given_the_wrong_caller_when_any_door_is_tried_then_it_stays_shut(
    scanned, viewer, stranger, client, api_as, number
):
    runs = DiscoveryRun.unscoped.count()
    method, path, body = calls(scanned.pk)[number]

    anonymous = call(client, method, path, None) if method == "get" else client.post(path, body)
    foreign = call(api_as(stranger), method, path, body)
    reader = call(api_as(viewer), method, path, body)

    assert anonymous.status_code in (401, 403)
    assert foreign.status_code == 404
    assert reader.status_code == (200 if method == "get" else 403)
    assert DiscoveryRun.unscoped.count() == runs


@pytest.mark.parametrize("number", range(6))
def test_given_an_unknown_account_when_any_door_is_tried_then_it_is_not_found(alice, api_as, number):
    assert call(api_as(alice), *calls(uuid4())[number]).status_code == 404


def test_given_a_malformed_body_when_verified_by_api_then_the_fields_are_named(alice, api_as):
    answer = api_as(alice).post("/api/v1/connect/verify", {"account_id": "x"}, format="json")

    assert answer.status_code == 400
    assert answer.json()["errors"].keys() == {"account_id", "role_arn"}
