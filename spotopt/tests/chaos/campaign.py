"""One customer with many clusters: optimizes each again and again, and changes its load in between."""

import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import boto3
import httpx
from botocore.exceptions import BotoCoreError, ClientError

from spotopt.tests.chaos.wire import Wire
from spotopt.tests.smoke.client import RETRIED, ROOT, ApiClient, wait_until
from spotopt.tests.smoke.instance import Instance
from spotopt.tests.smoke.road import CUSTOMER_ACCOUNT, OVER
from spotopt.tests.smoke.truth import World

PASSED_ON = ("PATH", "HOME", "PYTHONPATH", "CHAOS_BREAK")
RUN_MINUTES = 120
"""A run that is not over by then, by the simulated clock, hangs."""
NEWS_MINUTES = 12
"""After this long a change of the load is known and its nodes are old enough to be looked at."""
SOFT_TAINT = "spotopt.io/consolidating"
SKEWS_SECONDS = (0.0, 90.0, -90.0)
_POLL_SECONDS = 1.5
_SERVER_ERROR = 500


@dataclass(slots=True)
class Tally:
    """What became of the runs."""

    ended: Counter[str] = field(default_factory=Counter)
    """Runs by how they ended: completed, stopped, nothing to do, hang, failed."""
    left_cordoned: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, how: str, left_cordoned: set[str]) -> None:
        """Count one run."""
        with self.lock:
            self.ended[how] += 1
            self.left_cordoned |= left_cordoned

    @property
    def finished(self) -> int:
        """Return how many runs are over."""
        return sum(self.ended.values())


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
            process = self._processes.pop(cluster["id"])
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


class Campaign:
    """Works through the clusters, some at a time, with many optimizations of each."""

    def __init__(self, *, instance: Instance, agents: Agents, seed: int, say: Callable[[str], None]) -> None:
        self.instance, self.agents, self.say, self.seed = instance, agents, say, seed
        self.world = World(instance.control_url)
        self.tally = Tally()
        self.api = ApiClient(instance.url, patience_seconds=180, retried=RETRIED | {_SERVER_ERROR})
        self._waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def run(self, clusters: list[dict[str, Any]], *, rounds: int, at_once: int) -> list[threading.Thread]:
        """Start to work through the clusters, some at a time; return the threads that do."""
        for cluster in clusters:
            self._waiting.put(cluster)
        threads = [threading.Thread(target=self._work, args=(rounds,), daemon=True) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        return threads

    def _work(self, rounds: int) -> None:
        with suppress(queue.Empty):
            while True:
                cluster = self._waiting.get_nowait()
                self._connect(cluster)
                for number in range(1, rounds + 1):
                    self._drive(cluster, number)
                self.agents.remove(cluster)

    def _connect(self, cluster: dict[str, Any]) -> None:
        issued = self.api.post("/clusters/connect", {"cluster_id": cluster["id"]})
        self.agents.add(cluster, issued["api_token"])
        path = f"/clusters/{cluster['id']}"
        wait_until(path, lambda: self.api.get(path)["snapshot_at"] is not None, seconds=300)

    def _drive(self, cluster: dict[str, Any], number: int) -> None:
        dice = random.Random(f"{self.seed}/{cluster['name']}/{number}")  # reproducible
        try:
            if number > 1:
                Customer(self, cluster, dice).change_load()
            how = self._run_once(cluster)
        except (SystemExit, httpx.HTTPError) as error:
            self.say(f"{cluster['name']} run {number} failed: {error}")
            how = "failed"
        left = self._left_cordoned(cluster)
        self.tally.end(how, left)
        self.say(f"{cluster['name']} run {number}: {how}{f', left cordoned: {left}' if left else ''}")

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
                if time.monotonic() > deadline - (RUN_MINUTES - NEWS_MINUTES) * 60 / self.instance_rate:
                    return "nothing to do"
                time.sleep(_POLL_SECONDS)
                continue
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
