"""Fetch commands: at once when the product pushes, by a hanging claim while it cannot."""

import asyncio
import contextlib
import time

from agentapi import protocol
from agentapi.agent.backend import LONG_POLL_SECONDS, Backend, Refused, Unreachable
from agentapi.agent.enrolment import FIRST_PAUSE, LONGEST_PAUSE
from agentapi.agent.executor import Executor
from agentapi.agent.heart import Heart
from agentapi.agent.memory import Journal
from agentapi.agent.pauses import spread
from agentapi.agent.push import Push

PUSHED_POLL_SECONDS = 60.0
"""On the wall: how often is asked although nothing was pushed."""

MOST_AT_ONCE = 10
"""Commands in one claim."""


class Claims:
    """Claims commands and begins them."""

    def __init__(
        self, backend: Backend, executor: Executor, journal: Journal, heart: Heart, push: Push
    ) -> None:
        self._backend, self._executor, self._journal = backend, executor, journal
        self._heart, self._push = heart, push

    async def run(self) -> None:
        """Claim until cancelled."""
        pause = FIRST_PAUSE
        while True:
            if self._heart.is_superseded or self._executor.free_slots <= 0:
                await asyncio.sleep(FIRST_PAUSE)
                continue
            try:
                asked_at = time.monotonic()
                found = await self._claim()
                pause = FIRST_PAUSE
                if not found and not self._push.is_connected and time.monotonic() - asked_at < 1:
                    await asyncio.sleep(FIRST_PAUSE)
            except (Refused, Unreachable) as error:
                self._heart.note(error)
                await asyncio.sleep(spread(pause))
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _claim(self) -> bool:
        """Claim once, after a push or for as long as the product lets a claim hang; tell whether any came."""
        is_pushed = self._push.is_connected
        commands = await self._backend.claim(
            protocol.Claim(
                agent_id=self._executor.agent_id,
                limit=min(self._executor.free_slots, MOST_AT_ONCE),
                wait_seconds=0 if is_pushed else LONG_POLL_SECONDS,
                known_actions=self._journal.known_actions,
            )
        )
        if commands:
            self._executor.accept(*commands)
        if is_pushed and not commands:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._push.bell.wait(), PUSHED_POLL_SECONDS)
            self._push.bell.clear()
        return bool(commands)
