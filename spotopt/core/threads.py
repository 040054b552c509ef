"""Serve requests on a fixed number of threads, each with a database connection that it keeps.

Left to itself Django starts a thread, and with it opens a connection, for each request: a burst of requests
then asks for more connections than PostgreSQL has.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

MAX_BUFFERED_BYTES = 4 * 1024 * 1024
"""A longer body is read while a thread waits for it; the views refuse most of those."""


class BoundedThreads:
    """Wraps an ASGI application; further requests wait for their turn, holding nothing.

    Requests of a path that ``except_for`` names wait long without a thread, and so need no turn.
    """

    def __init__(self, application: Application, *, count: int, except_for: Callable[[str], bool]) -> None:
        self._application, self._except_for = application, except_for
        self._idle = [ThreadPoolExecutor(1, thread_name_prefix=f"request-{n}") for n in range(count)]
        self._turns = asyncio.Semaphore(count)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request; its body is taken in first, so that no slow client holds a thread."""
        if self._except_for(scope["path"]):
            await self._application(scope, receive, send)
            return
        body = await _buffered(receive)
        async with self._turns:
            thread = self._idle.pop()
            try:
                async with ThreadSensitiveContext(executor=thread):
                    await self._application(scope, body, send)
            finally:
                self._idle.append(thread)


async def _buffered(receive: Receive) -> Receive:
    """Take the body in and return what hands it out again, and then whatever comes after it."""
    events: list[Mapping[str, Any]] = []
    size, has_more = 0, True
    while has_more and size < MAX_BUFFERED_BYTES:
        event = await receive()
        events.append(event)
        has_more = event.get("more_body", False)
        size += len(event.get("body", b""))
    events.reverse()

    async def replay() -> Mapping[str, Any]:
        return events.pop() if events else await receive()

    return replay
