import asyncio
from types import SimpleNamespace

import pytest

from agentapi import protocol
from agentapi.agent.clock import Clock
from agentapi.agent.heart import Heart

pytestmark = pytest.mark.asyncio


async def test_given_a_clock_that_is_ahead_when_it_beats_then_that_is_told(caplog):
    """Its commands would all seem to have expired."""
    beaten = asyncio.Event()

    async def heartbeat(sign):
        beaten.set()
        return protocol.HeartbeatAnswer(clock_skew_seconds=400)

    enrolment = SimpleNamespace(identity=SimpleNamespace(agent_id="agent-0000-0001"))
    heart = Heart(SimpleNamespace(heartbeat=heartbeat), Clock(), enrolment, "spot-optimizer")
    view = SimpleNamespace(nodes=SimpleNamespace(items={}), is_live=True)
    collector, executor = SimpleNamespace(last_collection_at=None), SimpleNamespace(running_actions=())
    work = asyncio.ensure_future(heart.run(view, collector, executor, 30))
    await beaten.wait()
    await asyncio.sleep(0)
    work.cancel()

    assert heart.clock_ahead_seconds == 400
    assert "400 s ahead" in caplog.text
