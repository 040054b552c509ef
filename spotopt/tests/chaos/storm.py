"""What goes wrong, and how often it really did."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType

import httpx

from spotopt.management.runtime import WORKERS
from spotopt.tests.chaos.stage import Stage
from spotopt.tests.chaos.wire import Rates
from spotopt.tests.smoke.sabotage import pid_of

VICTIMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"worker": tuple(WORKERS), "store": ("postgres", "redis"), "web": ("web",), "agent": ()}
)
"""What is killed: of each kind one process in turn, and of the agents any."""
BLOWS = (*VICTIMS, "partition", "expired_key", "pause", "lost_launch")
AWS = {
    "throttle_rate": 0.04, "error_rate": 0.04, "expired_rate": 0.02, "lost_answer_rate": 0.05,
    "no_capacity_rate": 0.5, "slow_boot_rate": 0.25, "slow_boot_seconds": 240.0,
}  # fmt: skip
KUBE = {"error_rate": 0.03, "codes": [409, 429, 500]}
WIRE = Rates(
    dropped_request=0.02,
    dropped_answer=0.02,
    duplicated_request=0.04,
    delayed=0.02,
    forged=0.05,
    replayed=0.1,
)
CALM_AWS = dict.fromkeys(AWS, 0.0)
LOST_LAUNCHES = {"CreateFleet": 6}
"""As many answers in a row as the client tries, so that the caller never learns what was launched."""
STRIKES = 22
"""How often each deliberate fault is to strike over the whole run."""
AT_ONCE = 3
"""Blows in a row without a pause: what falls together is back together, and more of the run is work."""
PAUSE_SECONDS = 2.0
PAUSED_MINUTES, PARTITION_MINUTES = 4, 8
LABELS = {
    "worker": "SIGKILL workers",
    "store": "SIGKILL PostgreSQL, Redis",
    "web": "SIGKILL web",
    "agent": "SIGKILL agents",
    "dropped_request": "requests lost",
    "dropped_answer": "answers lost",
    "duplicated_request": "requests sent twice",
    "delayed": "messages delayed",
    "forged": "commands forged",
    "replayed": "commands replayed",
    "partition": "agents cut off",
    "clock_skew": "heartbeats of a skewed clock",
    "expired_key": "calls with a revoked key",
    "throttled": "AWS throttled",
    "error": "AWS answered 500",
    "expired": "AWS session expired",
    "lost_answer": "AWS answers lost",
    "no_capacity": "spot pools without capacity",
    "slow_boot": "slow boots",
    "409": "Kubernetes 409",
    "429": "Kubernetes 429",
    "500": "Kubernetes 500",
    "pause": "clusters paused",
}


class Storm:
    """Strikes in step with the campaign, so that every kind has struck enough when the last run ends."""

    def __init__(self, stage: Stage, *, strikes: int) -> None:
        self._stage, self._wire, self._agents = stage, stage.wire, stage.agents
        self._random = random.Random(stage.seed)  # reproducible
        self._done: Counter[str] = Counter()
        self._blows = self._shuffled(strikes)
        self._planned = strikes * len(BLOWS)
        self._struck_so_far = 0
        self._next = 0.0
        self._resume: list[tuple[float, str]] = []

    def begin(self) -> None:
        """Switch on what strikes by chance."""
        for each in fields(WIRE):
            setattr(self._wire.rates, each.name, getattr(WIRE, each.name))
        self._stage.world.order("faults", {"aws": AWS, "kube": KUBE})

    def end(self) -> None:
        """Let everything work again."""
        self._wire.rates = Rates()
        self._stage.world.order("faults", {"aws": CALM_AWS, "kube": {"error_rate": 0.0}})
        self._resume_clusters(everything=True)

    def tick(self, *, progress: float) -> None:
        """Strike the next blows if they are due at this progress (0 to 1) of the campaign."""
        self._resume_clusters()
        now = time.monotonic()
        if now < self._next or self._struck_so_far > progress * self._planned * 1.15:
            return
        self._next = now + PAUSE_SECONDS
        for _ in range(AT_ONCE):
            at_work = self._agents.at_work()
            blow = next(self._blows, None) if at_work else None
            if blow is not None:
                self._struck_so_far += 1
                self._strike(blow, self._random.choice(at_work))

    def struck(self) -> dict[str, int]:
        """Return how often each fault hit, by what it is called."""
        faults = self._stage.world.read("faults")
        found = self._done + self._wire.witness.struck + Counter(faults["aws_struck"])
        found += Counter(faults["kube"]["struck"])
        return {label: found[name] for name, label in LABELS.items()}

    def _shuffled(self, strikes: int) -> Iterator[str]:
        for _ in range(strikes):
            kinds = list(BLOWS)
            self._random.shuffle(kinds)
            yield from kinds

    def _strike(self, blow: str, cluster_id: str) -> None:
        try:
            if blow in VICTIMS:
                self._kill(blow, cluster_id)
            elif blow == "partition":
                self._wire.cut(cluster_id, self._stage.seconds(minutes=PARTITION_MINUTES))
            elif blow == "expired_key":
                self._revoke_key(cluster_id)
            elif blow == "pause":
                self._pause(cluster_id)
            else:
                self._stage.world.order("faults", {"aws": {"fail_after": LOST_LAUNCHES}})
        except (LookupError, ProcessLookupError, FileNotFoundError, SystemExit, httpx.HTTPError) as error:
            self._stage.say(f"{blow} missed: {error!r}")

    def _kill(self, victim: str, cluster_id: str) -> None:
        if victim == "agent":
            self._agents.kill(cluster_id)
        else:
            processes = VICTIMS[victim]
            process = processes[self._done[victim] % len(processes)]
            os.kill(pid_of(self._stage.instance.state, process), signal.SIGKILL)
        self._done[victim] += 1

    def _revoke_key(self, cluster_id: str) -> None:
        """Revoke the agent's key, let it run into that, then give it another."""
        api = self._stage.api
        path = f"/clusters/{cluster_id}/keys"
        old = [key for key in api.get(path)["keys"] if key["revoked_at"] is None and key["kind"] == "agent"]
        token = api.post(path, {"description": "Replaces a revoked one"})["api_token"]
        for key in old:
            api.delete(f"{path}/{key['id']}")
        time.sleep(2)
        self._agents.replace_token(cluster_id, token)

    def _pause(self, cluster_id: str) -> None:
        self._set_pause(cluster_id, is_paused=True)
        self._done["pause"] += 1
        until = time.monotonic() + self._stage.seconds(minutes=PAUSED_MINUTES)
        self._resume.append((until, cluster_id))

    def _resume_clusters(self, *, everything: bool = False) -> None:
        now = time.monotonic()
        for due in [each for each in self._resume if everything or each[0] <= now]:
            self._set_pause(due[1], is_paused=False)
            self._resume.remove(due)

    def _set_pause(self, cluster_id: str, *, is_paused: bool) -> None:
        self._stage.api.patch(
            f"/clusters/{cluster_id}/maintenance", {"enabled": is_paused, "reason": "Fault run"}
        )
