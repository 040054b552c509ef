"""The faults that can be switched on in the simulated AWS."""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from fnmatch import fnmatch
from random import Random
from typing import Any


@dataclass(slots=True)
class AwsFaults:
    """What is broken now.

    `no_capacity` holds patterns `<zone id>:<type>:<spot|on-demand>` (`*` allowed). `fail_after` counts, per
    action name, the calls that are performed but never answered. After `expires_at` everything works again.
    """

    unreachable: bool = False
    throttle_rate: float = 0.0
    no_capacity: set[str] = field(default_factory=set)
    disabled_regions: set[str] = field(default_factory=set)
    latency_ms: int = 0
    fail_after: dict[str, int] = field(default_factory=dict)
    expires_at: datetime | None = None
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
                if attribute.name != "random":
                    setattr(self, attribute.name, getattr(healthy, attribute.name))

    def is_dry(self, zone_id: str, instance_type: str, lifecycle: str) -> bool:
        """Whether a pool was emptied by hand."""
        pool = f"{zone_id}:{instance_type}:{lifecycle}"
        return any(fnmatch(pool, pattern) for pattern in self.no_capacity)

    def throttles(self) -> bool:
        """Draw whether this call is one too many."""
        return self.throttle_rate > 0 and self.random.random() < self.throttle_rate

    def loses_answer(self, action: str) -> bool:
        """Whether the answer of this performed call gets lost; counts down."""
        left = self.fail_after.get(action, 0)
        if left > 0:
            self.fail_after[action] = left - 1
        return left > 0
