"""Tell an organization's open pages that something changed."""

import logging
from functools import partial
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


def group_of(organization_id: UUID) -> str:
    """Return the channel-layer group that an organization's sockets join."""
    return f"organization.{organization_id}"


def announce(*, organization_id: UUID, topic: str, **facts: str) -> None:
    """Push ``{"topic": …, **facts}`` to the organization's sockets when the transaction commits.

    Best effort: pages also poll, so that a lost push only delays a refresh.
    """
    transaction.on_commit(partial(announce_now, organization_id=organization_id, topic=topic, **facts))


def announce_now(*, organization_id: UUID, topic: str, **facts: str) -> bool:
    """Push at once, and tell whether the channel layer took it."""
    layer = get_channel_layer()
    if layer is None:
        return False
    message: dict[str, object] = {"type": "live.event", "topic": topic, "facts": facts}
    try:
        async_to_sync(layer.group_send)(group_of(organization_id), message)
    except (RedisError, OSError):
        logger.warning("Channel layer unreachable; pages will poll.")
        return False
    return True
