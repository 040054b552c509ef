"""What the agents' road is measured against: ASGI handlers without a framework."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg2  # type: ignore[import-untyped]  # it has no types

from spotopt.core.crypto import digest

_threads = ThreadPoolExecutor(8)
_local = threading.local()


async def at_once(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request without a look: the ceiling of the load client and the server."""
    await _read(receive)
    await _reply(send)


async def one_query(scope: Any, receive: Any, send: Any) -> None:
    """Look the caller's key up by its index, then answer."""
    await _read(receive)
    token = dict(scope["headers"])[b"authorization"].decode().removeprefix("Bearer ")
    await asyncio.get_running_loop().run_in_executor(_threads, _look_up, digest(token))
    await _reply(send)


async def _read(receive: Any) -> None:
    while (await receive()).get("more_body"):
        continue


async def _reply(send: Any) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def _look_up(key_hash: str) -> Any:
    if not hasattr(_local, "connection"):
        url = urlsplit(os.environ["DATABASE_URL"])
        _local.connection = psycopg2.connect(
            host=parse_qs(url.query)["host"][0], user=url.username, dbname=os.environ["BENCH_DATABASE"]
        )
        _local.connection.autocommit = True
    with _local.connection.cursor() as cursor:
        cursor.execute("SELECT id, cluster_id FROM api_keys WHERE key_hash = %s", [key_hash])
        return cursor.fetchone()
