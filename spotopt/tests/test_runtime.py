"""Two runs never share their data."""

import fcntl
import threading

import pytest

from spotopt.management import runtime
from spotopt.management.embedded import free_port
from spotopt.management.runtime import Options, Runtime


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Return a run that has nothing to start, and what it says."""
    said = []
    monkeypatch.setattr(Runtime, "_start", lambda self: said.append("started"))
    monkeypatch.setattr(Runtime, "_watch", lambda self: None)
    options = Options(tmp_path, free_port(), "small", 1, 10.0, has_demo=False)
    return Runtime(options, say=said.append), said


def _held(tmp_path):
    lock = (tmp_path / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_given_a_run_that_goes_on_when_another_starts_on_its_data_then_it_is_refused(
    begin, tmp_path, monkeypatch
):
    run, said = begin
    monkeypatch.setattr(runtime, "LEAVE_SECONDS", 0.0)

    with _held(tmp_path), pytest.raises(SystemExit, match="Another run uses"):
        run.run()

    assert "started" not in said


def test_given_a_run_that_stops_when_another_starts_on_its_data_then_it_waits_and_starts(begin, tmp_path):
    run, said = begin
    lock = _held(tmp_path)
    threading.Timer(0.5, lock.close).start()

    run.run()

    assert said[-1] == "started"
    assert any("waiting for it to stop" in line for line in said)
