"""The socket over which an agent hears at once that something waits for it."""

import asyncio
import contextlib
from typing import Any
from uuid import UUID

from channels.generic.websocket import AsyncJsonWebsocketConsumer

from agentapi.authentication import AgentIdentity, identify_caller
from agentapi.permissions import IsAgent
from agentapi.services import waiting
from agentapi.services.waiting import Woken
from spotopt.core.errors import SpotOptError

NOT_TRUSTED = 4401
PING_SECONDS = 20.0
AGAIN_SECONDS = 1.0
"""How long the agent is given to fetch what it was told of before it is told again."""


class AgentConsumer(AsyncJsonWebsocketConsumer):
    """Sends ``{"type": "action_command"}`` when work waits, and a ping every 20 seconds.

    Work itself is claimed over HTTP. The socket closes with 4401 within seconds of its key's end.
    """

    _watch: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Let the agent of the cluster in the path in, by its ``Authorization`` header alone."""
        headers = {name: value.decode("latin-1") for name, value in self.scope["headers"]}
        cluster_id: UUID = self.scope["url_route"]["kwargs"]["cluster_id"]
        try:
            identity = await waiting.in_database(_identify, headers.get(b"authorization", ""), cluster_id)
        except SpotOptError:
            await self.close(code=NOT_TRUSTED)
            return
        await self.accept()
        self._watch = asyncio.create_task(self._push(identity))

    async def disconnect(self, code: int) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch

    async def receive(
        self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any
    ) -> None:
        """Take pongs for what they are, a sign that the socket still carries, and read nothing of them."""

    async def _push(self, identity: AgentIdentity) -> None:
        room = waiting.waiting_room()
        while True:
            woken = await room.wait(identity.cluster_id, identity.key.pk, PING_SECONDS)
            if woken is Woken.BY_REVOCATION:
                await self.close(code=NOT_TRUSTED)
                return
            await self.send_json({"type": "action_command" if woken is Woken.BY_WORK else "ping"})
            if woken is Woken.BY_WORK:
                await asyncio.sleep(AGAIN_SECONDS)


def _identify(authorization: str, cluster_id: UUID) -> AgentIdentity:
    identity = identify_caller(authorization, cluster_id)
    IsAgent.require(identity)
    return identity
