"""A tiny HTTP server for the probes of the kubelet."""

import asyncio
from collections.abc import Callable


class Health:
    """Answers ``/healthz`` while the process lives and ``/readyz`` while it can do its work."""

    def __init__(self, is_ready: Callable[[], bool]) -> None:
        self._is_ready = is_ready
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
            status = self._status(line.decode("latin-1").split(" "))
            body = status.partition(" ")[2].lower()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                f"Connection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
        except (TimeoutError, OSError):
            return
        finally:
            writer.close()

    def _status(self, words: list[str]) -> str:
        if words[:2] == ["GET", "/healthz"]:
            return "200 OK"
        if words[:2] == ["GET", "/readyz"]:
            return "200 OK" if self._is_ready() else "503 Unready"
        return "404 Not Found"
