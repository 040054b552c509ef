"""What the agent has to tell on its own account, kept until the product has heard it."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar
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
_AGAIN_SECONDS = 5.0
"""On the wall, until a notice of a node that the product does not know yet is sent again."""
NOTICE_LASTS = timedelta(minutes=5)
"""The product takes no older one."""
_UNKNOWN_NODE = "unknown_node"
_Answer = TypeVar("_Answer")


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
            except (Refused, Unreachable) as error:
                logger.warning("Events wait: %s", error)
                await asyncio.sleep(spread(pause))
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if self._notices:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._has_mail.wait(), _AGAIN_SECONDS)
                self._has_mail.set()

    async def send(self) -> None:
        """Send what waits; raise Unreachable or Refused and keep it, but drop what is refused for good."""
        self._has_mail.clear()
        try:
            await self._send_notices()
            while events := list(self._events)[:AT_ONCE]:
                await self._offer(self._backend.send_events, protocol.Events, events)
                _drop(self._events, len(events))
        except (Refused, Unreachable):
            self._has_mail.set()
            raise

    async def _send_notices(self) -> None:
        """Send each once; those of nodes that the product does not know yet wait for the next time."""
        oldest = self._clock.now() - NOTICE_LASTS
        self._notices = deque((each for each in self._notices if each.at > oldest), maxlen=KEPT)
        unknown: list[protocol.InterruptionNotice] = []
        try:
            while notices := list(self._notices)[:AT_ONCE]:
                answer = await self._offer(self._backend.send_interruptions, protocol.Interruptions, notices)
                _drop(self._notices, len(notices))
                self._on_warned()
                receptions = answer.receptions if answer else ()
                unknown += [
                    each
                    for each, reception in zip(notices, receptions, strict=False)
                    if reception == _UNKNOWN_NODE
                ]
        finally:
            self._notices.extend(unknown)

    async def _offer(
        self, send: Callable[[Any], Awaitable[_Answer]], kind: type[Any], items: list[Any]
    ) -> _Answer | None:
        try:
            return await send(kind(self._agent_id, tuple(items)))
        except Refused as error:
            if not error.is_final:
                raise
            logger.error("The product refuses %d reports: %s", len(items), error)  # noqa: TRY400
            return None


def _drop(queue: deque[Any], count: int) -> None:
    for _ in range(min(count, len(queue))):
        queue.popleft()
