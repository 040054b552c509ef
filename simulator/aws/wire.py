"""HTTP/1.1 with keep-alive over the gate."""

import logging
import socket
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from simulator.aws.gate import Call, Gate

logger = logging.getLogger(__name__)


class Handler(BaseHTTPRequestHandler):
    """Reads a whole request, writes a whole answer, keeps the connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: "Server"

    def respond(self) -> None:
        """Answer one request, or drop the connection when the gate has no answer."""
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.gate.answer(Call(self.command, self.path, headers, self.rfile.read(length)))
        if answer is None:
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"status", "content-length", "date"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815 - names that http.server calls

    def log_message(self, *_: Any) -> None:
        """Say nothing: a scan makes hundreds of requests."""


class Server(ThreadingHTTPServer):
    """A thread per connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, gate: Gate) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.gate = gate
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news: note it for whoever debugs."""
        logger.debug("The connection of %s broke off: %r", client_address, sys.exception())

    def close(self) -> None:
        """Stop accepting, and end the kept connections."""
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
