import asyncio

import pytest

from agentapi import protocol
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
