"""Optimizes one customer's clusters again and again, some at a time, and changes their load in between."""

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from spotopt.tests.chaos.customer import Customer, marked_nodes
from spotopt.tests.chaos.stage import Stage
from spotopt.tests.smoke.client import wait_until
from spotopt.tests.smoke.road import OVER

HANG_MINUTES = 60
"""A run hangs when nothing is new about it for so long, by the simulated clock; every wait is shorter."""
NEWS_MINUTES = 12
"""After this long a change of the load is known and its nodes are old enough to be looked at."""
BOOT_MINUTES = 4
"""Before that, it is too early to ask what a change of the load makes possible."""
EAGER = {"min_saving_percent": 3, "min_saving_usd_per_month": "15", "min_saving_per_disruption": 0}
"""A policy that finds more savings worth their disruption: more plans, and larger ones."""
CONNECT_SECONDS = 150
"""On the wall: an agent that has not reported after so long needs another key, or help."""
_POLL_SECONDS, _ASK_SECONDS = 2.5, 4.0

Cluster = dict[str, Any]
Provocation = Callable[[Cluster, str], AbstractContextManager[None]]
"""What is done about a cluster's plan: entered before its approval, left after it."""


class Ended(Exception):
    """The campaign was told to end."""


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


class Campaign:
    """Works through the clusters, some at a time, with many optimizations of each."""

    def __init__(self, stage: Stage, provoke: Provocation | None = None) -> None:
        self._stage = stage
        self._provoke = provoke or (lambda _cluster, _plan_id: nullcontext())
        self.tally = Tally()
        self._waiting: queue.SimpleQueue[Cluster] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._is_late, self._is_told_to_end = threading.Event(), threading.Event()

    def begin(self, clusters: list[Cluster], *, rounds: int, at_once: int) -> None:
        """Start to work through the clusters, some at a time."""
        for cluster in clusters:
            self._waiting.put(cluster)
        self._threads = [
            threading.Thread(target=self._work, args=(rounds,), daemon=True) for _ in range(at_once)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_over(self) -> bool:
        """Tell whether every run is over."""
        return not any(thread.is_alive() for thread in self._threads)

    def begin_no_more(self) -> None:
        """Let the runs under way be the last ones."""
        self._is_late.set()

    def end(self) -> None:
        """Break off what still runs."""
        self._is_told_to_end.set()
        for thread in self._threads:
            thread.join()

    def _work(self, rounds: int) -> None:
        with suppress(queue.Empty, Ended):
            while not self._is_late.is_set():
                cluster = self._waiting.get_nowait()
                try:
                    self._connect(cluster)
                    for number in range(1, rounds + 1):
                        if not self._is_late.is_set():
                            self._drive(cluster, number)
                except (SystemExit, httpx.HTTPError) as error:
                    self._stage.say(f"{cluster['name']} could not be connected: {error}")
                    self.tally.end("failed", set())
                finally:
                    self._stage.agents.remove(cluster)

    def _connect(self, cluster: Cluster) -> None:
        """Have an agent report; as its operator would, give it another one-use key where one was lost."""
        api = self._stage.api
        api.patch(f"/policies/{cluster['id']}", {"config": {"binpack": EAGER}})
        path, wish = f"/clusters/{cluster['id']}", {"cluster_id": cluster["id"]}
        self._stage.agents.add(cluster, api.post("/clusters/connect", wish)["api_token"])
        for is_last in (False, True):
            try:
                wait_until(path, lambda: api.get(path)["snapshot_at"] is not None, seconds=CONNECT_SECONDS)
            except SystemExit:
                if is_last:
                    raise
                self._stage.say(f"{cluster['name']} does not report; its agent gets another key")
                token = api.post("/clusters/connect", wish)["api_token"]
                self._stage.agents.replace_token(cluster["id"], token)
            else:
                return

    def _drive(self, cluster: Cluster, number: int) -> None:
        stage = self._stage
        dice = random.Random(f"{stage.seed}/{cluster['name']}/{number}")  # reproducible
        try:
            if number > 1:
                Customer(stage, cluster, dice).change_load()
                self._pause(stage.seconds(minutes=BOOT_MINUTES))
            how = self._run_once(cluster)
        except (SystemExit, httpx.HTTPError) as error:
            stage.say(f"{cluster['name']} run {number} failed: {error}")
            how = "failed"
        left = marked_nodes(stage, cluster)
        self.tally.end(how, left)
        stage.say(f"{cluster['name']} run {number}: {how}{f', left cordoned: {left}' if left else ''}")

    def _run_once(self, cluster: Cluster) -> str:
        """Ask for a plan, approve it and follow it to its end; return how it ended."""
        deadline = time.monotonic() + self._stage.seconds(minutes=HANG_MINUTES)
        news = time.monotonic() + self._stage.seconds(minutes=NEWS_MINUTES)
        while time.monotonic() < deadline:
            plan = self._proposal(cluster, deadline)
            if plan is not None and not plan["document"]["waves"] and time.monotonic() > news:
                return "nothing to do"
            if plan is None or not plan["document"]["waves"] or not self._approve(cluster, plan["id"]):
                self._pause(_ASK_SECONDS)
                continue
            return self._follow(plan["id"])
        return "hang"

    def _follow(self, plan_id: str) -> str:
        """Return how the plan ends."""
        known, deadline = None, 0.0
        while True:
            status = str(self._stage.api.get(f"/plans/{plan_id}")["status"])
            if status in OVER:
                return status
            news = status, self._stage.api.get(f"/plans/{plan_id}/steps")
            if news != known:
                known, deadline = news, time.monotonic() + self._stage.seconds(minutes=HANG_MINUTES)
            elif time.monotonic() > deadline:
                return "hang"
            self._pause()

    def _proposal(self, cluster: Cluster, deadline: float) -> Any:
        """Return a new plan, or None where there is none: the agent is away, or the cluster paused."""
        job = self._stage.api.post(f"/clusters/{cluster['id']}/optimize", may_conflict=True)
        if job.get("job_id") is None:
            return None
        done = self._until(f"/jobs/{job['job_id']}", {"completed", "failed", "cancelled"}, deadline)
        if done is None or done["status"] != "completed" or not done["plan_id"]:
            return None
        return self._stage.api.get(f"/plans/{done['plan_id']}")

    def _approve(self, cluster: Cluster, plan_id: str) -> bool:
        with self._provoke(cluster, plan_id):
            return "detail" not in self._stage.api.post(f"/plans/{plan_id}/approve", may_conflict=True)

    def _until(self, path: str, statuses: Any, deadline: float) -> Any:
        while time.monotonic() < deadline:
            found = self._stage.api.get(path)
            if found["status"] in statuses:
                return found
            self._pause()
        return None

    def _pause(self, seconds: float = _POLL_SECONDS) -> None:
        if self._is_told_to_end.wait(seconds):
            raise Ended
