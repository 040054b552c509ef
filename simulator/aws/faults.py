"""The faults that can be switched on in the simulated AWS."""

from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from fnmatch import fnmatch
from random import Random
from typing import Any


@dataclass(slots=True)
class AwsFaults:
    """What is broken now.

    `no_capacity` holds patterns `<zone id>:<type>:<spot|on-demand>` (`*` allowed). `fail_after` counts, per
    action name, the calls that are performed but never answered. Rates are shares of the calls that meet
    the fault: `error_rate` a 500 before anything is done, `expired_rate` credentials said to be over,
    `lost_answer_rate` (of writes) no answer to what was done, `slow_boot_rate` (of launches) a boot of
    `slow_boot_seconds`, `no_capacity_rate` (of pools tried) a dry pool. `struck` counts each where it hit.
    After `expires_at` everything works again.
    """

    unreachable: bool = False
    throttle_rate: float = 0.0
    error_rate: float = 0.0
    expired_rate: float = 0.0
    lost_answer_rate: float = 0.0
    no_capacity_rate: float = 0.0
    slow_boot_rate: float = 0.0
    slow_boot_seconds: float = 0.0
    no_capacity: set[str] = field(default_factory=set)
    disabled_regions: set[str] = field(default_factory=set)
    latency_ms: int = 0
    fail_after: dict[str, int] = field(default_factory=dict)
    expires_at: datetime | None = None
    struck: Counter[str] = field(default_factory=Counter, repr=False)
    random: Random = field(default_factory=lambda: Random(0), repr=False)  # noqa: S311 - reproducible

    def update(self, changes: dict[str, Any], *, now: datetime) -> None:
        """Change the named faults, JSON values as in `as_dict`; `for_seconds` (simulated) sets their end."""
        unknown = changes.keys() - {"for_seconds"} - self.as_dict().keys()
        if unknown:
            raise ValueError(f"Unknown AWS faults: {', '.join(sorted(unknown))}.")
        for name, value in changes.items():
            if name == "for_seconds":
                self.expires_at = now + timedelta(seconds=float(value))
            elif name == "expires_at":
                self.expires_at = datetime.fromisoformat(value) if value else None
            else:
                setattr(self, name, type(getattr(self, name))(value))

    def as_dict(self) -> dict[str, Any]:
        """The faults as JSON values."""
        return {
            "unreachable": self.unreachable,
            "throttle_rate": self.throttle_rate,
            "error_rate": self.error_rate,
            "expired_rate": self.expired_rate,
            "lost_answer_rate": self.lost_answer_rate,
            "no_capacity_rate": self.no_capacity_rate,
            "slow_boot_rate": self.slow_boot_rate,
            "slow_boot_seconds": self.slow_boot_seconds,
            "no_capacity": sorted(self.no_capacity),
            "disabled_regions": sorted(self.disabled_regions),
            "latency_ms": self.latency_ms,
            "fail_after": dict(self.fail_after),
            "expires_at": self.expires_at.isoformat() if self.expires_at else None,
        }

    def expire(self, now: datetime) -> None:
        """End the faults whose time is over."""
        if self.expires_at and now >= self.expires_at:
            healthy = AwsFaults()
            for attribute in fields(self):
                if attribute.name not in ("random", "struck"):
                    setattr(self, attribute.name, getattr(healthy, attribute.name))

    def is_dry(self, zone_id: str, instance_type: str, lifecycle: str) -> bool:
        """Whether a pool was emptied, by hand or by chance; on-demand pools only by hand."""
        pool = f"{zone_id}:{instance_type}:{lifecycle}"
        if any(fnmatch(pool, pattern) for pattern in self.no_capacity):
            self.struck["no_capacity"] += 1
            return True
        return lifecycle == "spot" and self._draw("no_capacity", self.no_capacity_rate)

    def throttles(self) -> bool:
        """Draw whether this call is one too many."""
        return self._draw("throttled", self.throttle_rate)

    def fails(self) -> bool:
        """Draw whether this call meets a 500."""
        return self._draw("error", self.error_rate)

    def expires_credentials(self) -> bool:
        """Draw whether this call is told that its session is over."""
        return self._draw("expired", self.expired_rate)

    def boot_seconds(self) -> float:
        """Draw how long a machine takes to boot; 0 leaves it to the machine."""
        return self.slow_boot_seconds if self._draw("slow_boot", self.slow_boot_rate) else 0.0

    def loses_answer(self, action: str, *, writes: bool) -> bool:
        """Whether the answer of this performed call gets lost; counts down, or draws for writes."""
        left = self.fail_after.get(action, 0)
        if left > 0:
            self.fail_after[action] = left - 1
            self.struck["lost_answer"] += 1
            return True
        return writes and self._draw("lost_answer", self.lost_answer_rate)

    def _draw(self, kind: str, rate: float) -> bool:
        if rate <= 0 or self.random.random() >= rate:
            return False
        self.struck[kind] += 1
        return True
