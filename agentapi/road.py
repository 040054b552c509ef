"""The agents' short road: ordinary heartbeats and claims, in front of Django.

Whatever is not ordinary, a wrong key or a malformed body among it, goes on to the views as it came.
"""

import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from rest_framework.exceptions import ParseError

from agentapi import protocol
from agentapi.permissions import per_minute
from agentapi.serializers import SMALL_BODY_BYTES, read_json, wire
from agentapi.services import waiting
from agentapi.services.keys import PREFIX
from agentapi.services.ordinary import Ask, Sign, desk
from agentapi.services.waiting import Woken
from spotopt.core.clock import utcnow
from spotopt.core.crypto import digest
from spotopt.core.errors import SpotOptError

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

_PATH = re.compile(r"/api/v1/clusters/([0-9a-f-]{36})/(heartbeat|actions/claim)")
_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]


class AgentRoad:
    """Wraps the ASGI application that answers everything else."""

    def __init__(self, otherwise: Application) -> None:
        self._otherwise = otherwise
        self._pace = Pace(per_minute("heartbeat"))

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        path = _PATH.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        if path is None:
            await self._otherwise(scope, receive, send)
            return
        read: list[Mapping[str, Any]] = []
        answer = await self._answer(scope, path[1], path[2], await _body(receive, read))
        if answer is None:
            await self._otherwise(scope, _again(read, receive), send)
            return
        body = json.dumps(answer).encode()
        headers = [*_HEADERS, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: dict[str, Any], cluster: str, what: str, body: bytes) -> Any:
        """Return the JSON value of an ordinary answer, None for what is not ordinary."""
        headers = dict(scope["headers"])
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme != "Bearer" or not token.startswith(PREFIX) or len(body) > SMALL_BODY_BYTES:
            return None
        try:
            cluster_id = UUID(cluster)
            encoding = headers.get(b"content-encoding", b"").decode("latin-1")
            document = read_json(body, SMALL_BODY_BYTES, encoding)
            if what == "heartbeat":
                return await self._beat(digest(token), cluster_id, wire(protocol.Heartbeat, document))
            return await _claim(Ask(digest(token), cluster_id, wire(protocol.Claim, document)))
        except (SpotOptError, ParseError, ValueError):
            return None

    async def _beat(self, key_hash: str, cluster_id: UUID, heartbeat: protocol.Heartbeat) -> Any:
        if not self._pace.allows(key_hash):
            return None
        answer = await desk().signs.ask(Sign(key_hash, cluster_id, heartbeat))
        return None if answer is None else {"ack": True} | protocol.dump(answer)


async def _claim(ask: Ask) -> Any:
    served = await desk().claims.ask(ask)
    if served is not None and not served.commands:
        woken = await waiting.waiting_room().wait(ask.cluster_id, served.key_id, ask.claim.wait_seconds)
        if woken is not Woken.BY_TIME:
            served = await desk().claims.ask(ask)  # which looks at the key again
    return None if served is None else {"actions": []} | protocol.dump(protocol.Commands(served.commands))


class Pace:
    """Lets each key through so often a minute; what is more goes where all processes count together."""

    def __init__(self, most: int) -> None:
        self._most, self._minute = most, 0
        self._counted: Counter[str] = Counter()

    def allows(self, key: str) -> bool:
        """Count one request of the key and tell whether it is within the pace."""
        minute = int(utcnow().timestamp() // 60)
        if minute != self._minute:
            self._minute = minute
            self._counted.clear()
        self._counted[key] += 1
        return self._counted[key] <= self._most


async def _body(receive: Receive, read: list[Mapping[str, Any]]) -> bytes:
    """Return the body, or what was read of one that is too long; ``read`` gets the events."""
    body, has_more = b"", True
    while has_more and len(body) <= SMALL_BODY_BYTES:
        event = await receive()
        read.append(event)
        body += event.get("body", b"")
        has_more = event.get("more_body", False)
    return body


def _again(read: list[Mapping[str, Any]], receive: Receive) -> Receive:
    """Hand out the events that were read, then whatever comes after them."""
    rest = iter(read)

    async def replay() -> Mapping[str, Any]:
        event = next(rest, None)
        return await receive() if event is None else event

    return replay
