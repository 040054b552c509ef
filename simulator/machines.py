"""Machines: the physical truth about every EC2 instance, thread-safe and journaled."""

import random
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

BOOT_SECONDS = (25.0, 70.0)
RUNNING_SECONDS = (4.0, 12.0)
SHUTDOWN_SECONDS = (10.0, 25.0)
NOTICE = timedelta(seconds=120)
INSTANTS = (
    "launched_at",
    "ready_at",
    "terminated_at",
    "terminates_at",
    "interrupted_at",
    "rebalance_at",
    "failed_at",
)

Listener = Callable[[str, "Machine"], None]


class MachineJournal(Protocol):
    """Where the room keeps its machines; a write is durable when it returns."""

    def read(self, prefix: str) -> dict[str, Any]: ...

    def write(self, changes: dict[str, Any]) -> None: ...


@dataclass(slots=True)
class Machine:
    """One EC2 instance as the world sees it; `price_changes` holds (instant, USD per hour) since launch."""

    instance_id: str
    account_id: str
    region: str
    zone: str
    zone_id: str
    instance_type: str
    lifecycle: str
    usd_per_hour: Decimal
    launched_at: datetime
    private_dns: str
    cluster: str | None = None
    group: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[dict[str, str]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    client_token: str | None = None
    fleet_id: str | None = None
    launched_by: str = ""
    state: str = "pending"
    ready_at: datetime | None = None
    terminated_at: datetime | None = None
    termination_reason: str = ""
    terminates_at: datetime | None = None
    interrupted_at: datetime | None = None
    rebalance_at: datetime | None = None
    failed_at: datetime | None = None
    price_changes: list[tuple[datetime, Decimal]] = field(default_factory=list)

    @property
    def is_alive(self) -> bool:
        """Whether the machine is billed and may carry a node."""
        return self.state in {"pending", "running"}


def seconds_of(instance_id: str, purpose: str, bounds: tuple[float, float]) -> float:
    """A delay that is always the same for this machine and purpose."""
    return random.Random(f"{instance_id}/{purpose}").uniform(*bounds)  # noqa: S311 - reproducible, not secret


def to_record(machine: Machine) -> dict[str, Any]:
    """The machine as JSON values."""
    record = asdict(machine)
    record["usd_per_hour"] = str(machine.usd_per_hour)
    record["price_changes"] = [[at.isoformat(), str(price)] for at, price in machine.price_changes]
    for name in INSTANTS:
        record[name] = record[name].isoformat() if record[name] else None
    return record


def from_record(record: dict[str, Any]) -> Machine:
    """The machine that `to_record` wrote; fields it does not know are dropped."""
    known = {field.name for field in fields(Machine)}
    values = {name: value for name, value in record.items() if name in known}
    for name in INSTANTS:
        values[name] = datetime.fromisoformat(values[name]) if values.get(name) else None
    values["usd_per_hour"] = Decimal(values["usd_per_hour"])
    changes = values.get("price_changes", [])
    values["price_changes"] = [(datetime.fromisoformat(at), Decimal(price)) for at, price in changes]
    return Machine(**values)


class MachineRoom:
    """All machines, alive and gone. Listeners are called after the change is durable, outside `lock`.

    Never call a method that changes a machine while holding `lock`: the listeners take their own locks.
    Events: launched, running, interrupting (two-minute notice), rebalance, repriced, failed, terminated
    (asked to stop: state shutting-down), gone (state terminated).
    """

    def __init__(self, journal: MachineJournal | None = None) -> None:
        self.lock = threading.RLock()
        self._journal = journal
        self._machines: dict[str, Machine] = {}
        self._moving: set[str] = set()
        self._listeners: list[Listener] = []
        for record in (journal.read("machine/") if journal else {}).values():
            machine = from_record(record)
            self._machines[machine.instance_id] = machine
            self._note_movement(machine)

    def launch(self, machine: Machine) -> None:
        """Add a machine; a known id is a ValueError. A missing `ready_at` becomes a seeded boot delay."""
        self.launch_many([machine])

    def launch_many(self, machines: list[Machine]) -> None:
        """Add machines in one durable write (thousands at the start of a world)."""
        with self.lock:
            for machine in machines:
                if machine.instance_id in self._machines:
                    raise ValueError(f"{machine.instance_id} was launched before.")
                boot = timedelta(seconds=seconds_of(machine.instance_id, "boot", BOOT_SECONDS))
                machine.ready_at = machine.ready_at or machine.launched_at + boot
                machine.price_changes = machine.price_changes or [(machine.launched_at, machine.usd_per_hour)]
                self._machines[machine.instance_id] = machine
            self._save(*machines)
        for machine in machines:
            self._tell("launched", machine)

    def terminate(self, instance_id: str, *, reason: str, at: datetime) -> None:
        """Stop a machine and its bill; again, or for an unknown id, do nothing."""

        def stop(machine: Machine) -> None:
            machine.state, machine.terminated_at, machine.termination_reason = "shutting-down", at, reason

        self._change(instance_id, "terminated", stop)

    def warn(self, instance_id: str, *, at: datetime) -> None:
        """Give the two-minute spot notice; a machine that has one keeps it."""

        def notice(machine: Machine) -> None:
            machine.interrupted_at, machine.terminates_at = at, at + NOTICE

        machine = self.get(instance_id)
        if machine and machine.interrupted_at is None:
            self._change(instance_id, "interrupting", notice)

    def recommend_rebalance(self, instance_id: str, *, at: datetime) -> None:
        """Show the rebalance recommendation on the machine's metadata."""

        def recommend(machine: Machine) -> None:
            machine.rebalance_at = at

        self._change(instance_id, "rebalance", recommend)

    def fail(self, instance_id: str, *, at: datetime) -> None:
        """Break the hardware: the machine stays billed, its kubelet falls silent."""

        def fail(machine: Machine) -> None:
            machine.failed_at = at

        self._change(instance_id, "failed", fail)

    def reprice(self, instance_id: str, *, usd_per_hour: Decimal, at: datetime) -> None:
        """Charge a new price from `at`; the same price is no change."""

        def charge(machine: Machine) -> None:
            machine.usd_per_hour = usd_per_hour
            machine.price_changes.append((at, usd_per_hour))

        machine = self.get(instance_id)
        if machine and machine.usd_per_hour != usd_per_hour:
            self._change(instance_id, "repriced", charge)

    def retag(self, instance_id: str, *, tags: dict[str, str]) -> None:
        """Replace a machine's tags, alive or not."""
        with self.lock:
            machine = self._machines[instance_id]
            machine.tags = dict(tags)
            self._save(machine)

    def get(self, instance_id: str) -> Machine | None:
        return self._machines.get(instance_id)

    def all(self) -> list[Machine]:
        """Every machine ever launched, oldest first."""
        with self.lock:
            return list(self._machines.values())

    def alive(self) -> list[Machine]:
        """The machines that are billed now."""
        with self.lock:
            return [machine for machine in self._machines.values() if machine.is_alive]

    def subscribe(self, callback: Listener) -> None:
        """Call `callback(event, machine)` at each change, in the thread that made it."""
        self._listeners.append(callback)

    def advance(self, now: datetime) -> None:
        """Do what time does: pending becomes running, shutting-down becomes terminated, notices run out."""
        with self.lock:
            moving = [self._machines[instance_id] for instance_id in self._moving]
        for machine in moving:
            self._advance_one(machine, now)

    def next_change_at(self) -> datetime | None:
        """When `advance` will next have something to do."""
        with self.lock:
            due = [at for instance_id in self._moving if (at := _due(self._machines[instance_id]))]
        return min(due, default=None)

    def _advance_one(self, machine: Machine, now: datetime) -> None:
        due = _due(machine)
        if due is None or due > now:
            return
        if machine.state == "shutting-down":
            with self.lock:
                machine.state = "terminated"
                self._save(machine)
            self._tell("gone", machine)
        elif machine.state == "pending":
            with self.lock:
                machine.state = "running"
                self._save(machine)
            self._tell("running", machine)
        else:
            self.terminate(machine.instance_id, reason="spot-interruption", at=due)

    def _change(self, instance_id: str, event: str, change: Callable[[Machine], None]) -> None:
        with self.lock:
            machine = self._machines.get(instance_id)
            if machine is None or not machine.is_alive:
                return
            change(machine)
            self._save(machine)
        self._tell(event, machine)

    def _save(self, *machines: Machine) -> None:
        for machine in machines:
            self._note_movement(machine)
        if self._journal:
            self._journal.write(
                {f"machine/{machine.instance_id}": to_record(machine) for machine in machines}
            )

    def _note_movement(self, machine: Machine) -> None:
        if _due(machine) is None:
            self._moving.discard(machine.instance_id)
        else:
            self._moving.add(machine.instance_id)

    def _tell(self, event: str, machine: Machine) -> None:
        for listener in self._listeners:
            listener(event, machine)


def _due(machine: Machine) -> datetime | None:
    if machine.state == "pending":
        delay = seconds_of(machine.instance_id, "running", RUNNING_SECONDS)
        return machine.launched_at + timedelta(seconds=delay)
    if machine.state == "shutting-down" and machine.terminated_at:
        delay = seconds_of(machine.instance_id, "shutdown", SHUTDOWN_SECONDS)
        return machine.terminated_at + timedelta(seconds=delay)
    return machine.terminates_at if machine.state == "running" else None
