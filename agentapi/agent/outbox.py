"""What the agent has to tell on its own account, kept until the product has heard it."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

from agentapi import protocol
from agentapi.agent.backend import Backend, Refused, Unreachable
from agentapi.agent.clock import Clock
from agentapi.agent.pauses import spread

logger = logging.getLogger(__name__)

KEPT = 1000
AT_ONCE = 100
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""On the wall, between attempts to reach the product."""


class Outbox:
    """Sends notices of interruptions first, then events; of very many events the oldest are dropped."""

    def __init__(
        self, backend: Backend, agent_id: str, clock: Clock, on_warned: Callable[[], None] = lambda: None
    ) -> None:
        self._backend, self._agent_id, self._clock = backend, agent_id, clock
        self._on_warned = on_warned
        """Called when the product has heard of notices: its reaction waits to be fetched."""
        self._events: deque[protocol.Event] = deque(maxlen=KEPT)
        self._notices: deque[protocol.InterruptionNotice] = deque(maxlen=KEPT)
        self._has_mail = asyncio.Event()

    def tell(self, event_type: str, severity: str, payload: Mapping[str, Any]) -> None:
        """Put an event on its way."""
        at = self._clock.now()
        self._events.append(protocol.Event(str(uuid4()), event_type, at, severity, dict(payload)))
        self._has_mail.set()

    def warn(self, notice: protocol.InterruptionNotice) -> None:
        """Put a notice on its way, at once."""
        self._notices.append(notice)
        self._has_mail.set()

    async def run(self) -> None:
        """Send until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            await self._has_mail.wait()
            try:
                await self.send()
                pause = _FIRST_PAUSE
            except Unreachable as error:
                logger.warning("Events wait: %s", error)
                await asyncio.sleep(spread(pause))
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def send(self) -> None:
        """Send what waits; raise Unreachable and keep it. What the product refuses is dropped."""
        self._has_mail.clear()
        try:
            while notices := list(self._notices)[:AT_ONCE]:
                await self._offer(self._backend.send_interruptions, protocol.Interruptions, notices)
                _drop(self._notices, len(notices))
                self._on_warned()
            while events := list(self._events)[:AT_ONCE]:
                await self._offer(self._backend.send_events, protocol.Events, events)
                _drop(self._events, len(events))
        except Unreachable:
            self._has_mail.set()
            raise

    async def _offer(self, send: Callable[[Any], Awaitable[None]], kind: type[Any], items: list[Any]) -> None:
        try:
            await send(kind(self._agent_id, tuple(items)))
        except Refused as error:
            logger.error("The product refuses %d reports: %s", len(items), error)  # noqa: TRY400


def _drop(queue: deque[Any], count: int) -> None:
    for _ in range(min(count, len(queue))):
        queue.popleft()
