"""The thinnest ASGI: a request in, a response or a stream of chunks out."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
log = logging.getLogger("simulator")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, its path split and unquoted."""

    method: str
    path: tuple[str, ...]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """A status and a body: bytes, or chunks that are sent as they come."""

    status: int
    body: bytes | AsyncGenerator[bytes, None]
    headers: dict[str, str] = field(default_factory=dict)


def json_response(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, json.dumps(value).encode() + b"\n")


def application(handle: Callable[[Request], Response]) -> Application:
    """The ASGI application that answers with `handle`; a bug in it is logged and becomes a 500."""

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = await _read(scope, receive)
        try:
            response = handle(request)
        except Exception:
            log.exception("%s /%s failed", request.method, "/".join(request.path))
            response = json_response({"error": "internal error"}, HTTPStatus.INTERNAL_SERVER_ERROR)
        await _write(response, receive, send)

    return serve


async def _read(scope: Message, receive: Receive) -> Request:
    chunks = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    raw_path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").split("?", 1)[0]
    return Request(
        method=scope["method"],
        path=tuple(unquote(step) for step in raw_path.split("/") if step),
        query=dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True)),
        headers={name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]},
        body=b"".join(chunks),
    )


async def _write(response: Response, receive: Receive, send: Send) -> None:
    headers = {"content-type": "application/json", "cache-control": "no-cache, private"} | response.headers
    if isinstance(response.body, bytes):
        headers["content-length"] = str(len(response.body))
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": pairs})
    if isinstance(response.body, bytes):
        await send({"type": "http.response.body", "body": response.body})
    else:
        await _stream(response.body, receive, send)


async def _stream(chunks: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
    """Send chunks until they end or the client is gone, whichever comes first."""
    sending = asyncio.create_task(_send_all(chunks, send))
    gone = asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        gone.cancel()
        outcome, _ = await asyncio.gather(sending, gone, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


async def _send_all(chunks: AsyncGenerator[bytes, None], send: Send) -> None:
    async with aclosing(chunks):
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
