"""Let thousands of agents wait for work without a database connection or a thread each."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import ParamSpec, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import Error, close_old_connections

from agentapi.services import keys
from clusters.models import Action
from spotopt.core.clock import utcnow

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
"""On the wall: how long new work waits at most before it is noticed."""
BEATS_PER_KEY_CHECK = 8
"""Every so many beats the keys of those who wait are looked at: a revoked one waits two seconds at most."""

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


class Woken(Enum):
    """Why a wait is over."""

    BY_WORK = "work"
    BY_REVOCATION = "revocation"
    BY_TIME = "time"


Bell = asyncio.Future[Woken]


class WaitingRoom:
    """Wakes those who wait for a cluster's actions; costs one query a beat, however many wait."""

    def __init__(self) -> None:
        self._by_cluster: dict[UUID, set[Bell]] = {}
        self._by_key: dict[UUID, set[Bell]] = {}
        self._beat: asyncio.Task[None] | None = None

    @property
    def is_anybody_waiting(self) -> bool:
        """Tell whether a request hangs in the room."""
        return bool(self._by_cluster)

    async def wait(self, cluster_id: UUID, key_id: UUID, seconds: float) -> Woken:
        """Return as soon as an action waits for the cluster's agent, or its key stops, or time is over."""
        loop = asyncio.get_running_loop()
        bell: Bell = loop.create_future()
        self._by_cluster.setdefault(cluster_id, set()).add(bell)
        self._by_key.setdefault(key_id, set()).add(bell)
        if self._beat is None or self._beat.done():
            self._beat = loop.create_task(self._ring())
        try:
            return await asyncio.wait_for(bell, seconds)
        except TimeoutError:
            return Woken.BY_TIME
        finally:
            _leave(self._by_cluster, cluster_id, bell)
            _leave(self._by_key, key_id, bell)

    async def _ring(self) -> None:
        beat = 0
        while self._by_cluster:
            await asyncio.sleep(BEAT_SECONDS)
            beat += 1
            try:
                ready = await in_database(_with_work, list(self._by_cluster))
                due = beat % BEATS_PER_KEY_CHECK == 0
                stopped = await in_database(keys.stopped_keys, list(self._by_key)) if due else set()
            except Error:
                logger.warning("Database unreachable; waiting agents keep waiting.")
                continue
            except Exception:
                logger.exception("Nobody can be woken; waiting agents keep waiting.")
                continue
            for key_id in stopped:
                _wake(self._by_key.get(key_id, ()), Woken.BY_REVOCATION)
            for cluster_id in ready:
                _wake(self._by_cluster.get(cluster_id, ()), Woken.BY_WORK)


def _wake(bells: Iterable[Bell], reason: Woken) -> None:
    for bell in bells:
        if not bell.done():
            bell.set_result(reason)


def _leave(rooms: dict[UUID, set[Bell]], place: UUID, bell: Bell) -> None:
    rooms[place].discard(bell)
    if not rooms[place]:
        del rooms[place]


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
