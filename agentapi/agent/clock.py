"""The agent's reading of the shared clock (``SPOTOPT_CLOCK``); real time when it is unset."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """A straight line through (``wall``, ``origin``), in seconds since the epoch."""

    wall: float = 0.0
    origin: float = 0.0
    rate: float = 1.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Clock":
        """Return the clock; raise ValueError when the variable is not of its form."""
        text = environment.get("SPOTOPT_CLOCK")
        if not text:
            return cls()
        line = json.loads(text)
        return cls(wall=float(line["wall"]), origin=float(line["origin"]), rate=float(line["rate"]))

    def now(self) -> datetime:
        """Return the current instant, aware and in UTC."""
        return datetime.fromtimestamp(self.seconds(), UTC)

    def seconds(self) -> float:
        """Return the current instant in seconds since the epoch."""
        return self.origin + (time.time() - self.wall) * self.rate

    def on_wall(self, seconds: float) -> float:
        """Return how long to wait on the wall for ``seconds`` of this clock to pass."""
        return max(0.0, seconds / self.rate)

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` of this clock."""
        await asyncio.sleep(self.on_wall(seconds))
