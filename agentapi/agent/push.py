"""The socket over which the product says that there is something to fetch; fetching stays with HTTP."""

import asyncio
import json
import logging

import httpx
from httpx_ws import AsyncWebSocketSession, HTTPXWSException, aconnect_ws
from wsproto.utilities import ProtocolError

from agentapi.agent.backend import Backend
from agentapi.agent.pauses import spread

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""On the wall, between attempts to connect: 1, 2, 4, 8 … 60 seconds."""
_SILENCE_SECONDS = 60.0
"""On the wall: three missed pings of the product mean that the socket is dead."""


class Push:
    """Rings a bell whenever the product pushes; while it cannot, claims hang instead."""

    def __init__(self, backend: Backend) -> None:
        self.bell = asyncio.Event()
        self.is_connected = False
        self._backend = backend

    async def run(self) -> None:
        """Stay connected until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            try:
                socket: AsyncWebSocketSession
                url, headers = self._backend.socket_url, self._backend.authorization
                async with aconnect_ws(url, headers=headers, keepalive_ping_interval_seconds=None) as socket:
                    self.is_connected = True
                    pause = _FIRST_PAUSE
                    await self._listen(socket)
            except* (httpx.HTTPError, HTTPXWSException, ProtocolError, TimeoutError, OSError) as errors:
                logger.info("No push from the product: %r", errors.exceptions[0])
            finally:
                self.is_connected = False
                self.bell.set()  # whoever waits for it polls now
            await asyncio.sleep(spread(pause))
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _listen(self, socket: AsyncWebSocketSession) -> None:
        while True:
            text = await socket.receive_text(timeout=_SILENCE_SECONDS)
            self._backend.heard()
            if _kind(text) in ("action_command", "config_update"):
                self.bell.set()
            elif _kind(text) == "ping":
                await socket.send_text('{"type":"pong"}')


def _kind(text: str) -> str:
    try:
        message = json.loads(text)
    except ValueError:
        return ""
    return str(message.get("type", "")) if isinstance(message, dict) else ""
