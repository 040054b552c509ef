import gzip
import json
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import DatabaseError, InterfaceError, connection
from django.test.utils import CaptureQueriesContext

from accounts import platform
from agentapi import protocol, road
from agentapi.models import AgentAction, AgentInstance, APIKey
from agentapi.services import delivery, ordinary, waiting
from agentapi.services.ordinary import Ask, Served, Sign, answer_claims, take_signs
from agentapi.services.waiting import Woken
from agentapi.tests.conftest import AGENT_ID
from clusters.models import AgentConfig, Cluster, Instance, Interruption
from spotopt.core import crypto
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.crypto import digest
from spotopt.core.tenancy import tenant

pytestmark = pytest.mark.django_db


def sign(cluster, token, **said):
    beat = protocol.Heartbeat(agent_id=AGENT_ID, version="1.2.3", **{"node_count": 7, **said})
    return Sign(digest(token), cluster.pk, beat)


def ask(cluster, token, *known):
    return Ask(digest(token), cluster.pk, protocol.Claim(agent_id=AGENT_ID, known_actions=known))


def test_given_a_connected_agent_when_its_heartbeats_come_together_then_one_statement_keeps_it_online(
    cluster, registered, make_action
):
    make_action(1)
    AgentInstance.unscoped.update(last_heartbeat_at=utcnow() - timedelta(minutes=1))
    APIKey.unscoped.update(last_used_at=utcnow() - timedelta(minutes=2))

    with CaptureQueriesContext(
        connection,
    ) as queries:
        answers = take_signs([sign(cluster, registered)] * 3)

    assert len(queries) == 1
    assert [answer.pending_actions for answer in answers] == [1, 1, 1]
    agent, row = AgentInstance.unscoped.get(), Cluster.unscoped.get()
    assert (agent.node_count, agent.health["version"], row.agent_version) == (7, "1.2.3", "1.2.3")
    for seen in (agent.last_heartbeat_at, row.last_heartbeat_at, APIKey.unscoped.get().last_used_at):
        assert utcnow() - seen < timedelta(seconds=30)


BAD_KEYS = {
    "revoked": {"revoked_at": utcnow()},
    "expired": {"expires_at": utcnow() - timedelta(seconds=1)},
    "used": {"used_at": utcnow()},
    "bootstrap": {"kind": "bootstrap"},
}


@pytest.mark.parametrize("changes", BAD_KEYS.values(), ids=BAD_KEYS)
def test_given_a_key_that_opens_nothing_when_it_speaks_then_the_long_road_refuses_it(
    cluster, registered, speak, changes
):
    """Threat Z09."""
    before = AgentInstance.unscoped.get().last_heartbeat_at
    APIKey.unscoped.update(**changes)

    assert take_signs([sign(cluster, registered)]) == [None]
    assert answer_claims([ask(cluster, registered)]) == [None]
    assert AgentInstance.unscoped.get().last_heartbeat_at == before
    answer = speak(cluster.pk, "heartbeat", protocol.dump(sign(cluster, registered).heartbeat), registered)
    assert answer.status_code in (401, 403)


def test_given_a_suspended_organization_or_another_cluster_when_it_speaks_then_it_is_not_ordinary(
    cluster, registered, acme
):
    foreign = Sign(digest(registered), acme.pk, sign(cluster, registered).heartbeat)
    assert take_signs([foreign, sign(cluster, "so_unknown")]) == [None, None]

    acme.status = "suspended"
    acme.save()

    assert take_signs([sign(cluster, registered)]) == [None]


@pytest.mark.parametrize("status", ["offline", "superseded"])
def test_given_an_agent_that_is_not_online_when_it_speaks_then_it_is_not_ordinary(
    cluster, registered, status
):
    AgentInstance.unscoped.update(status=status)

    assert take_signs([sign(cluster, registered)]) == [None]
    assert answer_claims([ask(cluster, registered)]) == [None]


def test_given_a_configuration_that_changed_when_it_beats_then_it_is_not_ordinary_until_acknowledged(
    cluster, registered
):
    with tenant(cluster.organization_id):
        AgentConfig.objects.create(organization_id=cluster.organization_id, cluster=cluster, version=2)
    current = sign(cluster, registered, config_version=2)
    assert take_signs([sign(cluster, registered), current]) == [None, None]

    AgentConfig.unscoped.update(acknowledged_version=2)

    assert take_signs([current])[0].config_version == 2


def test_given_work_that_waits_when_claimed_then_it_comes_signed_and_a_lost_command_is_not_ordinary(
    cluster, registered, make_action
):
    key_id = APIKey.unscoped.get().pk
    assert answer_claims([ask(cluster, registered)]) == [Served(key_id, ())]
    action = make_action(1)

    [served] = answer_claims([ask(cluster, registered)])

    [command] = served.commands
    assert (command.action_id, command.agent_id) == (str(action.pk), AGENT_ID)
    assert command.is_signed_by(crypto.public_key())
    action.refresh_from_db()
    assert (action.status, action.claimed_by) == ("running", AGENT_ID)
    assert action.lease_until > action.claimed_at
    assert answer_claims([ask(cluster, registered)]) == [None]
    assert answer_claims([ask(cluster, registered, str(action.pk))]) == [Served(key_id, ())]


def test_given_agents_of_two_organizations_when_they_claim_together_then_each_gets_its_own_oldest_first(
    cluster, registered, make_action, neighbour
):
    other, token = neighbour
    mine = [make_action(number) for number in range(3)]
    theirs = make_action(9, cluster=other)
    two = Ask(digest(registered), cluster.pk, protocol.Claim(agent_id=AGENT_ID, limit=2))

    served = answer_claims([two, ask(other, token)])

    assert [[command.action_id for command in each.commands] for each in served] == [
        [str(mine[0].pk), str(mine[1].pk)],
        [str(theirs.pk)],
    ]
    deliveries = AgentAction.unscoped.values_list("action_id", "organization_id")
    assert set(deliveries) == {
        (mine[0].pk, cluster.organization_id),
        (mine[1].pk, cluster.organization_id),
        (theirs.pk, other.organization_id),
    }


def test_given_one_claim_sent_twice_when_answered_together_then_only_the_first_gets_the_commands(
    cluster, registered, make_action
):
    make_action(1)

    first, second = answer_claims([ask(cluster, registered)] * 2)

    assert len(first.commands) == 1
    assert second is None
    assert AgentAction.unscoped.count() == 1


def freeze(_cluster):
    platform.set_safe_mode(actor=Actor.system(None), value="freeze")


def give_notice(cluster):
    node = Instance.unscoped.get()
    with tenant(cluster.organization_id):
        Interruption.objects.create(
            organization_id=cluster.organization_id,
            cluster=cluster,
            instance=node,
            kind=Interruption.Kind.INTERRUPTION,
            noticed_at=utcnow(),
            deadline=utcnow() + timedelta(minutes=2),
        )


@pytest.mark.parametrize(("forbid", "is_for_all"), [(freeze, True), (give_notice, False)])
def test_given_work_that_the_floor_forbids_now_when_claimed_together_then_the_long_road_refuses_it(
    cluster, registered, make_action, make_instance, neighbour, forbid, is_for_all
):
    other, token = neighbour
    make_instance(1)
    forbid(cluster)
    action = make_action(1)
    elsewhere = make_action(9, cluster=other)

    served, beside = answer_claims([ask(cluster, registered), ask(other, token)])

    action.refresh_from_db()
    assert (served, action.status) == (None, "pending")
    assert (beside is None) == is_for_all
    with tenant(cluster.organization_id):
        assert delivery.claim(cluster_id=cluster.pk, request=protocol.Claim(agent_id=AGENT_ID)) == ()
    action.refresh_from_db()
    elsewhere.refresh_from_db()
    assert (action.status, elsewhere.status) == ("refused", "pending" if is_for_all else "running")


def test_given_work_that_depends_on_other_nodes_when_claimed_together_then_none_of_it_is_claimed(
    cluster, registered, make_action
):
    rows = [make_action(1), make_action(2, kind="drain_node")]

    assert answer_claims([ask(cluster, registered)]) == [None]
    for row in rows:
        row.refresh_from_db()
        assert row.status == "pending"


@pytest.fixture
def short_road(monkeypatch):
    """The road with its database work done here and now; it notes what it passes on."""

    async def here(function, *args, **kwargs):
        return function(*args, **kwargs)

    monkeypatch.setattr(ordinary, "in_database", here)
    passed_on = []

    async def otherwise(scope, receive, send):
        passed_on.append((await receive())["body"])

    return road.AgentRoad(otherwise), passed_on


async def _post(served, cluster_id, what, document, token):
    sent, body = [], gzip.compress(json.dumps(document).encode())
    headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-encoding", b"gzip")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/api/v1/clusters/{cluster_id}/{what}",
        "headers": headers,
    }

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event):
        sent.append(event)

    await served(scope, receive, send)
    return (sent[0]["status"], json.loads(sent[1]["body"])) if sent else body


def _failing(error):
    async def fail(*_):
        raise error

    return fail


FAILURES = {
    "database": DatabaseError("away"),
    "connection": InterfaceError("closed"),
    "defect": KeyError("x"),
}


@pytest.mark.asyncio
async def test_given_an_ordinary_heartbeat_when_sent_then_the_short_road_answers_as_the_long_one(
    short_road, monkeypatch
):
    served, passed_on = short_road
    answer = protocol.HeartbeatAnswer(config_version=0, pending_actions=2, clock_skew_seconds=0)
    monkeypatch.setattr(ordinary, "take_signs", lambda signs: [answer] * len(signs))
    document = protocol.dump(protocol.Heartbeat(agent_id=AGENT_ID))

    status, said = await _post(served, "0" * 8 + "-0000-0000-0000-" + "0" * 12, "heartbeat", document, "so_x")

    assert (status, said) == (200, {"ack": True} | protocol.dump(answer))
    assert passed_on == []


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["token", "document", "not ordinary", *FAILURES])
async def test_given_anything_else_when_sent_then_it_goes_on_as_it_came(short_road, monkeypatch, fault):
    served, passed_on = short_road
    monkeypatch.setattr(ordinary, "take_signs", lambda signs: [None] * len(signs))
    if fault in FAILURES:
        monkeypatch.setattr(ordinary, "in_database", _failing(FAILURES[fault]))
    document = {"agent_id": 7} if fault == "document" else {"agent_id": AGENT_ID}
    token = "jwt" if fault == "token" else "so_x"

    body = await _post(served, "0" * 8 + "-0000-0000-0000-" + "0" * 12, "heartbeat", document, token)

    assert passed_on == [body]


@pytest.mark.asyncio
@pytest.mark.parametrize("failure", FAILURES)
async def test_given_a_beat_that_fails_when_work_comes_then_the_next_wakes_who_waits(failure, monkeypatch):
    cluster_id, failures = uuid4(), [FAILURES[failure]]

    async def in_database(*_):
        if failures:
            raise failures.pop()
        return {cluster_id}

    monkeypatch.setattr(waiting, "in_database", in_database)

    assert await waiting.WaitingRoom().wait(cluster_id, uuid4(), 20) is Woken.BY_WORK
    assert failures == []


def test_given_more_heartbeats_than_a_minute_may_hold_when_counted_then_the_rest_take_the_long_road():
    pace = road.Pace(2)

    assert [pace.allows("a"), pace.allows("a"), pace.allows("a"), pace.allows("b")] == [
        True,
        True,
        False,
        True,
    ]
