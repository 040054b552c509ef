import asyncio
from uuid import uuid4

import pytest
import pytest_asyncio
import redis
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.db import connections
from django.test import Client

from accounts.models import Membership, Organization, User
from clusters import consumers
from spotopt.asgi import application
from spotopt.core.live import announce, announce_now

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


@pytest_asyncio.fixture(autouse=True)
async def _no_connection_stays():
    yield
    await sync_to_async(connections.close_all)()


def team(name, email):
    owner = User.objects.create_user(email, "Correct-horse-9")
    organization = Organization.objects.create(name=name, slug=name.lower(), owner=owner)
    Membership.objects.create(user=owner, organization=organization, role=Membership.Role.OWNER)
    return organization


def socket_of(user, *, origin="http://127.0.0.1"):
    headers = [(b"origin", origin.encode()), (b"host", b"127.0.0.1")]
    if user is not None:
        client = Client()
        client.force_login(user)
        cookie = f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
        headers.append((b"cookie", cookie.encode()))
    return WebsocketCommunicator(application, "/ws/live/", headers=headers)


@sync_to_async
def tell(organization):
    announce(organization_id=organization.pk, topic="plan", plan_id="p1")


async def test_given_two_organizations_when_one_is_told_then_only_its_own_socket_hears():
    acme = await sync_to_async(team)("Acme", "alice@acme.test")
    rival = await sync_to_async(team)("Rival", "mallory@rival.test")
    ours = await sync_to_async(socket_of)(acme.owner)
    theirs = await sync_to_async(socket_of)(rival.owner)
    assert (await ours.connect())[0]
    assert (await theirs.connect())[0]

    await tell(acme)

    assert await ours.receive_json_from(timeout=5) == {"topic": "plan", "plan_id": "p1"}
    assert await theirs.receive_nothing(timeout=0.3)
    await ours.disconnect()
    await theirs.disconnect()


async def test_given_many_pushes_when_sent_by_threads_then_they_share_one_connection():
    organization_id = uuid4()
    store = redis.Redis.from_url(settings.REDIS_URL)
    assert await sync_to_async(announce_now)(organization_id=organization_id, topic="plan")
    before = store.info("stats")["total_connections_received"]

    sent = await asyncio.gather(
        *(
            sync_to_async(announce_now, thread_sensitive=False)(organization_id=organization_id, topic="plan")
            for _ in range(10)
        )
    )

    assert sent == [True] * 10
    assert store.info("stats")["total_connections_received"] == before
    store.close()


async def test_given_no_channel_layer_in_reach_when_pushed_then_it_says_so(monkeypatch):
    class Away:
        async def group_send(self, group, message):
            raise ConnectionError

    monkeypatch.setattr("spotopt.core.live.get_channel_layer", Away)

    assert not await sync_to_async(announce_now)(organization_id=uuid4(), topic="plan")


async def test_given_nobody_when_the_socket_opens_then_it_is_closed_with_our_code():
    socket = await sync_to_async(socket_of)(None)
    await socket.connect()

    assert await socket.receive_output(timeout=5) == {"type": "websocket.close", "code": 4401}


async def test_given_a_foreign_origin_when_the_socket_opens_then_it_is_refused():
    acme = await sync_to_async(team)("Acme", "alice@acme.test")
    socket = await sync_to_async(socket_of)(acme.owner, origin="https://evil.test")

    assert (await socket.connect())[0] is False


@pytest.mark.parametrize("way", ["removed", "closed"])
async def test_given_a_member_who_left_when_something_is_told_then_their_socket_closes(way, monkeypatch):
    monkeypatch.setattr(consumers, "RECHECKED_AFTER_SECONDS", 0.0)
    acme = await sync_to_async(team)("Acme", "alice@acme.test")
    socket = await sync_to_async(socket_of)(acme.owner)
    assert (await socket.connect())[0]
    if way == "removed":
        await Membership.objects.filter(user=acme.owner).adelete()
    else:
        await User.objects.filter(pk=acme.owner.pk).aupdate(is_active=False)

    await tell(acme)

    assert await socket.receive_output(timeout=5) == {"type": "websocket.close", "code": 4401}
