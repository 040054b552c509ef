"""A customer's side of the road: their API client, their AWS administrator, their agents."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "Smoke-test-2026"  # of a throw-away instance
RETRIED = frozenset({429, 502, 503, 504})


class ApiClient:
    """Speaks to the public API with a JWT, and rides out a web process that is being restarted."""

    def __init__(
        self, base_url: str, *, patience_seconds: float = 60, retried: frozenset[int] = RETRIED
    ) -> None:
        self._retried = retried
        self._http = httpx.Client(base_url=f"{base_url}/api/v1", timeout=30)
        self._patience = patience_seconds
        self._credentials: dict[str, str] = {}

    def sign_up(self, email: str, organization: str) -> None:
        """Create the user and the organization, and sign in."""
        self._credentials = {"email": email, "password": PASSWORD}
        self.post("/auth/signup", {**self._credentials, "organization_name": organization})
        self._sign_in()

    def get(self, path: str) -> Any:
        """Return the answer to a GET."""
        return self._call("GET", path, None)

    def post(self, path: str, body: Mapping[str, object] | None = None, *, may_conflict: bool = False) -> Any:
        """Return the answer to a POST; with ``may_conflict`` also the problem document of a 409."""
        return self._call("POST", path, body or {}, may_conflict=may_conflict)

    def patch(self, path: str, body: Mapping[str, object]) -> Any:
        """Return the answer to a PATCH."""
        return self._call("PATCH", path, body)

    def delete(self, path: str) -> Any:
        """Return the answer to a DELETE."""
        return self._call("DELETE", path, None)

    def _sign_in(self) -> None:
        tokens = self.post("/auth/token", self._credentials)
        self._http.headers["Authorization"] = f"Bearer {tokens['access']}"

    def _call(
        self, method: str, path: str, body: Mapping[str, object] | None, *, may_conflict: bool = False
    ) -> Any:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                answer = self._http.request(method, path, json=body)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
                continue
            if answer.status_code == httpx.codes.UNAUTHORIZED and path != "/auth/token":
                self._sign_in()
                continue
            if answer.status_code in self._retried and time.monotonic() < deadline:
                time.sleep(min(float(answer.headers.get("Retry-After", 0.5)), 5))
                continue
            if answer.status_code == httpx.codes.CONFLICT and may_conflict:
                return answer.json()
            if answer.is_error:
                raise SystemExit(f"{method} {path} answered {answer.status_code}: {answer.text}")
            return answer.json() if answer.content else None


@dataclass(slots=True)
class Agents:
    """The agent processes, one for each cluster; restarted when they die, as Kubernetes would."""

    directory: Path
    log_level: str = "INFO"
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, name: str, env: Mapping[str, str]) -> None:
        """Start the agent of one cluster."""
        self.environments[name] = {**env, "SPOTOPT_AGENT_STATE": str(self.directory / name)}
        (self.directory / name).mkdir(parents=True, exist_ok=True)
        self._run(name)

    def revive(self) -> None:
        """Start again whatever died."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                self._run(name)

    def stop(self) -> None:
        """Stop all of them."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(10)

    def _run(self, name: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(  # our own agent
                [sys.executable, "-m", "agentapi.agent"], env=self.environments[name], cwd=ROOT,
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip


def wait_until(what: str, look: Callable[[], Any], *, seconds: float, every: float = 0.5) -> Any:
    """Return the first truthy look; raise SystemExit naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(every)
    raise SystemExit(f"Gave up after {seconds:.0f} s: {what}.")
