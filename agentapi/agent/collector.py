"""Tell the product what the cluster looks like: often in small, now and then in full."""

import asyncio
import contextlib
import logging
from datetime import datetime

from agentapi import protocol
from agentapi.agent.backend import Backend, Refused, Unreachable
from agentapi.agent.clock import Clock
from agentapi.agent.pauses import spread
from agentapi.agent.picture import draw
from agentapi.agent.view import View

logger = logging.getLogger(__name__)

_SPACING = 3.0
"""Least seconds between two snapshots that nothing but change asks for."""
_SHOW_TIMEOUT = 20.0
"""On the wall: how long a finished command waits for the product to see its effect."""


class Collector:
    """Draws the state, sends what changed, and keeps what the server is known to hold."""

    def __init__(
        self, *, view: View, backend: Backend, agent_id: str, clock: Clock, period: float, resync: float
    ) -> None:
        self._view, self._backend, self._agent_id, self._clock = view, backend, agent_id, clock
        self._period, self._resync = period, resync
        self._held = protocol.State()
        self._base: int | None = None
        self._sequence = int(clock.seconds() * 1000)
        self._full_at = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._next: asyncio.Future[bool] | None = None
        """The snapshot that has not begun yet; all who ask until then share it."""
        self.last_collection_at: datetime | None = None
        self.sent_count = self.sent_bytes = 0

    async def run(self) -> None:
        """Collect every period, and soon after a node changed, until cancelled.

        While the product takes nothing it is asked ever more slowly, whatever changes.
        """
        await self._view.synced()
        spacing = pause = min(_SPACING, self._period)
        while True:
            if not await self.collect():
                await self._clock.sleep(spread(pause))
                pause = min(pause * 2, self._period)
                continue
            pause = spacing
            await self._clock.sleep(spacing)
            with contextlib.suppress(TimeoutError):
                rest = self._clock.on_wall(self._period - spacing)
                await asyncio.wait_for(self._view.changed.wait(), rest)

    async def show(self) -> bool:
        """Let the product see what is there now; tell whether it did, and soon."""
        try:
            async with asyncio.timeout(_SHOW_TIMEOUT):
                await self._view.synced()
                return await self.collect()
        except TimeoutError:
            return False

    async def collect(self) -> bool:
        """Send one snapshot of what is there now and tell whether it was taken."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._collect())
        return await asyncio.shield(self._next)

    async def _collect(self) -> bool:
        async with self._one_at_a_time:
            self._next = None
            if not self._view.is_live:
                logger.warning("The copy of the cluster is stale; nothing is reported from it.")
                return False
            self._view.changed.clear()
            await self._view.measure()
            try:
                await self._send()
            except (Unreachable, Refused) as error:
                logger.warning("Snapshot not taken: %s", error)
                self._base = None if isinstance(error, Refused) else self._base
                return False
            return True

    async def _send(self) -> None:
        state = draw(self._view, self._held)
        now = self._clock.now()
        is_full = self._base is None or self._clock.seconds() - self._full_at >= self._resync
        self._sequence = max(self._sequence + 1, int(self._clock.seconds() * 1000))
        if is_full or self._base is None:
            snapshot = state.full(agent_id=self._agent_id, sequence=self._sequence, taken_at=now)
        else:
            snapshot = state.delta(
                self._held,
                agent_id=self._agent_id,
                sequence=self._sequence,
                base=self._base,
                taken_at=now,
            )
        answer, size = await self._backend.send_snapshot(snapshot)
        self.sent_count += 1
        self.sent_bytes += size
        if answer.resync:
            self._base = None
            if not is_full:
                await self._send()
            return
        self._base = answer.acknowledged
        self._held = state.without_nodes(frozenset(answer.unknown_nodes))
        if is_full:
            self._full_at = self._clock.seconds()
        self.last_collection_at = now
