import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest

from agentapi.agent.kube import AT_ONCE, Kube

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


async def test_given_hundreds_of_requests_when_asked_at_once_then_few_wait_in_the_transport():
    transport = Transport()
    kube = Kube(transport)
    leader = kube.while_allowed(lambda: True)

    await asyncio.gather(*(each.get("/api/v1/nodes/a") for each in (kube, leader) for _ in range(100)))

    assert transport.most == AT_ONCE
