"""The world's own bill: node-seconds at the price of the moment, and what the untouched fleet would cost."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from simulator.machines import Machine, MachineRoom

STARTING = "fleet:starting"
SHORTEST_BILL = timedelta(seconds=60)
MICROSECOND = timedelta(microseconds=1)
MICROSECONDS_PER_HOUR = Decimal(3_600_000_000)
SHOWN = Decimal("0.000001")
ELSEWHERE = ""


class Bill:
    """Answers from the machine room alone; per second, at least 60 seconds a machine, in USD."""

    def __init__(self, room: MachineRoom, *, started_at: datetime) -> None:
        self._room = room
        self._started_at = started_at

    def statement(self, *, now: datetime, since: datetime | None, until: datetime | None) -> dict[str, Any]:
        """Cost between two instants (default: from the world's first start to now), decimals as strings."""
        begin, end = since or self._started_at, min(until or now, now)
        by_cluster: dict[str, list[Machine]] = defaultdict(list)
        for machine in self._room.all():
            by_cluster[machine.cluster or ELSEWHERE].append(machine)
        accounts = {name: _account(machines, begin, end) for name, machines in sorted(by_cluster.items())}
        totals = {field: sum((each[field] for each in accounts.values()), Decimal(0)) for field in FIELDS}
        clusters = {
            name: _shown(account) | {"nodes": sum(machine.is_alive for machine in by_cluster[name])}
            for name, account in accounts.items()
            if name != ELSEWHERE
        }
        instants = {"now": now.isoformat(), "since": begin.isoformat(), "until": end.isoformat()}
        return instants | {"clusters": clusters} | _shown(totals)


FIELDS = ("actual_usd", "twin_usd", "actual_usd_per_hour", "twin_usd_per_hour")


def _account(machines: Iterable[Machine], begin: datetime, end: datetime) -> dict[str, Decimal]:
    account = dict.fromkeys(FIELDS, Decimal(0))
    for machine in machines:
        account["actual_usd"] += cost(machine, begin, end)
        if machine.is_alive:
            account["actual_usd_per_hour"] += machine.usd_per_hour
        if machine.launched_by == STARTING:
            first_price = machine.price_changes[0][1]
            account["twin_usd"] += _usd(first_price * _microseconds(max(begin, machine.launched_at), end))
            account["twin_usd_per_hour"] += first_price
    return account


def cost(machine: Machine, begin: datetime, end: datetime) -> Decimal:
    """What one machine cost between two instants, exactly."""
    stopped_at = machine.terminated_at
    if stopped_at is not None:
        end = min(end, max(stopped_at, machine.launched_at + SHORTEST_BILL))
    total = Decimal(0)
    changes = machine.price_changes
    for number, (since, usd_per_hour) in enumerate(changes):
        until = changes[number + 1][0] if number + 1 < len(changes) else end
        total += usd_per_hour * _microseconds(max(since, begin), min(until, end))
    return _usd(total)


def _microseconds(begin: datetime, end: datetime) -> int:
    return max(0, (end - begin) // MICROSECOND)


def _usd(hourly_microseconds: Decimal) -> Decimal:
    return hourly_microseconds / MICROSECONDS_PER_HOUR


def _shown(account: dict[str, Decimal]) -> dict[str, str]:
    return {field: str(account[field].quantize(SHOWN)) for field in FIELDS}
