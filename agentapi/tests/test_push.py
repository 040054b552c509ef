import asyncio
import json
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

from agentapi.agent import push as pushing
from agentapi.agent.backend import Backend
from agentapi.agent.clock import Clock
from agentapi.agent.push import Push
from simulator.tests.world.standin import free_port

pytestmark = pytest.mark.asyncio


class Product:
    """A socket that sends what it is told to, one script for each connection, and then closes."""

    def __init__(self, *scripts):
        self.scripts, self.seen = list(scripts), []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "websocket":
            return
        self.seen.append((scope["path"], dict(scope["headers"]).get(b"authorization")))
        await receive()
        if not self.scripts:
            await send({"type": "websocket.close", "code": 4401})
            return
        await send({"type": "websocket.accept"})
        for message in self.scripts.pop(0):
            await send({"type": "websocket.send", "text": json.dumps(message)})
        await asyncio.sleep(0.3)
        await send({"type": "websocket.close", "code": 1000})


@contextmanager
def served(product):
    port = free_port()
    config = uvicorn.Config(product, host="127.0.0.1", port=port, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(5)


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came true")


async def test_given_a_product_that_pushes_when_listened_to_then_the_bell_rings_and_it_comes_back(
    monkeypatch,
):
    monkeypatch.setattr(pushing, "_FIRST_PAUSE", 0.05)
    product = Product([{"type": "action_command"}], [{"type": "ping"}, {"type": "unheard-of"}])
    with served(product) as url:
        clock = Clock()
        backend = Backend(api_url=url, cluster_id="c-1", token="so_key", clock=clock)
        push, asked_at = Push(backend), backend.last_contact
        work = asyncio.ensure_future(push.run())

        await until(lambda: push.is_connected and push.bell.is_set())
        assert backend.last_contact > asked_at
        await until(lambda: len(product.seen) >= 3)  # the third is refused, and so are those after it

        assert product.seen[0] == ("/ws/agent/c-1", b"Bearer so_key")
        await until(lambda: not push.is_connected)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await backend.close()
