"""The simulator's reading of the shared clock (`SPOTOPT_CLOCK`)."""

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Clock:
    """Simulated time: `origin + (wall clock - wall) x rate`; with rate 1 and equal origins, real time."""

    wall: float = 0.0
    origin: float = 0.0
    rate: float = 1.0

    @classmethod
    def from_environment(cls) -> "Clock":
        """Read `SPOTOPT_CLOCK`; real time when unset. Raise ValueError when the rate is not positive."""
        text = os.environ.get("SPOTOPT_CLOCK")
        if not text:
            return cls()
        fields = json.loads(text)
        clock = cls(wall=float(fields["wall"]), origin=float(fields["origin"]), rate=float(fields["rate"]))
        if clock.rate <= 0:
            raise ValueError(f"The clock's rate must be positive, not {clock.rate}.")
        return clock

    def now(self) -> datetime:
        """The simulated instant, aware UTC."""
        return datetime.fromtimestamp(self.origin + (time.time() - self.wall) * self.rate, UTC)

    def wall_seconds(self, simulated: timedelta) -> float:
        """How many real seconds to sleep for a simulated duration; never negative."""
        return max(0.0, simulated.total_seconds() / self.rate)
