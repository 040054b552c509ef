"""What the spot market does to machines as time goes by: new prices, rebalance signals, interruptions."""

import random
from datetime import datetime, timedelta

from simulator.machines import Machine, MachineRoom
from simulator.market import Market

REBALANCE_BEFORE = (timedelta(minutes=4), timedelta(minutes=25))
WARNED_SHARE = 0.6
REPRICE_EVERY = timedelta(minutes=5)


class SpotLife:
    """Applies the seeded market to living spot machines; each end is a pure function of the machine."""

    def __init__(self, *, room: MachineRoom, market: Market, interruption_rate: float) -> None:
        """`interruption_rate` scales how often machines are taken back: 1 is the advisor's rate, 0 never."""
        self._room, self._market, self._rate = room, market, interruption_rate
        self._repriced_at: datetime | None = None
        self._ends: dict[str, tuple[datetime | None, datetime]] = {}

    def tick(self, now: datetime) -> None:
        """Reprice every few minutes; warn what is about to be taken back."""
        machines = [machine for machine in self._room.alive() if machine.lifecycle == "spot"]
        if self._repriced_at is None or now >= self._repriced_at + REPRICE_EVERY:
            self._repriced_at = now
            for machine in machines:
                self._reprice(machine, now)
        if self._rate > 0:
            for machine in machines:
                self._maybe_interrupt(machine, now)

    def _reprice(self, machine: Machine, now: datetime) -> None:
        place = (machine.region, machine.zone_id, machine.instance_type)
        self._room.reprice(machine.instance_id, usd_per_hour=self._market.spot(*place, now), at=now)

    def _maybe_interrupt(self, machine: Machine, now: datetime) -> None:
        signals_at, ends_at = self._end_of(machine)
        if signals_at is not None and machine.rebalance_at is None and now >= signals_at:
            self._room.recommend_rebalance(machine.instance_id, at=now)
        if now >= ends_at:
            self._room.warn(machine.instance_id, at=now)

    def _end_of(self, machine: Machine) -> tuple[datetime | None, datetime]:
        """When AWS signals a rebalance (if it does) and when it gives the two-minute notice."""
        known = self._ends.get(machine.instance_id)
        if known is None:
            drawn = self._market.interrupted_at(
                machine.region, machine.instance_type, machine.instance_id, machine.launched_at
            )
            ends_at = machine.launched_at + (drawn - machine.launched_at) / self._rate
            luck = random.Random(f"{machine.instance_id}/rebalance")  # noqa: S311 - reproducible, not secret
            lead = timedelta(seconds=luck.uniform(*(each.total_seconds() for each in REBALANCE_BEFORE)))
            known = (ends_at - lead if luck.random() < WARNED_SHARE else None, ends_at)
            self._ends[machine.instance_id] = known
        return known
