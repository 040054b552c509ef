"""A tiny HTTP server for the probes of the kubelet and for Prometheus."""

import asyncio
from collections.abc import Callable


class Health:
    """Answers ``/healthz`` while the process lives, ``/readyz`` while it can work, and ``/metrics``."""

    def __init__(self, is_ready: Callable[[], bool], metrics: Callable[[], str] = str) -> None:
        self._is_ready, self._metrics = is_ready, metrics
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> None:
        """Listen on every address of the pod."""
        self._server = await asyncio.start_server(self._answer, "0.0.0.0", port)  # noqa: S104  # the kubelet asks

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 5)
            status, text = self._reply(line.decode("latin-1").split(" "))
            body = text.encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            )
            writer.write(body)
            await writer.drain()
        except (TimeoutError, OSError):
            return
        finally:
            writer.close()

    def _reply(self, words: list[str]) -> tuple[str, str]:
        path = words[1].partition("?")[0] if words[0] == "GET" and len(words) > 1 else ""
        if path == "/healthz":
            return "200 OK", "ok"
        if path == "/readyz":
            return ("200 OK", "ok") if self._is_ready() else ("503 Service Unavailable", "unready")
        if path == "/metrics":
            return "200 OK", self._metrics()
        return "404 Not Found", "not found"
