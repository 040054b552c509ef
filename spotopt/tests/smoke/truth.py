"""What really happened, from the simulator's own records, set beside what the product claims."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx

MAX_LEDGER_ERROR_PERCENT = Decimal(1)


class World:
    """Reads the simulator's records."""

    def __init__(self, control_url: str) -> None:
        self._http = httpx.Client(base_url=control_url, timeout=30)

    def read(self, name: str, **query: str) -> Any:
        """Return one of the records: status, bill, availability or launches."""
        answer = self._http.get(f"/{name}", params=query)
        answer.raise_for_status()
        return answer.json()

    def order(self, name: str, body: dict[str, Any]) -> Any:
        """Have the world do something: a fault, an interruption."""
        answer = self._http.post(f"/{name}", json=body)
        answer.raise_for_status()
        return answer.json()

    def usd_per_hour(self) -> Decimal:
        """Return what the fleet costs now."""
        return Decimal(self.read("bill")["actual_usd_per_hour"])

    def pods(self) -> tuple[int, int]:
        """Return how many pods run and how many wait, over all clusters.

        Daemon-set pods do not count: there is one on every node, so fewer nodes have fewer of them.
        """
        clusters = self.read("status")["clusters"]
        running = sum(c["pods_running"] - c["daemon_pods_running"] for c in clusters)
        return running, sum(c["pods_pending"] for c in clusters)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    value: str
    is_good: bool


@dataclass(frozen=True, slots=True)
class Before:
    """The world when nothing had been changed yet."""

    usd_per_hour: Decimal
    pods_running: int


def findings(
    *,
    world: World,
    before: Before,
    booked_usd: Decimal,
    booked_until: str,
    plans: list[str],
    min_saving_percent: Decimal,
) -> list[Finding]:
    """Return every line of the report; the run is good when all of them are."""
    after = world.usd_per_hour()
    saving = (1 - after / before.usd_per_hour) * 100
    running, pending = world.pods()
    availability = world.read("availability")["clusters"].values()
    violations = [v for cluster in availability for v in cluster["pdb_violations"]]
    launches = world.read("launches")
    bill = world.read("bill", until=booked_until)
    billed = Decimal(bill["twin_usd"]) - Decimal(bill["actual_usd"])
    error = abs(booked_usd - billed) / abs(billed) * 100 if billed else Decimal(100)
    return [
        Finding("plans", ", ".join(plans), all(p in ("completed", "stopped") for p in plans)),
        Finding("cost before", f"${before.usd_per_hour:.4f}/h", is_good=True),
        Finding("cost after", f"${after:.4f}/h", is_good=True),
        Finding("saving", f"{saving:.1f} %", saving >= min_saving_percent),
        Finding("pods running before", str(before.pods_running), is_good=True),
        Finding("pods running after", f"{running} ({pending} pending)", running == before.pods_running),
        Finding("PDB violations", str(len(violations)), not violations),
        Finding("nodes launched twice", str(len(launches["duplicates"])), not launches["duplicates"]),
        Finding("orphaned instances", str(len(launches["orphans"])), not launches["orphans"]),
        Finding("booked by the ledger", f"${booked_usd:.6f}", is_good=True),
        Finding("saved by the simulator's bill", f"${billed:.6f}", is_good=True),
        Finding("ledger error", f"{error:.2f} %", error <= MAX_LEDGER_ERROR_PERCENT),
    ]
