import gzip
import json
from datetime import timedelta

import pytest
import time_machine
from rest_framework.test import APIClient

from accounts.models import Account
from agentapi import protocol
from agentapi.models import APIKey
from agentapi.services import keys
from agentapi.tests.conftest import AGENT_ID
from audit.models import AuditLog
from clusters.models import Cluster, ClusterEvent, Placement, Workload
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant

AGENT_PATHS = {
    "agent/register": protocol.dump(protocol.Registration(agent_id=AGENT_ID, version="1.0.0")),
    "agent/deregister": {"agent_id": AGENT_ID},
    "heartbeat": {"agent_id": AGENT_ID},
    "metrics": {"agent_id": AGENT_ID, "sequence": 1, "taken_at": "2026-01-01T00:00:00Z"},
    "events": {"agent_id": AGENT_ID},
    "interruptions": {"agent_id": AGENT_ID},
    "actions/00000000-0000-4000-8000-000000000000/result": {"agent_id": AGENT_ID, "status": "completed"},
}
SNAPSHOT = protocol.Snapshot(
    agent_id=AGENT_ID,
    sequence=5,
    taken_at=utcnow(),
    pods=2,
    nodes=(protocol.NodeReport("node-1", "i-00000000000000001", ready=True),),
    workloads=(protocol.WorkloadReport("shop/Deployment/web", "shop", "Deployment", "web", replicas=2),),
    placements={"shop/Deployment/web": {"node-1": 2}},
)


@pytest.fixture
def rival_token(rival):
    with tenant(rival.pk):
        account = Account.objects.create(organization=rival, alias="theirs", aws_account_id="999911112222")
        cluster = Cluster.objects.create(organization=rival, account=account, name="x", region="us-east-1")
        actor = Actor(kind="user", organization_id=rival.pk, label="mallory", role="owner")
        return keys.create_key(cluster=cluster, description="", expires_at=None, actor=actor).token


@pytest.mark.parametrize("path", AGENT_PATHS)
def test_z09_given_no_key_when_an_agent_endpoint_is_called_then_401(path, cluster, speak):
    answer = speak(cluster.pk, path, AGENT_PATHS[path], None)

    assert (answer.status_code, answer.json()["code"]) == (401, "key_missing")
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", AGENT_PATHS)
@pytest.mark.parametrize(("token", "code"), [("so_unknown", "key_unknown"), ("eyJ.jwt.x", "key_missing")])
def test_given_a_wrong_token_when_an_agent_endpoint_is_called_then_401(path, token, code, cluster, speak):
    answer = speak(cluster.pk, path, AGENT_PATHS[path], token)

    assert (answer.status_code, answer.json()["code"]) == (401, code)


@pytest.mark.parametrize("path", AGENT_PATHS)
def test_z09_given_another_clusters_key_when_an_agent_endpoint_is_called_then_403(
    path, cluster, rival_token, speak
):
    answer = speak(cluster.pk, path, AGENT_PATHS[path], rival_token)

    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_cluster")
    with tenant(cluster.organization_id):
        assert not Workload.objects.exists()


@pytest.mark.parametrize("path", [path for path in AGENT_PATHS if path != "agent/register"])
def test_given_a_bootstrap_key_when_used_for_more_than_registering_then_403(path, cluster, bootstrap, speak):
    answer = speak(cluster.pk, path, AGENT_PATHS[path], bootstrap)

    assert (answer.status_code, answer.json()["code"]) == (403, "bootstrap_key")


@pytest.mark.parametrize("path", AGENT_PATHS)
def test_given_a_signed_in_owner_when_an_agent_endpoint_is_called_then_401(path, cluster, alice, api_as):
    answer = api_as(alice).post(f"/api/v1/clusters/{cluster.pk}/{path}", AGENT_PATHS[path], format="json")

    assert answer.status_code == 401


def test_given_a_bootstrap_key_when_a_day_has_passed_then_it_has_expired(
    cluster, bootstrap, registration, speak
):
    with time_machine.travel(utcnow() + timedelta(hours=24, seconds=1)):
        answer = speak(cluster.pk, "agent/register", registration, bootstrap)

    assert (answer.status_code, answer.json()["code"]) == (401, "key_expired")


def test_given_a_suspended_organization_when_its_agent_calls_then_401(cluster, registered, acme, speak):
    acme.status = "suspended"
    acme.save()

    answer = speak(cluster.pk, "heartbeat", {"agent_id": AGENT_ID}, registered)

    assert answer.json()["code"] == "organization_suspended"


def test_given_a_snapshot_when_sent_then_it_is_stored_and_acknowledged(
    cluster, registered, make_instance, speak
):
    make_instance(1)

    answer = speak(cluster.pk, "metrics", protocol.dump(SNAPSHOT), registered)

    assert protocol.parse(protocol.SnapshotAnswer, answer.json()) == protocol.SnapshotAnswer(5)
    with tenant(cluster.organization_id):
        assert Placement.objects.get().count == 2
        assert Workload.objects.get().constraints == {}


def test_given_a_delta_on_another_base_when_sent_then_a_resync_is_asked_for(cluster, registered, speak):
    delta = protocol.dump(SNAPSHOT) | {"base": 4}

    answer = speak(cluster.pk, "metrics", delta, registered)

    assert answer.json() == {"acknowledged": 0, "resync": True}


def test_given_a_snapshot_of_a_superseded_agent_when_sent_then_409_and_nothing_is_stored(
    cluster, registered, registration, speak
):
    speak(cluster.pk, "agent/register", registration | {"agent_id": "agent-number-two"}, registered)

    answer = speak(cluster.pk, "metrics", protocol.dump(SNAPSHOT), registered)

    assert (answer.status_code, answer.json()["code"]) == (409, "superseded")
    with tenant(cluster.organization_id):
        assert not Workload.objects.exists()


def test_given_a_wrong_field_when_a_snapshot_is_sent_then_400_names_it(cluster, registered, speak):
    document = protocol.dump(SNAPSHOT) | {"pods": -1}

    answer = speak(cluster.pk, "metrics", document, registered)

    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["pods"]


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff\xfe", b""])
def test_given_a_body_that_is_no_json_when_sent_then_400(body, cluster, registered, client):
    answer = client.post(
        f"/api/v1/clusters/{cluster.pk}/heartbeat",
        data=body,
        content_type="application/json",
        headers={"Authorization": f"Bearer {registered}"},
    )

    assert answer.status_code == 400


def test_given_a_damaged_gzip_when_sent_then_400(cluster, registered, client):
    answer = client.post(
        f"/api/v1/clusters/{cluster.pk}/heartbeat",
        data=b"not gzip",
        content_type="application/json",
        headers={"Authorization": f"Bearer {registered}", "Content-Encoding": "gzip"},
    )

    assert answer.status_code == 400


@pytest.mark.parametrize(("path", "limit"), [("heartbeat", 256 * 1024), ("metrics", protocol.MAX_BODY_BYTES)])
def test_given_a_body_over_the_limit_when_sent_then_413(path, limit, cluster, registered, client):
    answer = client.post(
        f"/api/v1/clusters/{cluster.pk}/{path}",
        data=b" " * (limit + 1),
        content_type="application/json",
        headers={"Authorization": f"Bearer {registered}"},
    )

    assert answer.status_code == 413


def test_given_events_when_sent_twice_then_they_are_stored_once(cluster, registered, speak):
    event = {"event_id": "e-1", "event_type": "node_not_ready", "occurred_at": protocol.instant(utcnow())}
    document = {"agent_id": AGENT_ID, "events": [event, event | {"event_id": "e-2"}]}

    first = speak(cluster.pk, "events", document, registered)
    second = speak(cluster.pk, "events", document, registered)

    assert first.json() == {"stored": 2, "duplicates": 0}
    assert second.json() == {"stored": 0, "duplicates": 2}
    with tenant(cluster.organization_id):
        assert ClusterEvent.objects.count() == 2


def test_z10_given_a_command_that_the_agent_refused_when_it_tells_then_it_is_on_the_record_once(
    cluster, registered, speak
):
    payload = {"action_id": "a", "action_type": "drain_node", "code": "bad_signature"}
    event = {"event_id": "e-1", "event_type": "command_refused", "occurred_at": protocol.instant(utcnow())}
    document = {"agent_id": AGENT_ID, "events": [event | {"payload": payload}]}

    for _ in range(2):
        assert speak(cluster.pk, "events", document, registered).status_code == 200

    [row] = AuditLog.unscoped.filter(event="agentapi.command.refused")
    assert (row.outcome, row.after) == ("denied", payload)
    assert row.sentence == "The agent of prod refused a command: bad_signature (drain_node)"


def test_given_more_than_100_events_when_sent_then_400_and_none_is_stored(cluster, registered, speak):
    now = protocol.instant(utcnow())
    events = [{"event_id": str(n), "event_type": "x", "occurred_at": now} for n in range(101)]

    answer = speak(cluster.pk, "events", {"agent_id": AGENT_ID, "events": events}, registered)

    assert answer.status_code == 400
    with tenant(cluster.organization_id):
        assert not ClusterEvent.objects.exists()


def test_z36_given_waiting_actions_when_looked_at_then_they_stay_waiting(
    cluster, registered, make_action, client
):
    action = make_action(1)
    path = f"/api/v1/clusters/{cluster.pk}/actions/pending"

    answer = client.get(path, headers={"Authorization": f"Bearer {registered}"})

    assert [each["action_id"] for each in answer.json()["actions"]] == [str(action.pk)]
    action.refresh_from_db()
    assert action.status == "pending"


# What people use.


def test_z08_given_a_cluster_when_connected_then_the_token_is_shown_once_and_stays_out_of_the_command(
    cluster, member, api_as
):
    answer = api_as(member).post("/api/v1/clusters/connect", {"cluster_id": str(cluster.pk)}, format="json")

    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    told = answer.json()
    assert told["namespace"] == "spot-optimizer"
    assert told["api_token"].startswith("so_")
    for text in (told["helm_command"], told["values_yaml"], told["manifest"]):
        assert told["api_token"] not in text
    assert str(cluster.pk) in told["values_yaml"]
    assert f'value: "{cluster.pk}"' in told["manifest"]
    with tenant(cluster.organization_id):
        stored = APIKey.objects.get()
        assert told["api_token"] not in (stored.key_hash, stored.key_prefix, stored.description)
        logged = AuditLog.objects.get(event="agentapi.key.issued")
        assert told["api_token"] not in json.dumps(logged.after)


def test_given_an_unused_installation_when_connected_again_then_the_first_token_stops(
    cluster, member, api_as, registration, speak
):
    api = api_as(member)
    first, second = (
        api.post("/api/v1/clusters/install", {"cluster_id": str(cluster.pk)}, format="json").json()
        for _ in range(2)
    )

    assert speak(cluster.pk, "agent/register", registration, first["api_token"]).status_code == 401
    assert speak(cluster.pk, "agent/register", registration, second["api_token"]).status_code == 200


def test_given_a_connected_agent_when_connected_again_then_409(cluster, registered, member, api_as):
    answer = api_as(member).post("/api/v1/clusters/connect", {"cluster_id": str(cluster.pk)}, format="json")

    assert answer.status_code == 409


@pytest.mark.parametrize("namespace", ["x; rm -rf /", "Upper", "-a", "", "a" * 64, "a\nb"])
def test_given_a_namespace_that_is_none_when_connected_then_400(namespace, cluster, member, api_as):
    body = {"cluster_id": str(cluster.pk), "namespace": namespace}

    assert api_as(member).post("/api/v1/clusters/connect", body, format="json").status_code == 400


PEOPLE = ["anonymous", "viewer", "member", "alice", "stranger", "super_admin"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("post", "connect", [401, 403, 201, 201, 404, 403]),
        ("get", "{id}/verify", [401, 200, 200, 200, 404, 403]),
        ("get", "{id}/keys", [401, 403, 200, 200, 404, 403]),
        ("post", "{id}/keys", [401, 403, 201, 201, 404, 403]),
        ("post", "{id}/keys/rotate", [401, 403, 201, 201, 404, 403]),
        ("delete", "{id}/keys/{key}", [401, 403, 200, 200, 404, 403]),
    ],
)
@pytest.mark.parametrize("who", range(len(PEOPLE)))
def test_given_each_kind_of_person_when_they_call_then_their_role_decides(
    who, method, path, expected, cluster, agent_token, request, api_as, client
):

    person = PEOPLE[who]
    api = APIClient() if person == "anonymous" else api_as(request.getfixturevalue(person))
    with tenant(cluster.organization_id):
        key = APIKey.objects.get()
    url = "/api/v1/clusters/" + path.format(id=cluster.pk, key=key.pk)

    answer = getattr(api, method)(url, {"cluster_id": str(cluster.pk)}, format="json")

    assert answer.status_code == expected[who]


def test_given_keys_when_listed_then_no_secret_is_shown(cluster, agent_token, member, api_as):
    answer = api_as(member).get(f"/api/v1/clusters/{cluster.pk}/keys")

    assert agent_token not in answer.content.decode()
    [key] = answer.json()["keys"]
    assert (key["status"], key["key_prefix"]) == ("active", agent_token.removeprefix("so_")[:8])


def test_given_a_rotation_when_a_day_has_passed_then_only_the_new_key_works(
    cluster, registered, member, api_as, speak
):
    fresh = api_as(member).post(f"/api/v1/clusters/{cluster.pk}/keys/rotate").json()["api_token"]
    sign = {"agent_id": AGENT_ID}

    assert speak(cluster.pk, "heartbeat", sign, registered).status_code == 200
    with time_machine.travel(utcnow() + timedelta(hours=24, seconds=1)):
        assert speak(cluster.pk, "heartbeat", sign, registered).json()["code"] == "key_expired"
        assert speak(cluster.pk, "heartbeat", sign, fresh).status_code == 200


def test_given_heartbeats_when_verified_then_connected_until_a_minute_of_silence(
    cluster, registered, viewer, api_as, speak
):
    api, path = api_as(viewer), f"/api/v1/clusters/{cluster.pk}/verify"
    assert api.get(path).json()["status"] == "connected"

    with time_machine.travel(utcnow() + timedelta(seconds=61)):
        answer = api.get(path).json()

    assert (answer["status"], answer["agent_version"]) == ("disconnected", "1.0.0")


def test_given_no_agent_ever_when_verified_then_disconnected_and_never_seen(cluster, viewer, api_as):
    answer = api_as(viewer).get(f"/api/v1/clusters/{cluster.pk}/verify").json()

    assert (answer["status"], answer["last_seen"]) == ("disconnected", None)


def test_given_a_big_but_allowed_snapshot_when_sent_compressed_then_it_is_taken(cluster, registered, client):
    rows = [
        {"key": f"n/Deployment/{n}", "namespace": "n", "kind": "Deployment", "name": str(n)}
        for n in range(3000)
    ]
    body = gzip.compress(json.dumps(protocol.dump(SNAPSHOT) | {"workloads": rows}).encode())

    answer = client.post(
        f"/api/v1/clusters/{cluster.pk}/metrics",
        data=body,
        content_type="application/json",
        headers={"Authorization": f"Bearer {registered}", "Content-Encoding": "gzip"},
    )

    assert answer.status_code == 200
    with tenant(cluster.organization_id):
        assert Workload.objects.count() == 3000
