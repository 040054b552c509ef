"""One real agent against a simulated cluster of 500 nodes and 15,000 pods, with pods coming and going.

Run ``python -m spotopt.bench.agent_scale [seconds]``. The product is played by a server that takes what comes
and counts it, so that the figures are the agent's own. Reported: seconds from the agent's start to its first
full snapshot and the bytes of that on the wire; bytes of deltas a minute while a pod a second is deleted and
replaced; and the agent's resident memory, of which the chart's request allows 128 MiB.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import psutil

from spotopt.management.embedded import free_port

CLUSTER, PODS = "acme-large", 15_000
AIM_MIB = 128.0
SETTLE_SECONDS, FIRST_SECONDS = 300.0, 120.0
CHURN_PER_SECOND = 1.0
COLLECTION_SECONDS = 15


@dataclass(slots=True)
class Product:
    """What arrived: (when, bytes on the wire, whether complete) of each snapshot."""

    snapshots: list[tuple[float, int, bool]] = field(default_factory=list)

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """Return what an agent wants to hear."""
        if path.endswith("/agent/register"):
            return {"cluster_id": CLUSTER, "cluster_name": CLUSTER, "signing_public_key": "none"}
        if path.endswith("/metrics"):
            document = json.loads(gzip.decompress(body))
            self.snapshots.append((time.monotonic(), len(body), "base" not in document))
            return {"acknowledged": document["sequence"]}
        if path.endswith("/claim"):
            time.sleep(10)
        return {}


def main() -> int:
    """Print the figures; the exit status says whether the agent kept to its memory."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    with tempfile.TemporaryDirectory() as name, _simulator(Path(name)) as (server, control):
        status = _wait_for_pods(control)
        nodes, pods = status["nodes_ready"], status["pods_running"]
        sys.stdout.write(f"{nodes} nodes, {pods} pods, load {os.getloadavg()[0]:.1f}\n")
        memory = measure(Path(name), server, control, seconds)
    return 0 if memory <= AIM_MIB else 1


def measure(directory: Path, server: str, control: httpx.Client, seconds: float) -> float:
    """Run the agent for so many seconds after its first snapshot; return its peak memory in MiB."""
    product = Product()
    with _served(product) as url:
        started = time.monotonic()
        with _agent(directory, url, _credentials(control, "agent")) as process:
            _until(lambda: bool(product.snapshots), FIRST_SECONDS, "the first snapshot")
            at, size, _ = product.snapshots[0]
            sys.stdout.write(
                f"first snapshot after {at - started:.1f} s: {size / 1024:.0f} KiB on the wire\n"
            )
            churned = _churn(server, _credentials(control, "admin")["token"], seconds)
            usage = process.memory_full_info()
            cpu = process.cpu_times()
            peak_mib = _peak_mib(process.pid)
    deltas = [each for each in product.snapshots[1:] if not each[2]]
    per_minute = sum(size for _, size, _ in deltas) / seconds * 60
    sys.stdout.write(
        f"{len(deltas)} deltas in {seconds:.0f} s, {churned} pods replaced: "
        f"{per_minute / 1024:.1f} KiB a minute\n"
        f"resident memory {usage.rss / 2**20:.1f} MiB, peak {peak_mib:.1f} MiB (aim ≤ {AIM_MIB:.0f}); "
        f"{cpu.user + cpu.system:.1f} s of CPU in {time.monotonic() - started:.0f} s\n"
    )
    return peak_mib


@contextmanager
def _simulator(directory: Path) -> Iterator[tuple[str, httpx.Client]]:
    aws_port, kube_port = free_port(), free_port()
    command = [sys.executable, "-m", "simulator", "--state", str(directory / "simulator"), "--fleet", "large"]
    command += ["--aws-port", str(aws_port), "--kube-port", str(kube_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None  # noqa: S101  # it is a pipe
            process.stdout.readline()
            root = f"http://127.0.0.1:{kube_port}"
            with httpx.Client(base_url=f"{root}/control", timeout=30) as control:
                yield f"{root}/clusters/{CLUSTER}", control
        finally:
            process.terminate()


def _wait_for_pods(control: httpx.Client) -> dict[str, Any]:
    status: dict[str, Any] = {}

    def is_settled() -> bool:
        status.update(control.get("/status").json()["clusters"][0])
        return bool(status["pods_running"] >= PODS and status["pods_pending"] == 0)

    _until(is_settled, SETTLE_SECONDS, f"{PODS} running pods")
    return status


def _credentials(control: httpx.Client, role: str) -> dict[str, str]:
    answer: dict[str, str] = control.get(f"/clusters/{CLUSTER}/credentials", params={"as": role}).json()
    return answer


@contextmanager
def _served(product: Product) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the name that the base class calls
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = json.dumps(product.answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the agent was stopped while its claim hung
                self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as the base class names it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@contextmanager
def _agent(directory: Path, url: str, credentials: dict[str, str]) -> Iterator[psutil.Process]:
    environment = os.environ | {
        "SPOTOPT_API_URL": url,
        "SPOTOPT_CLUSTER_ID": "00000000-0000-0000-0000-000000000001",
        "SPOTOPT_API_TOKEN": "so_bench",
        "SPOTOPT_AGENT_STATE": str(directory / "agent"),
        "SPOTOPT_KUBE_SERVER": credentials["server"],
        "SPOTOPT_KUBE_TOKEN": credentials["token"],
        "COLLECTION_INTERVAL": str(COLLECTION_SECONDS),
        "WEBSOCKET_ENABLED": "false",
        "LOG_LEVEL": "WARNING",
    }
    with subprocess.Popen([sys.executable, "-m", "agentapi.agent"], env=environment) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def _churn(server: str, token: str, seconds: float) -> int:
    """Delete a pod a second, of one deployment after the other; return how many."""
    end, count = time.monotonic() + seconds, 0
    with httpx.Client(base_url=server, headers={"Authorization": f"Bearer {token}"}, timeout=30) as admin:
        for number in cycle(range(250)):
            if time.monotonic() >= end:
                return count
            pods = f"/api/v1/namespaces/team-{number % 20:02}/pods"
            found = admin.get(pods, params={"limit": 1}).json()["items"]
            if found:
                count += admin.delete(f"{pods}/{found[0]['metadata']['name']}").is_success
            time.sleep(1 / CHURN_PER_SECOND)
    raise AssertionError  # the cycle never ends by itself


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("This system does not tell the peak of a process's memory.")


def _until(condition: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"There is no sign of {what} after {seconds:.0f} s.")
        time.sleep(0.2)


if __name__ == "__main__":
    raise SystemExit(main())
