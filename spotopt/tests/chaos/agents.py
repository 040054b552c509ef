"""The agents' processes of a fault run."""

import json
import os
import subprocess
import sys
import threading
from typing import Any

from spotopt.tests.chaos.wire import Wire
from spotopt.tests.smoke.client import ROOT
from spotopt.tests.smoke.instance import Instance
from spotopt.tests.smoke.truth import World

PASSED_ON = ("PATH", "HOME", "PYTHONPATH", "CHAOS_BREAK")
SKEWS_SECONDS = (0.0, 90.0, -90.0)


class Agents:
    """The agents' processes, one for each cluster that is at work; started again when they die."""

    def __init__(self, instance: Instance, wire: Wire, world: World) -> None:
        self._instance, self._wire, self._world = instance, wire, world
        self._directory = instance.state / "agents"
        self._environments: dict[str, dict[str, str]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._added = 0

    def add(self, cluster: dict[str, Any], token: str) -> None:
        """Start the agent of a cluster; two of three run on a clock that is wrong."""
        kubernetes = self._world.read(f"clusters/{cluster['name']}/credentials")
        state = self._directory / cluster["name"]
        state.mkdir(parents=True, exist_ok=True)
        clock = json.loads(self._instance.clock())
        with self._lock:
            clock["origin"] += SKEWS_SECONDS[self._added % len(SKEWS_SECONDS)]
            self._added += 1
            self._environments[cluster["id"]] = {
                **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
                "SPOTOPT_CLOCK": json.dumps(clock),
                "SPOTOPT_API_URL": self._wire.url,
                "SPOTOPT_CLUSTER_ID": cluster["id"],
                "SPOTOPT_API_TOKEN": token,
                "SPOTOPT_KUBE_SERVER": kubernetes["server"],
                "SPOTOPT_KUBE_TOKEN": kubernetes["token"],
                "SPOTOPT_AGENT_STATE": str(state),
                "LOG_LEVEL": "WARNING",
            }
            self._run(cluster["id"])

    def remove(self, cluster: dict[str, Any]) -> None:
        """Stop the agent of a cluster for good."""
        with self._lock:
            self._environments.pop(cluster["id"], None)
            process = self._processes.pop(cluster["id"], None)
        if process is not None:
            process.kill()
            process.wait()

    def replace_token(self, cluster_id: str, token: str) -> None:
        """Give the agent of a cluster another key, as its operator would: a new Secret and a restart."""
        with self._lock:
            self._environments[cluster_id]["SPOTOPT_API_TOKEN"] = token
            self._processes[cluster_id].terminate()

    def at_work(self) -> list[str]:
        """Return the ids of the clusters whose agents run."""
        with self._lock:
            return sorted(each for each, process in self._processes.items() if process.poll() is None)

    def kill(self, cluster_id: str) -> None:
        """End one agent without a word."""
        with self._lock:
            self._processes[cluster_id].kill()

    def revive(self) -> None:
        """Start what died."""
        with self._lock:
            for cluster_id, process in list(self._processes.items()):
                if process.poll() is not None:
                    self._run(cluster_id)

    def stop(self) -> None:
        """Stop all of them."""
        with self._lock:
            for process in self._processes.values():
                process.kill()
                process.wait()
            self._processes.clear()

    def _run(self, cluster_id: str) -> None:
        with (self._directory / f"{cluster_id}.log").open("ab") as log:
            self._processes[cluster_id] = subprocess.Popen(  # our own agent
                [sys.executable, "-m", "agentapi.agent"], env=self._environments[cluster_id], cwd=ROOT,
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
