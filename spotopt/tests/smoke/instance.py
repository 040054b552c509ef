"""A fresh instance of the product in a directory of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spotopt.management.embedded import free_port
from spotopt.tests.smoke.client import ROOT, wait_until

START_SECONDS = 300
"""A machine that is busy with other things takes its time."""


@dataclass(slots=True)
class Instance:
    """A running `manage.py up` and its files."""

    state: Path
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        """Return the address of pages and API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def kept(self) -> dict[str, Any]:
        """Return the ports and secrets of the instance."""
        loaded: dict[str, Any] = json.loads((self.state / "kept.json").read_text())
        return loaded

    @property
    def control_url(self) -> str:
        """Return the address of the simulator's records."""
        return f"http://127.0.0.1:{self.kept['kube_port']}/control"

    @property
    def aws_url(self) -> str:
        """Return the address of the simulated AWS."""
        return f"http://127.0.0.1:{self.kept['aws_port']}"

    def clock(self) -> str:
        """Return the clock line that the instance's processes share."""
        line = json.loads((self.state / "clock.json").read_text())
        return json.dumps({name: line[name] for name in ("wall", "origin", "rate")})

    def stop(self) -> None:
        """Stop everything."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def start(*, state: Path, fleet: str, speed: float, seed: int) -> Instance:
    """Start a fresh instance without any organization; return it when it answers."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    port = free_port()
    options = ["--state", str(state), "--port", str(port), "--fleet", fleet, "--seed", str(seed)]
    log = state / "up.log"
    environment = {
        k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL", "SPOTOPT_CLOCK")
    }
    environment["DJANGO_SETTINGS_MODULE"] = "spotopt.settings.dev"
    with log.open("wb") as output:
        process = subprocess.Popen(  # our own command
            [sys.executable, "manage.py", "up", *options, "--speed", str(speed), "--no-demo"],
            cwd=ROOT, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def is_ready() -> bool:
        if process.poll() is not None:
            raise SystemExit(f"The instance did not start:\n{log.read_text()}")
        return "Spotopt is ready" in log.read_text()

    try:
        wait_until("the instance to be ready", is_ready, seconds=START_SECONDS)
    except SystemExit:
        process.terminate()  # it stops its children
        raise
    return Instance(state, port, process)
