import asyncio
import json
import threading
import time
from datetime import timedelta
from uuid import uuid4

import pytest
import time_machine
from django.db import connection, connections
from django.test import AsyncClient

from agentapi import protocol
from agentapi.models import AgentAction, AgentInstance, APIKey
from agentapi.services import delivery, presence, waiting
from agentapi.tests.conftest import AGENT_ID
from clusters.models import Action
from spotopt.core import crypto
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, Gone, NotFound
from spotopt.core.tenancy import tenant


@pytest.fixture
def agent(cluster, agent_token):
    with tenant(cluster.organization_id):
        key = APIKey.objects.get(key_hash=crypto.digest(agent_token))
        presence.register(
            key=key,
            registration=protocol.Registration(agent_id=AGENT_ID, version="1.0.0"),
            actor=Actor.system(cluster.organization_id),
        )
        yield agent_token


def claim(cluster, agent_id=AGENT_ID, **fields):
    with tenant(cluster.organization_id):
        return delivery.claim(cluster_id=cluster.pk, request=protocol.Claim(agent_id=agent_id, **fields))


def report(cluster, action, status="completed", agent_id=AGENT_ID, **fields):
    with tenant(cluster.organization_id):
        return delivery.store_result(
            cluster_id=cluster.pk,
            action_id=action.pk,
            result=protocol.Result(agent_id=agent_id, status=status, **fields),
        )


def test_given_pending_actions_when_claimed_then_they_come_signed_and_oldest_first(
    cluster, agent, make_action
):
    actions = [make_action(number) for number in range(3)]

    commands = claim(cluster, limit=2)

    assert [command.action_id for command in commands] == [str(action.pk) for action in actions[:2]]
    assert all(command.is_signed_by(crypto.public_key()) for command in commands)
    first = commands[0]
    assert (first.cluster_id, first.agent_id, first.action_type) == (
        str(cluster.pk),
        AGENT_ID,
        "uncordon_node",
    )
    assert first.payload == {"node_name": "node-0", "instance_id": "i-00000000000000000"}
    assert commands[0].nonce != commands[1].nonce
    with tenant(cluster.organization_id):
        assert Action.objects.filter(status=Action.Status.RUNNING, claimed_by=AGENT_ID).count() == 2
        assert AgentAction.objects.filter(status=AgentAction.Status.PICKED_UP).count() == 2


def test_given_a_claimed_action_when_claimed_again_then_nothing_comes(cluster, agent, make_action):
    make_action(1)

    assert len(claim(cluster)) == 1
    assert claim(cluster) == ()


def test_given_an_expired_action_when_claimed_then_nothing_comes(cluster, agent, make_action):
    make_action(1)

    with time_machine.travel(utcnow() + timedelta(minutes=6)):
        assert claim(cluster) == ()


def test_given_another_clusters_actions_when_claimed_then_they_do_not_come(cluster, agent, make_action, acme):
    with tenant(acme.pk):
        other = type(cluster).objects.create(
            organization=acme, account=cluster.account, name="other", region="us-east-1"
        )
    make_action(1, cluster=other)

    assert claim(cluster) == ()


@pytest.mark.parametrize(
    ("agent_id", "code"), [("agent-unheard-of", "unregistered"), (AGENT_ID, "superseded")]
)
def test_given_an_agent_that_does_not_lead_when_it_claims_then_it_is_refused(
    agent_id, code, cluster, agent, make_action
):
    action = make_action(1)
    with tenant(cluster.organization_id):
        AgentInstance.objects.update(status=AgentInstance.Status.SUPERSEDED)

    with pytest.raises(Conflict) as refusal:
        claim(cluster, agent_id)

    assert refusal.value.extra["code"] == code
    action.refresh_from_db()
    assert action.status == Action.Status.PENDING


def test_given_a_lost_answer_when_the_agent_claims_a_minute_later_then_the_same_command_comes_again(
    cluster, agent, make_action
):
    make_action(1)
    [lost] = claim(cluster)

    with time_machine.travel(utcnow() + timedelta(seconds=61)):
        assert claim(cluster, known_actions=(lost.action_id,)) == ()
        assert claim(cluster) == (lost,)


def test_given_a_lost_answer_in_a_two_minute_notice_when_the_agent_claims_again_then_it_comes_at_once(
    cluster, agent, make_action
):
    make_action(1, is_voluntary=False)
    make_action(2)
    urgent, polite = claim(cluster)

    assert claim(cluster, known_actions=(urgent.action_id, polite.action_id)) == ()
    assert claim(cluster) == (urgent,)


def test_given_a_result_when_reported_twice_then_the_action_is_closed_once(cluster, agent, make_action):
    action = make_action(1)
    claim(cluster)

    first = report(cluster, action, result={"changed": True})
    report(cluster, action, result={"changed": True})

    action.refresh_from_db()
    assert (action.status, action.result) == (Action.Status.SUCCEEDED, {"changed": True})
    assert first.status == AgentAction.Status.COMPLETED


def test_given_a_failure_when_reported_then_the_reason_is_kept(cluster, agent, make_action):
    action = make_action(1)
    claim(cluster)

    report(cluster, action, "failed", error_code="eviction_blocked", error_message="no disruption allowed")

    action.refresh_from_db()
    assert (action.status, action.error_code) == (Action.Status.FAILED, "eviction_blocked")
    assert action.error_message == "no disruption allowed"


def test_given_another_agents_action_when_reported_then_conflict_and_nothing_changes(
    cluster, agent, make_action
):
    action = make_action(1)
    claim(cluster)

    with pytest.raises(Conflict):
        report(cluster, action, agent_id="agent-of-a-thief")

    action.refresh_from_db()
    assert action.status == Action.Status.RUNNING


def test_given_an_action_that_is_over_when_reported_then_gone_and_the_late_result_is_kept(
    cluster, agent, make_action
):
    action = make_action(1)
    claim(cluster)
    Action.unscoped.filter(pk=action.pk).update(status=Action.Status.FAILED, error_code="lease_expired")

    with pytest.raises(Gone):
        report(cluster, action, result={"evicted": 3})

    with tenant(cluster.organization_id):
        late = AgentAction.objects.get(action=action)
    assert (late.is_late, late.result) == (True, {"evicted": 3})
    action.refresh_from_db()
    assert (action.status, action.error_code) == (Action.Status.FAILED, "lease_expired")


def test_given_an_action_that_was_never_delivered_when_reported_then_not_found(cluster, agent, make_action):
    with pytest.raises(NotFound):
        report(cluster, make_action(1))


@pytest.mark.django_db(transaction=True)
def test_given_many_claims_at_once_when_they_race_then_each_action_is_delivered_once(
    cluster, agent, make_action
):
    actions = {str(make_action(number).pk) for number in range(12)}
    delivered, start = [], threading.Barrier(6)

    def race():
        start.wait()
        try:
            for _ in range(100):  # what another is claiming at the moment is passed over
                delivered.extend(command.action_id for command in claim(cluster, limit=3))
                if len(delivered) >= len(actions):
                    break
        finally:
            connections.close_all()

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(delivered) == 12
    assert set(delivered) == actions


# Waiting.


@pytest.fixture
def _short_connections(monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    yield
    time.sleep(waiting.BEAT_SECONDS * 2)


async def poll(cluster, token, wait_seconds=10, **document):
    return await AsyncClient().post(
        f"/api/v1/clusters/{cluster.pk}/actions/claim",
        data=json.dumps({"agent_id": AGENT_ID, "wait_seconds": wait_seconds} | document),
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )


async def until_it_waits():
    """Return once the request hangs: before that it still looks for work itself."""
    while not waiting.waiting_room().is_anybody_waiting:
        await asyncio.sleep(0.02)


waits = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.asyncio,
    pytest.mark.usefixtures("_short_connections"),
]


def waiting_test(function):
    for mark in waits:
        function = mark(function)
    return function


@waiting_test
async def test_given_a_waiting_agent_when_an_action_is_requested_then_it_gets_it_at_once(
    cluster, agent, make_action
):
    polling = asyncio.ensure_future(poll(cluster, agent))
    await until_it_waits()
    assert not polling.done()

    asked_at = time.monotonic()
    action = await waiting.in_database(make_action, 1)
    answer = await polling

    assert time.monotonic() - asked_at < 2
    [command] = json.loads(answer.content)["actions"]
    assert command["action_id"] == str(action.pk)
    assert answer["Cache-Control"] == "no-store"


@waiting_test
async def test_given_nothing_to_do_when_the_wait_is_over_then_the_answer_is_empty(cluster, agent):
    asked_at = time.monotonic()

    answer = await poll(cluster, agent, wait_seconds=1)

    assert json.loads(answer.content) == {"actions": []}
    assert time.monotonic() - asked_at >= 1


@waiting_test
async def test_given_many_waiting_agents_when_they_wait_then_no_database_connection_is_held(cluster, agent):
    polls = [asyncio.ensure_future(poll(cluster, agent, wait_seconds=2)) for _ in range(20)]
    await asyncio.sleep(1)

    def connections_in_use():
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            return cursor.fetchone()[0]

    in_use = await waiting.in_database(connections_in_use)
    await asyncio.gather(*polls)

    assert in_use <= 4  # the test's own, this question, the room's beat


@waiting_test
async def test_given_a_waiting_agent_when_its_key_is_revoked_then_it_gets_nothing(
    cluster, agent, make_action
):
    polling = asyncio.ensure_future(poll(cluster, agent))
    await until_it_waits()

    def revoke_and_request():
        APIKey.unscoped.update(revoked_at=utcnow())
        return make_action(1)

    action = await waiting.in_database(revoke_and_request)
    answer = await polling

    assert answer.status_code == 401
    assert json.loads(answer.content)["code"] == "key_revoked"
    assert answer["Content-Type"] == "application/problem+json"
    await waiting.in_database(action.refresh_from_db)
    assert action.status == Action.Status.PENDING


@waiting_test
async def test_z08_given_a_waiting_agent_when_its_key_is_revoked_then_it_hears_so_within_five_seconds(
    cluster, agent
):
    polling = asyncio.ensure_future(poll(cluster, agent, wait_seconds=30))
    await until_it_waits()

    await waiting.in_database(APIKey.unscoped.update, revoked_at=utcnow())
    answer = await asyncio.wait_for(polling, 5)

    assert (answer.status_code, json.loads(answer.content)["code"]) == (401, "key_revoked")


@waiting_test
@pytest.mark.parametrize(
    ("document", "token", "status"),
    [({}, "so_unknown", 401), ({"limit": 0}, None, 400), ({"wait_seconds": 31}, None, 400)],
)
async def test_given_a_wrong_claim_when_sent_then_it_is_refused_at_once(
    document, token, status, cluster, agent
):
    assert (await poll(cluster, token or agent, **document)).status_code == status


@waiting_test
async def test_z36_given_another_method_when_claiming_then_405_and_nothing_is_claimed(
    cluster, agent, make_action
):
    action = await waiting.in_database(make_action, 1)

    answer = await AsyncClient().get(
        f"/api/v1/clusters/{cluster.pk}/actions/claim", headers={"Authorization": f"Bearer {agent}"}
    )

    assert answer.status_code == 405
    await waiting.in_database(action.refresh_from_db)
    assert action.status == Action.Status.PENDING


@waiting_test
async def test_given_a_foreign_cluster_in_the_path_when_claiming_then_403(cluster, agent):
    answer = await AsyncClient().post(
        f"/api/v1/clusters/{uuid4()}/actions/claim",
        data=json.dumps({"agent_id": AGENT_ID}),
        content_type="application/json",
        headers={"Authorization": f"Bearer {agent}"},
    )

    assert answer.status_code == 403
