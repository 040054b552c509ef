import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from agentapi import protocol
from agentapi.agent import collector as collecting
from agentapi.agent.backend import Unreachable
from agentapi.agent.collector import Collector
from agentapi.agent.kube import Kube
from agentapi.agent.view import View
from agentapi.tests.worlds import fast_world
from simulator.tests.world.standin import deployment

pytestmark = pytest.mark.asyncio


class Product:
    """Takes a snapshot only when it is let."""

    def __init__(self):
        self.asked, self.free = asyncio.Event(), asyncio.Event()
        self.taken = 0

    async def send_snapshot(self, snapshot):
        self.asked.set()
        await self.free.wait()
        self.taken += 1
        return protocol.SnapshotAnswer(acknowledged=snapshot.sequence), 1


async def test_given_a_snapshot_under_way_when_many_ask_then_they_share_the_next(tmp_path):
    with fast_world(deployment("web", 2)) as world:
        kube, product = await Kube.connect(world.settings(tmp_path)), Product()
        view = View(kube, world.clock)
        collector = Collector(
            view=view, backend=product, agent_id="a", clock=world.clock, period=30, resync=600
        )  # fmt: skip
        follow = [asyncio.ensure_future(each.run()) for each in view.reflectors]
        await view.synced()

        first = asyncio.ensure_future(collector.show())
        await product.asked.wait()
        others = [asyncio.ensure_future(collector.show()) for _ in range(5)]
        await asyncio.sleep(0)
        product.free.set()

        assert await asyncio.gather(first, *others) == [True] * 6
        assert product.taken == 2
        for each in follow:
            each.cancel()
        await asyncio.gather(*follow, return_exceptions=True)
        await kube.close()


class Hurried:
    """A clock whose sleeps take no time; it remembers how long they were asked to be."""

    def __init__(self, most):
        self.slept, self.most = [], most

    def seconds(self):
        return 0.0

    def now(self):
        return datetime(2026, 11, 1, tzinfo=UTC)

    async def sleep(self, seconds):
        self.slept.append(seconds)
        if len(self.slept) == self.most:
            raise asyncio.CancelledError


async def test_given_a_product_that_is_away_when_much_changes_then_it_is_asked_ever_more_slowly(monkeypatch):
    """Thousands of agents come back to it at once."""

    async def away(snapshot):
        raise Unreachable("away")

    async def at_once():
        return None

    monkeypatch.setattr(collecting, "draw", lambda view, before: protocol.State())
    monkeypatch.setattr(collecting, "spread", lambda seconds: seconds)
    changed, clock = asyncio.Event(), Hurried(6)
    changed.set()
    view = SimpleNamespace(synced=at_once, measure=at_once, is_live=True, changed=changed)
    product = SimpleNamespace(send_snapshot=away)
    collector = Collector(
        view=view, backend=product, agent_id="a", clock=clock, period=30, resync=600
    )  # fmt: skip

    with pytest.raises(asyncio.CancelledError):
        await collector.run()

    assert clock.slept == [3, 6, 12, 24, 30, 30]
