"""One customer with many clusters: optimizes each again and again, and changes its load in between."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import boto3
import httpx
from botocore.exceptions import BotoCoreError, ClientError

from spotopt.tests.chaos.wire import Wire
from spotopt.tests.smoke.client import RETRIED, ROOT, ApiClient
from spotopt.tests.smoke.instance import Instance
from spotopt.tests.smoke.road import CUSTOMER_ACCOUNT, OVER
from spotopt.tests.smoke.truth import World

AGENTS_PER_HOST = 5
RUN_MINUTES = 120
"""A run that is not over by then, by the simulated clock, hangs."""
SOFT_TAINT = "spotopt.io/consolidating"
SKEWS_SECONDS = (0.0, 90.0, -90.0)
_POLL_SECONDS = 1.5
_SERVER_ERROR = 500


@dataclass(slots=True)
class Tally:
    """What became of the runs."""

    begun: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """Runs by how they ended: completed, stopped, nothing to do, hang, failed."""
    left_cordoned: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, how: str) -> None:
        """Count one run."""
        with self.lock:
            self.ended[how] += 1

    @property
    def finished(self) -> int:
        """Return how many runs are over."""
        return sum(self.ended.values())


class Hosts:
    """The processes in which the agents live; started again when they die, as Kubernetes would."""

    def __init__(self, instance: Instance, wire: Wire, world: World) -> None:
        self._instance, self._wire, self._world = instance, wire, world
        self._directory = instance.state / "agents"
        self._environments: list[dict[str, str]] = []
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def add(self, cluster: dict[str, Any], token: str) -> None:
        """Prepare the agent of a cluster; every third one runs on a clock that is wrong."""
        kubernetes = self._world.read(f"clusters/{cluster['name']}/credentials")
        state = self._directory / cluster["name"]
        state.mkdir(parents=True, exist_ok=True)
        clock = json.loads(self._instance.clock())
        clock["origin"] += SKEWS_SECONDS[len(self._environments) % len(SKEWS_SECONDS)]
        self._environments.append(
            {
                "SPOTOPT_CLOCK": json.dumps(clock),
                "SPOTOPT_API_URL": self._wire.url,
                "SPOTOPT_CLUSTER_ID": cluster["id"],
                "SPOTOPT_API_TOKEN": token,
                "SPOTOPT_KUBE_SERVER": kubernetes["server"],
                "SPOTOPT_KUBE_TOKEN": kubernetes["token"],
                "SPOTOPT_AGENT_STATE": str(state),
            }
        )

    def replace_token(self, cluster_id: str, token: str) -> None:
        """Give the agent of a cluster another key, as its operator would: a new Secret and a restart."""
        with self._lock:
            for number, environment in enumerate(self._environments):
                if environment["SPOTOPT_CLUSTER_ID"] == cluster_id:
                    environment["SPOTOPT_API_TOKEN"] = token
                    self._run(number // AGENTS_PER_HOST)

    def revive(self) -> None:
        """Start what does not run."""
        with self._lock:
            for host in range(-(-len(self._environments) // AGENTS_PER_HOST)):
                process = self.processes.get(host)
                if process is None or process.poll() is not None:
                    self._run(host)

    def stop(self) -> None:
        """Stop all of them."""
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _run(self, host: int) -> None:
        running = self.processes.get(host)
        if running is not None and running.poll() is None:
            running.terminate()
            running.wait(20)
        path = self._directory / f"host-{host}.json"
        path.write_text(json.dumps(self._environments[host * AGENTS_PER_HOST : (host + 1) * AGENTS_PER_HOST]))
        with (self._directory / f"host-{host}.log").open("ab") as log:
            self.processes[host] = subprocess.Popen(  # our own agents
                [sys.executable, "-m", "spotopt.tests.chaos.host", str(path)],
                cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip


class Campaign:
    """Drives every cluster in a thread of its own."""

    def __init__(self, *, instance: Instance, seed: int, say: Callable[[str], None]) -> None:
        self.instance, self.say, self.seed = instance, say, seed
        self.world = World(instance.control_url)
        self.tally = Tally()
        self.api = ApiClient(instance.url, patience_seconds=180, retried=RETRIED | {_SERVER_ERROR})
        self.clusters: list[dict[str, Any]] = []

    def run(self, rounds: int) -> list[threading.Thread]:
        """Start the threads and return them."""
        threads = [
            threading.Thread(target=self._drive, args=(cluster, rounds), name=cluster["name"], daemon=True)
            for cluster in self.clusters
        ]
        for thread in threads:
            thread.start()
        return threads

    def _drive(self, cluster: dict[str, Any], rounds: int) -> None:
        dice = random.Random(f"{self.seed}/{cluster['name']}")  # reproducible
        for number in range(rounds):
            if number:
                Customer(self, cluster, dice).change_load()
            self.tally.begun += 1
            try:
                how = self._run_once(cluster)
            except (SystemExit, httpx.HTTPError) as error:
                self.say(f"{cluster['name']} run {number + 1} failed: {error}")
                how = "failed"
            self.tally.end(how)
            self.tally.left_cordoned |= self._left_cordoned(cluster)
            self.say(f"{cluster['name']} run {number + 1}/{rounds}: {how}")

    def _run_once(self, cluster: dict[str, Any]) -> str:
        """Ask for a plan, approve it and follow it to its end; return how it ended."""
        deadline = time.monotonic() + RUN_MINUTES * 60 / self.instance_rate
        while time.monotonic() < deadline:
            job = self.api.post(f"/clusters/{cluster['id']}/optimize", may_conflict=True)
            if "job_id" not in job or job["job_id"] is None:  # the agent is away, or the cluster paused
                time.sleep(_POLL_SECONDS)
                continue
            done = self._until(f"/jobs/{job['job_id']}", {"completed", "failed", "cancelled"}, deadline)
            if done is None or done["status"] != "completed" or not done["plan_id"]:
                continue
            plan = self.api.get(f"/plans/{done['plan_id']}")
            if not plan["document"]["waves"]:
                return "nothing to do"
            answer = self.api.post(f"/plans/{plan['id']}/approve", may_conflict=True)
            if "detail" in answer:
                time.sleep(_POLL_SECONDS)
                continue
            over = self._until(f"/plans/{plan['id']}", OVER, deadline)
            return over["status"] if over else "hang"
        return "hang"

    @property
    def instance_rate(self) -> float:
        """Return how many simulated seconds pass in one."""
        return float(json.loads(self.instance.clock())["rate"])

    def _until(self, path: str, statuses: Any, deadline: float) -> Any:
        while time.monotonic() < deadline:
            found = self.api.get(path)
            if found["status"] in statuses:
                return found
            time.sleep(_POLL_SECONDS)
        return None

    def _left_cordoned(self, cluster: dict[str, Any]) -> set[str]:
        """Return the nodes that carry a mark of ours although no plan runs; nobody else cordons here."""
        nodes = Kubernetes(self.world, cluster["name"]).ask("GET", "/api/v1/nodes")["items"]
        machines = self.world.read("machines")["machines"]
        alive = {each["private_dns"] for each in machines if each["state"] == "running"}
        return {node["metadata"]["name"] for node in nodes if _is_marked(node)} & alive


def _is_marked(node: dict[str, Any]) -> bool:
    taints = node["spec"].get("taints") or ()
    return bool(node["spec"].get("unschedulable")) or any(taint["key"] == SOFT_TAINT for taint in taints)


class Kubernetes:
    """The customer's own administrator of one cluster; patient with faults."""

    def __init__(self, world: World, name: str) -> None:
        access = world.read(f"clusters/{name}/credentials", **{"as": "admin"})
        self._http = httpx.Client(
            base_url=access["server"], timeout=30, headers={"Authorization": f"Bearer {access['token']}"}
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer, trying until there is one that is not a fault."""
        for _ in range(50):
            headers = {"Content-Type": "application/merge-patch+json"} if body is not None else {}
            answer = self._http.request(method, path, json=body, headers=headers)
            if answer.is_success:
                return answer.json()
            time.sleep(0.1)
        raise SystemExit(f"{method} {path} answered {answer.status_code}: {answer.text}")


class Customer:
    """What people at the customer do to a cluster between two optimizations."""

    def __init__(self, campaign: Campaign, cluster: dict[str, Any], dice: random.Random) -> None:
        self._campaign, self._cluster, self._dice = campaign, cluster, dice
        self._kubernetes = Kubernetes(campaign.world, cluster["name"])

    def change_load(self) -> None:
        """Scale some deployments, and have the cluster's own group add on-demand nodes."""
        self._grow()
        path = "/apis/apps/v1/namespaces/default/deployments"
        for each in self._kubernetes.ask("GET", path)["items"]:
            if self._dice.random() < 0.5:  # one in two
                scale = {"spec": {"replicas": self._dice.choice((1, 2, 3, 4))}}
                self._kubernetes.ask("PATCH", f"{path}/{each['metadata']['name']}/scale", scale)

    def _grow(self) -> None:
        autoscaling = boto3.client(
            "autoscaling",
            endpoint_url=self._campaign.instance.aws_url,
            region_name="us-east-1",
            aws_access_key_id=f"AKIACUSTOMERADMIN{CUSTOMER_ACCOUNT}",
            aws_secret_access_key="simulated",  # the simulator takes any
        )
        wanted = self._dice.randint(2, 3)
        for _ in range(50):
            try:
                pages = autoscaling.get_paginator("describe_auto_scaling_groups").paginate()
                groups = [group for page in pages for group in page["AutoScalingGroups"]]
                mine = next(
                    g for g in groups if f"{self._cluster['name']}-general" in g["AutoScalingGroupName"]
                )
                size = min(mine["MaxSize"], mine["DesiredCapacity"] + wanted)
                autoscaling.set_desired_capacity(
                    AutoScalingGroupName=mine["AutoScalingGroupName"], DesiredCapacity=size
                )
            except (ClientError, BotoCoreError):
                time.sleep(0.2)
            else:
                return
        raise SystemExit(f"The group of {self._cluster['name']} did not grow.")
