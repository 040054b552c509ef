"""The processes of one machine: started in order, watched, restarted when they die, stopped cleanly."""

import base64
import fcntl
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.request import urlopen

from django.conf import settings

from spotopt.management.embedded import (
    EmbeddedPostgres,
    database_url,
    free_port,
    is_taken,
    new_secret,
    redis_command,
    wait_for_redis,
)

WORKERS = {
    "worker": ("default,discovery,pricing", 4),
    "optimizer": ("optimization", 4),
    "actuator": ("actuation", 8),
}
"""The Celery workers: which queues each serves, and with how many threads."""
READY_SECONDS = 90
LEAVE_SECONDS = 20.0
"""How long a start waits for the last run on the same data to stop."""
_RESTART_PAUSES = (0.2, 1, 2, 5, 10)
_SETTLED_SECONDS = 10
"""A process that lived this long does not die in a loop."""
_STOP_SECONDS = 10
_POLL_SECONDS = 0.25
_ROOT = Path(settings.BASE_DIR)


@dataclass(frozen=True, slots=True)
class Options:
    """What `manage.py up` was asked for."""

    state: Path
    port: int
    fleet: str
    seed: int
    speed: float
    has_demo: bool


@dataclass(slots=True)
class Child:
    """One supervised process and its log file."""

    name: str
    command: Sequence[str]
    log: Path
    extra_env: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    deaths: int = 0
    """In a row: a process that lived for a while begins anew."""
    started_at: float = 0.0
    start_after: float = 0.0

    def start(self, env: Mapping[str, str]) -> None:
        """Start the process with its output appended to its log."""
        self.started_at = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  # our own commands
                list(self.command), env={**env, **self.extra_env}, cwd=_ROOT, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self.process is not None and self.process.poll() is None


class Runtime:
    """Everything that `manage.py up` starts."""

    def __init__(self, options: Options, *, say: Callable[[str], object]) -> None:
        self._options = options
        self._print = say
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._state = options.state
        self._logs = options.state / "logs"
        self._children: list[Child] = []
        self._postgres = EmbeddedPostgres(options.state / "postgres", stops_with_last_user=False)
        self._kept = self._keep()
        self._env: dict[str, str] = {}

    def request_stop(self) -> None:
        """Ask the runtime to stop at the next look."""
        self._stop.set()

    def run(self) -> None:
        """Start everything, watch it until asked to stop, then stop it in reverse order."""
        with self._alone():
            try:
                self._start()
                self._watch()
            finally:
                self._shut_down()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the data for this run; wait for one that is stopping, and refuse beside one that goes on."""
        with (self._state / "lock").open("w") as lock:
            is_free = _locked(lock)
            if not is_free:
                self._say("Another run uses the same data; waiting for it to stop")
            deadline = time.monotonic() + LEAVE_SECONDS
            while not is_free:
                if self._stop.wait(_POLL_SECONDS) or time.monotonic() > deadline:
                    raise SystemExit(f"Another run uses {self._state}: stop it, or choose another --state.")
                is_free = _locked(lock)
            yield

    # --- start -------------------------------------------------------------------------------------

    def _start(self) -> None:
        if is_taken(self._options.port):
            raise SystemExit(
                f"Port {self._options.port} is in use: stop what runs there or choose another PORT."
            )
        self._env = {**os.environ, **self._environment()}
        self._launch("redis", redis_command(self._state / "redis", self._kept["redis_port"]))
        self._launch("simulator", [sys.executable, "-m", "simulator", *self._simulator_arguments()])
        wait_for_redis(self._env["REDIS_URL"])
        self._say("PostgreSQL and Redis are up")
        self._manage("prepare")
        self._say("Database is migrated; instance catalogue and prices are loaded")
        self._start_product()
        self._wait_for("simulator", f"http://127.0.0.1:{self._kept['kube_port']}/control/status")
        self._say("Simulated AWS and Kubernetes answer")
        self._wait_for("web", f"{self._env['SITE_URL']}/readyz")
        self._say("Pages and API answer")
        if self._options.has_demo:
            self._start_demo()
        self._print("")
        self._print(f"  Spotopt is ready at {self._env['SITE_URL']}   (Ctrl-C stops it; the data stays)")
        if self._options.has_demo:
            self._print(f"  Sign in as demo@spotopt.example with password {self._kept['demo_password']}")
        self._print(f"  Time runs at ×{self._options.speed:g}; logs are in {self._logs}")

    def _start_product(self) -> None:
        python = sys.executable
        web = [
            "uvicorn",
            "spotopt.asgi:application",
            "--host",
            "127.0.0.1",
            "--port",
            str(self._options.port),
        ]
        quiet = ["--log-level", "warning", "--no-access-log", "--timeout-graceful-shutdown", "3"]
        self._launch("web", [python, "-m", *web, *quiet])
        celery = [python, "-m", "celery", "-A", "spotopt"]
        level = ["--loglevel", "WARNING"]
        for name, (queues, threads) in WORKERS.items():
            serving = ["-n", f"{name}@%h", "-Q", queues, "--pool", "threads", "-c", str(threads)]
            self._launch(name, [*celery, "worker", *serving, *level])
        self._launch("beat", [*celery, "beat", *level])

    def _start_demo(self) -> None:
        """Do what a new customer does the first time; later only start the agents again."""
        directory = self._state / "agents"
        done = self._state / "demo.done"
        if not done.exists():
            self._manage("demo", "--agents", str(directory), "--kube-port", str(self._kept["kube_port"]))
            self._say("Demo organization is linked and scanned")
        for path in sorted(directory.glob("*.json")):
            agent = json.loads(path.read_text())
            self._launch(f"agent-{path.stem}", [sys.executable, "-m", "agentapi.agent"], agent["env"])
        self._say("Agents are started")
        if not done.exists():
            self._manage("demo", "--wait-for-plans")
            self._say("Every cluster has a plan; nothing happens before you approve one")
        done.touch()

    def _environment(self) -> dict[str, str]:
        server = self._postgres.ensure_running()
        site = f"http://127.0.0.1:{self._options.port}"
        return {
            "DJANGO_SETTINGS_MODULE": "spotopt.settings.dev",
            "DATABASE_URL": database_url(server, "postgres"),
            "REDIS_URL": f"redis://127.0.0.1:{self._kept['redis_port']}/0",
            "SITE_URL": site,
            "AGENT_API_URL": site,
            "SECRET_KEY": self._kept["secret_key"],
            "AGENT_SIGNING_KEY": self._kept["signing_key"],
            "DEMO_PASSWORD": self._kept["demo_password"],
            "SPOTOPT_SIMULATED": "true",
            "SPOTOPT_CLOCK": self._clock(),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._kept['aws_port']}",
            "AWS_ACCESS_KEY_ID": "AKIASPOTOPTPLATFORM",
            "AWS_SECRET_ACCESS_KEY": "simulated",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONUNBUFFERED": "1",
        }

    def _simulator_arguments(self) -> list[str]:
        return [
            "--state", str(self._state / "simulator"), "--aws-port", str(self._kept["aws_port"]),
            "--kube-port", str(self._kept["kube_port"]), "--fleet", self._options.fleet,
            "--seed", str(self._options.seed),
        ]  # fmt: skip

    # --- what is kept between starts -------------------------------------------------------------------

    def _keep(self) -> dict[str, str]:
        """Return ports and secrets, made once and kept with the data."""
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._state / "kept.json"
        if not path.exists():
            kept = {name: str(free_port()) for name in ("redis_port", "aws_port", "kube_port")}
            kept["secret_key"] = new_secret()
            kept["signing_key"] = base64.b64encode(secrets.token_bytes(32)).decode()
            kept["demo_password"] = f"Demo-{secrets.token_hex(4)}"
            path.touch(mode=0o600)
            path.write_text(json.dumps(kept))
        loaded: dict[str, str] = json.loads(path.read_text())
        return loaded

    def _clock(self) -> str:
        """Return the clock line: it goes on where the last run stopped, so that nothing ages meanwhile."""
        path = self._state / "clock.json"
        now = time.time()
        origin = now
        if path.exists():
            last = json.loads(path.read_text())
            origin = last["origin"] + (last["seen"] - last["wall"]) * last["rate"]
        self._line = {"wall": now, "origin": origin, "rate": self._options.speed}
        self._mark_time()
        return json.dumps(self._line)

    def _mark_time(self) -> None:
        path = self._state / "clock.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({**self._line, "seen": time.time() + _POLL_SECONDS}))
        fresh.replace(path)

    # --- supervision -------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._mark_time()
            if not self._postgres.is_running():
                self._say("PostgreSQL died; starting it again")
                self._postgres.ensure_running()
            for child in self._children:
                self._revive(child)

    def _revive(self, child: Child) -> None:
        if child.is_alive():
            return
        if not child.start_after:
            if time.monotonic() - child.started_at > _SETTLED_SECONDS:
                child.deaths = 0
            pause = _RESTART_PAUSES[min(child.deaths, len(_RESTART_PAUSES) - 1)]
            child.deaths += 1
            child.start_after = time.monotonic() + pause
            self._say(f"{child.name} died; starting it again (its log: {child.log})")
        elif time.monotonic() >= child.start_after:
            child.start_after = 0.0
            child.start(self._env)
            self._note_pids()

    def _launch(self, name: str, command: Sequence[str], extra_env: Mapping[str, str] | None = None) -> None:
        child = Child(name, command, self._logs / f"{name}.log", extra_env or {})
        child.start(self._env)
        self._children.append(child)
        self._note_pids()

    def _note_pids(self) -> None:
        """Keep the process ids where an operator, or a test that kills, finds them."""
        pids = {child.name: child.process.pid for child in self._children if child.process}
        (self._state / "pids.json").write_text(json.dumps(pids))

    def _manage(self, *arguments: str) -> None:
        command = [sys.executable, str(_ROOT / "manage.py"), *arguments]
        done = subprocess.run(command, env=self._env, cwd=_ROOT, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise SystemExit(f"`manage.py {' '.join(arguments)}` failed:\n{done.stdout}{done.stderr}")

    def _wait_for(self, name: str, url: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._stop.is_set():
                raise SystemExit(0)
            for child in self._children:
                if child.name == name and not child.is_alive():
                    raise SystemExit(f"{name} did not start; its log:\n{_tail(child.log)}")
            try:
                with urlopen(url, timeout=2) as answer:  # noqa: S310  # our own loopback address
                    if answer.status == 200:  # noqa: PLR2004
                        return
            except (URLError, OSError):
                time.sleep(0.1)
        raise SystemExit(
            f"{name} did not answer at {url} within {READY_SECONDS} s; logs are in {self._logs}."
        )

    def _shut_down(self) -> None:
        if not self._children:
            return
        self._print("Stopping…")
        for child in reversed(self._children):
            if child.is_alive() and child.process is not None:
                child.process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for child in reversed(self._children):
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        self._postgres.stop()
        self._say("Everything is stopped; `make run` goes on from here")

    def _say(self, message: str) -> None:
        self._print(f"[{time.monotonic() - self._begun:6.1f} s] {message}")


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tail(path: Path, lines: int = 30) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
