"""A fresh instance, a customer with many clusters, and the wire between their agents and the product."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from spotopt.management.embedded import free_port
from spotopt.tests.chaos import records
from spotopt.tests.chaos.agents import Agents
from spotopt.tests.chaos.wire import Wire
from spotopt.tests.smoke.client import RETRIED, ApiClient
from spotopt.tests.smoke.instance import start
from spotopt.tests.smoke.road import Road
from spotopt.tests.smoke.truth import World

_SERVER_ERROR = 500


class Stage:
    """What every fault run plays on; everything stops with the block."""

    def __init__(self, *, state: Path, speed: float, seed: int, say: Callable[[str], None]) -> None:
        self.seed, self.say = seed, say
        self.instance = start(state=state, fleet="many", speed=speed, seed=seed)
        self.rate = float(json.loads(self.instance.clock())["rate"])
        """How many simulated seconds pass in one."""
        self.database = self.instance.state / "postgres"
        self.world = World(self.instance.control_url)
        self.wire = Wire(target=self.instance.url, port=free_port(), seed=seed)
        self.agents = Agents(self.instance, self.wire, self.world)
        self.api = ApiClient(self.instance.url, patience_seconds=180, retried=RETRIED | {_SERVER_ERROR})

    def __enter__(self) -> Self:
        self.wire.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.agents.stop()
        self.wire.stop()
        self.instance.stop()

    def clusters(self) -> list[dict[str, Any]]:
        """Sign up, link the account, have the database keep witness, and return the clusters by name."""
        road = Road(self.instance, say=self.say)
        road.api = self.api
        self.api.sign_up("chaos@spotopt.example", "Fault run")
        road.link()
        records.watch(self.database)
        clusters = self.api.get("/clusters?page_size=100")["clusters"]
        return sorted(clusters, key=lambda each: str(each["name"]))

    def seconds(self, *, minutes: float) -> float:
        """Return how long simulated minutes take on the wall."""
        return minutes * 60 / self.rate

    def sleep(self, *, minutes: float) -> None:
        """Wait for simulated minutes, and start again what dies meanwhile."""
        until = time.monotonic() + self.seconds(minutes=minutes)
        while time.monotonic() < until:
            self.agents.revive()
            time.sleep(0.2)
