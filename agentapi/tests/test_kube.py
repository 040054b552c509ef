import asyncio
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
import pytest

from agentapi.agent.kube import AT_ONCE, Kube, KubeError, KubeUnreachable
from agentapi.agent.view import View
from agentapi.tests.test_notices import until
from agentapi.tests.worlds import fast_world
from simulator.tests.world.standin import deployment

pytestmark = pytest.mark.asyncio


class Transport:
    """Answers after everybody else had a turn, and counts how many wait for it."""

    def __init__(self):
        self.waiting = self.most = 0

    @asynccontextmanager
    async def call_api(self, method, **_):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.01)
        yield httpx.Response(200, content=b"{}")
        self.waiting -= 1


class Answers:
    """Gives the answers that it was given, and a new token whenever it is asked to log in."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []
        self.auth = SimpleNamespace(token="old", reauthenticate=self._log_in)
        self._session = httpx.AsyncClient()

    async def _log_in(self):
        self.auth.token = "new"

    @asynccontextmanager
    async def call_api(self, method, **options):
        self.asked.append((method, self._session.headers.get("Authorization")))
        yield self.answers.pop(0)


async def test_given_hundreds_of_requests_when_asked_at_once_then_few_wait_in_the_transport():
    transport = Transport()
    kube = Kube(transport)
    leader = kube.while_allowed(lambda: True)

    await asyncio.gather(*(each.get("/api/v1/nodes/a") for each in (kube, leader) for _ in range(100)))

    assert transport.most == AT_ONCE


async def test_given_texts_with_separators_of_lines_when_watched_then_each_event_is_read_whole():
    """Anybody may write such a character into an annotation; no copy may stand still for it."""
    events = [{"type": "ADDED", "object": {"text": f"a{mark}b"}} for mark in "\x85\u2028\u2029"]
    body = b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in events)

    async with Kube(Answers(httpx.Response(200, content=body))).watch("/api/v1/pods", "1") as told:
        assert [event async for event in told] == events


async def test_given_a_refusal_when_others_watch_then_it_is_asked_for_once_and_their_watches_go_on(tmp_path):
    with fast_world(deployment("web", 2)) as world:
        kube = await Kube.connect(world.settings(tmp_path))
        view = View(kube, world.clock)
        work = [asyncio.ensure_future(each.run()) for each in view.reflectors]
        await view.synced()
        await until(lambda: watches(world) == len(work))

        with pytest.raises(KubeError) as refusal:
            await kube.create("/api/v1/namespaces/default/pods", {"metadata": {"name": "a"}})
        await kube.patch(f"/api/v1/nodes/{world.busiest()}", {"metadata": {"labels": {"acme.io/a": "b"}}})
        await until(lambda: any("acme.io/a" in node.labels for node in view.nodes.items.values()))

        assert refusal.value.status == 403
        assert (watches(world), view.is_live) == (len(work), True)
        for each in work:
            each.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await kube.close()


def watches(world):
    with world.served.control() as control:
        rows = control.get("/clusters/test/accesses").json()["accesses"]
    return sum(row["count"] for row in rows if row["verb"] == "watch")


@pytest.mark.parametrize("method", ["get", "create"])
async def test_given_a_token_that_ran_out_when_asked_then_the_new_one_is_read_and_it_is_asked_again(method):
    transport = Answers(httpx.Response(401, json={}), httpx.Response(200, content=b"{}"))
    arguments = [{}] if method == "create" else []

    assert await getattr(Kube(transport), method)("/api/v1/pods", *arguments) == {}

    assert [authorization for _, authorization in transport.asked] == [None, "Bearer new"]


async def test_given_a_lease_that_is_lost_while_a_write_waits_for_its_turn_then_it_is_not_sent():
    transport, turns = Answers(httpx.Response(200, content=b"{}")), asyncio.Semaphore(1)
    leads = [True]
    kube = Kube(transport, lambda: leads[0], turns)
    async with turns:
        write = asyncio.ensure_future(kube.patch("/api/v1/nodes/a", {}))
        await asyncio.sleep(0)
        leads[0] = False

    with pytest.raises(KubeUnreachable):
        await write
    assert transport.asked == []
