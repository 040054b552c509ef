"""The true records of a replayed week: the bill, who was interrupted, and what fell below its minimum."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from spotopt.bench.replay.facts import IntArray, Pool, Workload

HOUR = 3600


class Ledger:
    """Counts as the world reports; every amount is final once ``close`` was called."""

    def __init__(self, workloads: Sequence[Workload]) -> None:
        self._minimums = np.array([workload.minimum for workload in workloads], np.int64)
        self._up = np.zeros(len(workloads), np.int64)
        self._short = np.zeros(len(workloads), bool)
        self._started = False
        self._changed = 0.0
        self.spot_usd = Decimal(0)
        self.on_demand_usd = Decimal(0)
        self.nodes_lost = 0
        self.pods_interrupted = 0
        self.pods_moved = 0
        self.down_seconds = 0.0
        """Pod-seconds from the loss of a pod's node until the pod ran again."""
        self.moved_seconds = 0.0
        """Pod-seconds lost to moves of the policy's own will."""
        self.below_minimum_seconds = 0.0
        """Pod-seconds that workloads were short of their minimum."""
        self.breaches = 0
        """How often a workload fell below its minimum."""

    def spare(self) -> IntArray:
        """Return how many pods of each workload may be disrupted now."""
        return self._up - self._minimums

    def billed(self, pool: Pool, launched: float, ended: float) -> None:
        """Book a node that ended, by the second."""
        amount = pool.usd_per_hour * Decimal(str(ended - launched)) / HOUR
        if pool.is_spot:
            self.spot_usd += amount
        else:
            self.on_demand_usd += amount

    def interrupted(self, now: float, pods: IntArray) -> None:
        """Book pods, by workload, whose node is gone."""
        self.nodes_lost += 1
        self.pods_interrupted += int(pods.sum())
        self._set_up(now, self._up - pods)

    def up_again(self, now: float, since: float, pods: IntArray) -> None:
        """Book pods that run, and were down ``since`` then."""
        self.down_seconds += float(pods.sum()) * (now - since)
        self._set_up(now, self._up + pods)

    def moved(self, pods: IntArray, seconds: float) -> None:
        """Book pods that were moved within their minimum, each down for some seconds."""
        self.pods_moved += int(pods.sum())
        self.moved_seconds += float(pods.sum()) * seconds

    def close(self, now: float, still_down: Sequence[tuple[float, IntArray]]) -> None:
        """End the records; pods that are still down are counted until now."""
        for since, pods in still_down:
            self.down_seconds += float(pods.sum()) * max(now - since, 0.0)
        self._set_up(now, self._up)

    def _set_up(self, now: float, up: IntArray) -> None:
        self._started = self._started or now > 0
        missing = np.maximum(self._minimums - self._up, 0)
        self.below_minimum_seconds += float(missing.sum()) * (now - self._changed)
        self._changed, self._up = now, up
        short = up < self._minimums
        if self._started:
            self.breaches += int((short & ~self._short).sum())
        self._short = short


@dataclass(frozen=True, slots=True)
class Result:
    """A week in figures."""

    usd: Decimal
    on_demand_usd: Decimal
    interrupted_pod_hours: float
    pods_interrupted: int
    nodes_lost: int
    below_minimum_pod_hours: float
    breaches: int
    moved_pod_hours: float
    pods_moved: int


def result_of(ledger: Ledger) -> Result:
    """Return the figures of a closed ledger."""
    return Result(
        usd=ledger.spot_usd + ledger.on_demand_usd,
        on_demand_usd=ledger.on_demand_usd,
        interrupted_pod_hours=ledger.down_seconds / HOUR,
        pods_interrupted=ledger.pods_interrupted,
        nodes_lost=ledger.nodes_lost,
        below_minimum_pod_hours=ledger.below_minimum_seconds / HOUR,
        breaches=ledger.breaches,
        moved_pod_hours=ledger.moved_seconds / HOUR,
        pods_moved=ledger.pods_moved,
    )
