"""Let thousands of agents wait for work without a database connection or a thread each."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import DatabaseError, close_old_connections

from clusters.models import Action
from spotopt.core.clock import utcnow

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
"""On the wall: how long new work waits at most before it is noticed."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="agent-claims")


async def in_database(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run blocking database work on one of a few threads, whose connections are shared by all requests."""

    def run() -> _T:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return await sync_to_async(run, thread_sensitive=False, executor=_threads)()


class WaitingRoom:
    """Wakes those who wait for a cluster's actions; costs one query a beat, however many wait."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, set[asyncio.Event]] = {}
        self._beat: asyncio.Task[None] | None = None

    async def wait(self, cluster_id: UUID, seconds: float) -> bool:
        """Return True as soon as an action waits for the cluster's agent, False after ``seconds``."""
        bell = asyncio.Event()
        self._waiting.setdefault(cluster_id, set()).add(bell)
        if self._beat is None or self._beat.done():
            self._beat = asyncio.get_running_loop().create_task(self._ring())
        try:
            await asyncio.wait_for(bell.wait(), seconds)
        except TimeoutError:
            return False
        finally:
            self._leave(cluster_id, bell)
        return True

    def _leave(self, cluster_id: UUID, bell: asyncio.Event) -> None:
        bells = self._waiting[cluster_id]
        bells.discard(bell)
        if not bells:
            del self._waiting[cluster_id]

    async def _ring(self) -> None:
        while self._waiting:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                ready = await in_database(_with_work, list(self._waiting))
            except DatabaseError:
                logger.warning("Database unreachable; waiting agents keep waiting.")
                continue
            for cluster_id in ready:
                for bell in self._waiting.get(cluster_id, ()):
                    bell.set()


def _with_work(cluster_ids: list[UUID]) -> set[UUID]:
    """Return which of the clusters, of any organization, have actions that wait for their agent."""
    waiting = Action.unscoped.filter(
        route=Action.Route.AGENT,
        status=Action.Status.PENDING,
        cluster_id__in=cluster_ids,
        expires_at__gt=utcnow(),
    )
    return set(waiting.values_list("cluster_id", flat=True))


_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, WaitingRoom] = WeakKeyDictionary()


def waiting_room() -> WaitingRoom:
    """Return the room of the running event loop."""
    return _rooms.setdefault(asyncio.get_running_loop(), WaitingRoom())
