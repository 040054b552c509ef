from datetime import timedelta

import pytest
import time_machine

from agentapi import protocol, tasks
from agentapi.models import AgentAction, AgentInstance, APIKey
from agentapi.services import keys
from agentapi.tests.conftest import AGENT_ID
from audit.models import AuditLog
from clusters.models import Action, Cluster
from spotopt.core import crypto
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant


def events(cluster):
    with tenant(cluster.organization_id):
        return list(AuditLog.objects.order_by("seq").values_list("event", flat=True))


def sign(agent_id=AGENT_ID, **fields):
    return protocol.dump(protocol.Heartbeat(agent_id=agent_id, version="1.0.0", node_count=3, **fields))


def test_given_a_bootstrap_key_when_an_agent_registers_then_it_gets_a_key_that_works(
    cluster, bootstrap, registration, speak
):
    answer = speak(cluster.pk, "agent/register", registration, bootstrap)

    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    registered = protocol.parse(protocol.Registered, answer.json())
    assert registered.agent_key.startswith("so_")
    assert registered.signing_public_key == crypto.public_key()
    assert registered.cluster_id == str(cluster.pk)
    assert speak(cluster.pk, "heartbeat", sign(), registered.agent_key).status_code == 200
    cluster.refresh_from_db()
    assert (cluster.agent_installed, cluster.agent_version, cluster.status) == (
        True,
        "1.0.0",
        Cluster.Status.PENDING,
    )
    assert "agentapi.agent.registered" in events(cluster)


def test_z08_given_a_used_bootstrap_key_when_used_again_then_it_is_refused_and_nothing_changes(
    cluster, bootstrap, registration, speak
):
    speak(cluster.pk, "agent/register", registration, bootstrap)
    other = registration | {"agent_id": "agent-of-a-thief"}

    answer = speak(cluster.pk, "agent/register", other, bootstrap)

    assert answer.status_code == 401
    assert answer.json()["code"] == "key_used"
    with tenant(cluster.organization_id):
        assert list(AgentInstance.objects.values_list("agent_id", flat=True)) == [AGENT_ID]
        assert APIKey.objects.filter(kind=APIKey.Kind.AGENT).count() == 1


def test_given_an_agent_when_another_registers_then_the_first_is_superseded(
    cluster, registered, registration, speak
):
    speak(cluster.pk, "agent/register", registration | {"agent_id": "agent-number-two"}, registered)

    answer = speak(cluster.pk, "heartbeat", sign(), registered)

    assert answer.status_code == 409
    assert answer.json()["code"] == "superseded"
    assert speak(cluster.pk, "heartbeat", sign("agent-number-two"), registered).status_code == 200


def test_given_a_new_installation_when_it_registers_then_keys_of_the_old_one_stop(
    cluster, agent_token, bootstrap, registration, speak
):
    speak(cluster.pk, "agent/register", registration, bootstrap)

    answer = speak(cluster.pk, "heartbeat", sign(), agent_token)

    assert (answer.status_code, answer.json()["code"]) == (401, "key_revoked")


def test_given_another_protocol_when_registering_then_an_upgrade_is_asked_for_and_heartbeats_are_taken(
    cluster, agent_token, registration, speak
):
    answer = speak(cluster.pk, "agent/register", registration | {"protocol": 99}, agent_token)

    assert answer.json()["upgrade_required"] is True
    assert speak(cluster.pk, "heartbeat", sign(), agent_token).status_code == 200


def test_given_an_agent_that_never_registered_when_it_beats_then_it_is_told_to_register(
    cluster, agent_token, speak
):
    answer = speak(cluster.pk, "heartbeat", sign(), agent_token)

    assert (answer.status_code, answer.json()["code"]) == (409, "unregistered")


def test_given_waiting_actions_when_the_agent_beats_then_it_is_told_how_many_and_its_clock_skew(
    cluster, registered, make_action, speak
):
    make_action(1)
    make_action(2)

    answer = speak(cluster.pk, "heartbeat", sign(sent_at=utcnow() + timedelta(seconds=90)), registered)

    assert answer.json()["ack"] is True
    assert answer.json()["pending_actions"] == 2
    assert 85 <= answer.json()["clock_skew_seconds"] <= 91


def test_given_a_heartbeat_when_counted_then_it_costs_few_queries(
    cluster, registered, speak, django_assert_num_queries
):
    speak(cluster.pk, "heartbeat", sign(), registered)

    with django_assert_num_queries(5):
        speak(cluster.pk, "heartbeat", sign(), registered)


def test_given_a_silent_agent_when_ticked_twice_then_it_is_offline_and_recorded_once(
    cluster, registered, speak
):
    with time_machine.travel(utcnow() + timedelta(seconds=61), tick=False):
        assert tasks.mark_silent_agents() == 1
        assert tasks.mark_silent_agents() == 0

        assert events(cluster).count("agentapi.agent.silent") == 1
        assert speak(cluster.pk, "heartbeat", sign(), registered).status_code == 200
    with tenant(cluster.organization_id):
        assert AgentInstance.objects.get().status == AgentInstance.Status.ONLINE
    assert events(cluster).count("agentapi.agent.returned") == 1


def test_given_a_living_agent_when_ticked_then_it_stays_online(cluster, registered):
    assert tasks.mark_silent_agents() == 0

    with tenant(cluster.organization_id):
        assert AgentInstance.objects.get().status == AgentInstance.Status.ONLINE


def test_given_an_agent_when_it_says_goodbye_then_it_is_offline_at_once(cluster, registered, speak):
    answer = speak(cluster.pk, "agent/deregister", {"agent_id": AGENT_ID}, registered)

    assert answer.status_code == 204
    with tenant(cluster.organization_id):
        assert AgentInstance.objects.get().status == AgentInstance.Status.OFFLINE
    assert events(cluster)[-1] == "agentapi.agent.stopped"


def test_given_a_delivery_whose_action_was_reaped_when_ticked_then_the_delivery_is_closed(
    cluster, registered, make_action
):
    action = make_action(status=Action.Status.FAILED)
    with tenant(cluster.organization_id):
        delivery = AgentAction.objects.create(
            organization_id=cluster.organization_id,
            cluster=cluster,
            action=action,
            nonce="n",
            status=AgentAction.Status.PICKED_UP,
            expires_at=action.expires_at,
        )

    tasks.mark_silent_agents()

    delivery.refresh_from_db()
    assert delivery.status == AgentAction.Status.FAILED


@pytest.mark.parametrize("kind", ["bootstrap", "agent_token"])
def test_given_a_revoked_key_when_used_then_it_is_refused(kind, cluster, registration, speak, request):
    token, owner_actor = request.getfixturevalue(kind), request.getfixturevalue("owner_actor")
    with tenant(cluster.organization_id):
        key = APIKey.objects.get(key_hash=crypto.digest(token))
        keys.revoke_key(cluster=cluster, key_id=key.pk, actor=owner_actor)
        keys.revoke_key(cluster=cluster, key_id=key.pk, actor=owner_actor)

    answer = speak(cluster.pk, "agent/register", registration, token)

    assert (answer.status_code, answer.json()["code"]) == (401, "key_revoked")
    assert events(cluster).count("agentapi.key.revoked") == 1
