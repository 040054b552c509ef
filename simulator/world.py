"""A whole world: machines, market, clusters, and the records kept about them."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from simulator import fleet
from simulator.availability import Availability
from simulator.bill import Bill
from simulator.clock import Clock
from simulator.journal import Journal
from simulator.kube import engine, seeding
from simulator.kube.api import ApiServer, Faults
from simulator.kube.cluster import Cluster
from simulator.kube.orders import Seller
from simulator.kube.usage import UsageModel
from simulator.machines import Machine, MachineRoom
from simulator.market import Market

SETTLING = timedelta(minutes=15)
STRIDE = timedelta(seconds=5)


@dataclass(slots=True)
class Inhabited:
    """One cluster with its API and its record."""

    cluster: Cluster
    api: ApiServer
    availability: Availability


class World:
    """Built on a room that already holds the machines of the starting fleet; lives in one event loop."""

    def __init__(
        self,
        *,
        clock: Clock,
        journal: Journal,
        room: MachineRoom,
        market: Market,
        starting: fleet.StartingFleet,
        seed: int,
        seller: Seller | None = None,
    ) -> None:
        """Without a `seller` Karpenter, where it is installed, can launch nothing."""
        self.seller = seller
        self.clock, self.journal, self.room, self.market = clock, journal, room, market
        self.fleet, self.seed = starting, seed
        self.started_at = _started_at(journal, clock)
        self.bill = Bill(room, started_at=self.started_at)
        self.kube_faults = Faults()
        self.stopping = asyncio.Event()
        self.clusters = {
            each.name: self._inhabit(account.account_id, each)
            for account in starting.accounts
            for each in account.clusters
        }

    def step(self, now: datetime) -> None:
        """Let every cluster do what is due."""
        for each in self.clusters.values():
            due = each.cluster.next_due()
            each.cluster.now = max(each.cluster.now, now)
            if due is not None and due <= now:
                engine.step(each.cluster, now)

    def next_due(self) -> datetime | None:
        """When the next thing happens in any cluster."""
        instants = [due for each in self.clusters.values() if (due := each.cluster.next_due())]
        return min(instants, default=None)

    def _inhabit(self, account_id: str, described: fleet.Cluster) -> Inhabited:
        machines = [machine for machine in self.room.all() if machine.cluster == described.name]
        born_at = min((machine.launched_at for machine in machines), default=self.clock.now())
        key = f"seeded/{described.name}"
        is_seeded = bool(self.journal.read(key))
        if not is_seeded:
            self.journal.erase(f"kube/{described.name}/")
        cluster = Cluster(
            name=described.name,
            region=described.region,
            account_id=account_id,
            k8s_version=described.k8s_version,
            journal=self.journal,
            room=self.room,
            shapes=self.market,
            seed=self.seed,
            now=born_at,
        )
        cluster.has_karpenter, cluster.seller = described.karpenter is not None, self.seller
        if not is_seeded:
            _live_first_minutes(cluster, described, machines)
            self.journal.write({key: born_at.isoformat()})
        cluster.now = max(cluster.now, self.clock.now())
        availability = Availability(cluster, self.journal)
        engine.step(cluster, self.clock.now())
        api = ApiServer(
            cluster=cluster,
            usage=UsageModel(described.workloads),
            settle=lambda: engine.step(cluster, self.clock.now()),
            stopping=self.stopping,
            faults=self.kube_faults,
        )
        return Inhabited(cluster, api, availability)


def _live_first_minutes(cluster: Cluster, described: fleet.Cluster, machines: list[Machine]) -> None:
    """Replay the cluster's birth, long ago: nodes join, workloads arrive, everything becomes ready."""
    joined_at = max((machine.ready_at for machine in machines if machine.ready_at), default=cluster.now)
    engine.run_until(cluster, joined_at + STRIDE, stride=STRIDE)
    seeding.seed(cluster, described.workloads, described.karpenter or ())
    engine.run_until(cluster, joined_at + SETTLING, stride=STRIDE)


def _started_at(journal: Journal, clock: Clock) -> datetime:
    """The instant of the world's first start."""
    saved = journal.read("started").get("started")
    if saved is None:
        saved = clock.now().isoformat()
        journal.write({"started": saved})
    return datetime.fromisoformat(saved)
