"""The socket over which open pages hear that something changed."""

import time
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from accounts.constants import ACTIVE_ORGANIZATION_SESSION_KEY
from accounts.models import Membership, User
from accounts.selectors import membership_of
from spotopt.core.live import group_of

NOT_SIGNED_IN = 4401
RECHECKED_AFTER_SECONDS = 5.0
"""A member who was removed, or whose user was closed, hears nothing more after this long."""


class LiveConsumer(AsyncJsonWebsocketConsumer):
    """Sends ``{"topic": …, **facts}`` of one organization to a signed-in member; hears nothing."""

    group = ""
    checked_at = 0.0

    async def connect(self) -> None:
        """Join the group of the member's organization, or close with 4401."""
        membership = await self._membership()
        if membership is None:
            await self.accept()
            await self.close(code=NOT_SIGNED_IN)
            return
        self.group, self.checked_at = group_of(membership.organization_id), time.monotonic()
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Leave the group."""
        if self.group:
            await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        """Ignore what clients say; the socket only tells."""

    async def live_event(self, message: dict[str, Any]) -> None:
        """Pass one announcement on, to somebody who still may hear it."""
        if time.monotonic() - self.checked_at > RECHECKED_AFTER_SECONDS:
            membership = await self._membership()
            if membership is None or group_of(membership.organization_id) != self.group:
                await self.close(code=NOT_SIGNED_IN)
                return
            self.checked_at = time.monotonic()
        await self.send_json({"topic": message["topic"], **message["facts"]})

    @database_sync_to_async  # type: ignore[untyped-decorator]  # Channels is not typed
    def _membership(self) -> Membership | None:
        user = self.scope.get("user")
        if not isinstance(user, User) or not User.objects.filter(pk=user.pk, is_active=True).exists():
            return None
        chosen = self.scope["session"].get(ACTIVE_ORGANIZATION_SESSION_KEY)
        return membership_of(user, UUID(chosen) if chosen else None)
