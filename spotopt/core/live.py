"""Tell an organization's open pages that something changed."""

import asyncio
import logging
import os
import threading
from concurrent.futures import Future
from functools import cache, partial
from uuid import UUID

from channels.layers import get_channel_layer
from django.db import transaction
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""A channel layer that has not taken a message after this long is taken for unreachable."""


def group_of(organization_id: UUID) -> str:
    """Return the channel-layer group that an organization's sockets join."""
    return f"organization.{organization_id}"


def announce(*, organization_id: UUID, topic: str, **facts: str) -> None:
    """Push ``{"topic": …, **facts}`` to the organization's sockets when the transaction commits.

    Best effort: pages also poll, so that a lost push only delays a refresh. Nobody waits for the push.
    """
    transaction.on_commit(partial(_push_and_go_on, organization_id, topic, facts))


def announce_now(*, organization_id: UUID, topic: str, **facts: str) -> bool:
    """Push at once, and tell whether the channel layer took it."""
    return _push(organization_id, topic, facts).result()


def _push_and_go_on(organization_id: UUID, topic: str, facts: dict[str, str]) -> None:
    _push(organization_id, topic, facts).add_done_callback(_tell_defects)


def _push(organization_id: UUID, topic: str, facts: dict[str, str]) -> Future[bool]:
    message: dict[str, object] = {"type": "live.event", "topic": topic, "facts": facts}
    return asyncio.run_coroutine_threadsafe(_send(group_of(organization_id), message), _loop_of(os.getpid()))


def _tell_defects(pushed: Future[bool]) -> None:
    if error := pushed.exception():
        logger.error("A push failed.", exc_info=error)


async def _send(group: str, message: dict[str, object]) -> bool:
    layer = get_channel_layer()
    if layer is None:
        return False
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await layer.group_send(group, message)
    except (RedisError, OSError):  # a timeout is an OSError
        logger.warning("Channel layer unreachable; pages will poll.")
        return False
    return True


@cache
def _loop_of(_process: int) -> asyncio.AbstractEventLoop:
    """Return the loop that sends for this process, on a thread of its own: it keeps its connection to Redis.

    A loop for each call, as ``async_to_sync`` opens in a worker's thread, connects anew each time. The thread
    of a parent does not live on in a forked child.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="live", daemon=True).start()
    return loop
