import time
from uuid import uuid4

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.db import connection
from django.urls import path

from agentapi.consumers import AgentConsumer
from agentapi.models import APIKey
from agentapi.services import keys, waiting
from agentapi.services.waiting import in_database
from clusters.models import Cluster
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant

APPLICATION = URLRouter([path("ws/agent/<uuid:cluster_id>", AgentConsumer.as_asgi())])
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


@pytest.fixture(autouse=True)
def _short_connections(monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    yield
    time.sleep(waiting.BEAT_SECONDS * 2)


def socket_of(cluster_id, token):
    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    return WebsocketCommunicator(APPLICATION, f"/ws/agent/{cluster_id}", headers=headers)


async def test_given_an_agents_socket_when_an_action_is_requested_then_it_is_told_at_once(
    cluster, registered, make_action
):
    socket = socket_of(cluster.pk, registered)
    assert (await socket.connect())[0]

    await in_database(make_action, 1)

    assert await socket.receive_json_from(timeout=2) == {"type": "action_command"}
    await socket.disconnect()


@pytest.mark.parametrize("sent", [{"text_data": "nonsense"}, {"bytes_data": b"\x00"}])
async def test_given_an_agents_socket_when_it_sends_what_is_no_message_then_it_still_hears_of_work(
    sent, cluster, registered, make_action
):
    socket = socket_of(cluster.pk, registered)
    assert (await socket.connect())[0]

    await socket.send_to(**sent)
    await in_database(make_action, 1)

    assert await socket.receive_json_from(timeout=2) == {"type": "action_command"}
    await socket.disconnect()


async def test_z08_given_an_agents_socket_when_its_key_is_revoked_then_it_closes_within_five_seconds(
    cluster, registered
):
    socket = socket_of(cluster.pk, registered)
    assert (await socket.connect())[0]

    await in_database(APIKey.unscoped.update, revoked_at=utcnow())

    assert await socket.receive_output(timeout=5) == {"type": "websocket.close", "code": 4401}


@pytest.mark.parametrize("who", ["nobody", "unknown", "foreign", "bootstrap"])
async def test_z09_given_no_key_of_this_cluster_when_a_socket_is_opened_then_it_is_refused(
    who, cluster, registered, bootstrap_of_another
):
    token, cluster_id = {
        "nobody": ("", cluster.pk),
        "unknown": ("so_unknown", cluster.pk),
        "foreign": (registered, uuid4()),
        "bootstrap": bootstrap_of_another,
    }[who]

    socket = socket_of(cluster_id, token)

    assert (await socket.connect())[0] is False


@pytest.fixture
def bootstrap_of_another(acme, owner_actor, cluster):
    with tenant(acme.pk):
        other = Cluster.objects.create(
            organization=acme, account_id=cluster.account_id, name="other", region="us-east-1"
        )
        return keys.issue_bootstrap_key(cluster=other, actor=owner_actor).token, other.pk
