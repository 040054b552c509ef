"""Break something on purpose, to see that the road survives it or that the report notices."""

import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2

from spotopt.tests.smoke.road import Road

VICTIMS = ("worker", "optimizer", "actuator", "agent", "web", "postgres", "redis")
_PAUSE_SECONDS = 2.0


def corrupt_ledger(road: Road) -> None:
    """Make one booked entry ten times larger, behind the product's back."""
    directory = road.instance.state / "postgres"
    with psycopg2.connect(host=str(directory), user="postgres", dbname="postgres") as connection:
        cursor = connection.cursor()
        cursor.execute(
            "UPDATE savings_entries SET usd = usd * 10 "
            "WHERE id = (SELECT id FROM savings_entries WHERE kind = 'removed' ORDER BY usd DESC LIMIT 1)"
        )


def drop_pdb_checks(road: Road) -> None:
    """Have the simulated platform neither count nor enforce disruption budgets; its records still do."""
    road.world.order("faults", {"pdb_enforcement": False})


@dataclass(slots=True)
class Killer:
    """Kills each victim once with SIGKILL, a few seconds apart, from the moment that plans run."""

    road: Road
    seed: int = 0
    killed: list[str] = field(default_factory=list)
    at_work: int = 0
    """How many were killed while a plan ran; on a slow machine a short plan ends before the last kill."""
    _next: float = 0.0

    @property
    def is_done(self) -> bool:
        """Tell whether every victim was killed."""
        return len(self.killed) == len(VICTIMS)

    def __call__(self) -> bool:
        """Kill the next victim if it is time; return whether every victim was killed."""
        if self.is_done or time.monotonic() < self._next:
            return self.is_done
        order = list(VICTIMS)
        random.Random(self.seed).shuffle(order)  # a reproducible order
        victim = order[len(self.killed)]
        os.kill(self._pid(victim), signal.SIGKILL)
        self.road.say(f"killed {victim}")
        self.killed.append(victim)
        self.at_work += not self.road.is_over
        self._next = time.monotonic() + _PAUSE_SECONDS
        return False

    def _pid(self, victim: str) -> int:
        if victim == "agent":
            return next(iter(self.road.agents.processes.values())).pid
        return pid_of(self.road.instance.state, victim)


def pid_of(state: Path, name: str) -> int:
    """Return the process id of one of an instance's processes; FileNotFoundError or KeyError without one."""
    if name == "postgres":
        return int((state / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    pids: dict[str, int] = json.loads((state / "pids.json").read_text())
    return pids[name]
