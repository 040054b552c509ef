"""A world without AWS: machines launched straight from the starting fleet, time moved by hand."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from simulator import fleet
from simulator.journal import Journal
from simulator.kube import engine
from simulator.kube.cluster import Cluster
from simulator.kube.orders import Order, labels_of
from simulator.kube.rbac import ADMIN, token_of
from simulator.machines import Machine, MachineRoom
from simulator.market import Market
from simulator.server import KubeServer
from simulator.world import World

DATA_DIR = Path(__file__).resolve().parents[3] / "clusters" / "data"
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
ZONE_IDS = {"us-east-1a": "use1-az1", "us-east-1b": "use1-az2", "us-east-1c": "use1-az4"}


@dataclass
class HandClock:
    """A clock that moves only when told; the server's naps are short."""

    instant: datetime = START

    def now(self) -> datetime:
        return self.instant

    def wall_seconds(self, simulated: timedelta) -> float:
        return max(0.0, simulated.total_seconds())


def capacity_label(lifecycle: str) -> dict[str, str]:
    return {"eks.amazonaws.com/capacityType": "SPOT" if lifecycle == "spot" else "ON_DEMAND"}


def machine(number: int, *, cluster: str = "test", at: datetime = START, **more: Any) -> Machine:
    fields: dict[str, Any] = {
        "instance_id": f"i-{number:017x}",
        "account_id": "111122223333",
        "region": "us-east-1",
        "zone": "us-east-1a",
        "instance_type": "m5.xlarge",
        "lifecycle": "on-demand",
        "launched_at": at,
        "private_dns": f"ip-10-0-{number // 250}-{number % 250}.ec2.internal",
        "cluster": cluster,
    } | more
    fields.setdefault("zone_id", ZONE_IDS[fields["zone"]])
    if "usd_per_hour" not in fields:
        fields["usd_per_hour"] = market().on_demand(fields["region"], fields["instance_type"])
    return Machine(**fields)


_MARKET: list[Market] = []


def market() -> Market:
    if not _MARKET:
        _MARKET.append(Market(seed=1, data_dir=DATA_DIR))
    return _MARKET[0]


class StandInSeller:
    """Sells from the market straight into the room, where no AWS is served; the cheapest spot first."""

    def __init__(self, room: MachineRoom) -> None:
        self.room = room

    def offered(self, region: str, zone_id: str) -> frozenset[str]:
        return market().offered(region, zone_id)

    def buy(self, order: Order, now: datetime) -> Machine | None:
        priced = []
        for each in order.choices:
            with contextlib.suppress(LookupError):
                place = (order.region, each.zone_id, each.instance_type)
                is_spot = each.capacity_type == "spot"
                price = market().spot(*place, now) if is_spot else market().on_demand(place[0], place[2])
                if not is_spot or market().has_capacity(*place, now):
                    priced.append((not is_spot, price, each))
        if not priced:
            return None
        _, price, choice = min(priced)
        bought = machine(
            len(self.room.all()) + 1,
            cluster=order.cluster,
            at=now,
            zone=choice.zone,
            instance_type=choice.instance_type,
            lifecycle=choice.capacity_type,
            usd_per_hour=price,
            labels={**order.labels, **labels_of(choice, market().shape(choice.instance_type).vcpu)},
            taints=[dict(taint) for taint in order.taints],
            tags=dict(order.tags),
            launched_by="karpenter",
        )
        self.room.launch(bought)
        return bought


def launch_fleet(
    room: MachineRoom, starting: fleet.StartingFleet, *, now: datetime, stagger: timedelta = timedelta()
) -> None:
    launches, born = [], now - starting.age
    for account in starting.accounts:
        for cluster in account.clusters:
            for group in cluster.groups:
                for at in range(group.count):
                    zone = cluster.zones[at % len(cluster.zones)]
                    launched = machine(
                        len(launches) + 1,
                        cluster=cluster.name,
                        at=born + at * stagger,
                        zone=zone,
                        instance_type=group.instance_type,
                        group=group.name,
                        labels=group.labels | capacity_label(group.lifecycle),
                        lifecycle=group.lifecycle,
                        launched_by="fleet:starting",
                        state="running",
                    )
                    launches.append(launched)
    room.launch_many(launches)


def fleet_of(*workloads: fleet.Workload, nodes: int = 3, **cluster: Any) -> fleet.StartingFleet:
    groups = (fleet.Group("general", "asg", "m5.xlarge", nodes, 1, 20),)
    described: dict[str, Any] = {
        "name": "test",
        "region": "us-east-1",
        "k8s_version": "1.33",
        "environment": "test",
        "zones": ("us-east-1a", "us-east-1b", "us-east-1c"),
        "groups": groups,
        "workloads": workloads,
        "karpenter": (),
    } | cluster
    account = fleet.Account("111122223333", (fleet.Cluster(**described),))
    return fleet.StartingFleet("test", (account,))


def deployment(name: str = "web", replicas: int = 4, **more: Any) -> fleet.Workload:
    fields: dict[str, Any] = {"cpu_millis": 100, "memory_mib": 128} | more
    return fleet.Workload("Deployment", "default", name, replicas, **fields)


def build_world(
    starting: fleet.StartingFleet,
    *,
    path: Path | None = None,
    clock: HandClock | None = None,
    stagger: timedelta = timedelta(),
    has_seller: bool = False,
) -> World:
    clock, journal = clock or HandClock(), Journal(path)
    room = MachineRoom(journal)
    if not room.all():
        launch_fleet(room, starting, now=clock.now(), stagger=stagger)
    return World(
        clock=clock,
        journal=journal,
        room=room,
        market=market(),
        starting=starting,
        seed=1,
        seller=StandInSeller(room) if has_seller else None,
    )


def empty_cluster(*machines: Machine) -> Cluster:
    """A cluster whose given machines have just become ready nodes."""
    journal = Journal(None)
    room = MachineRoom(journal)
    room.launch_many(list(machines))
    cluster = Cluster(
        name="test",
        region="us-east-1",
        account_id="111122223333",
        k8s_version="1.33",
        journal=journal,
        room=room,
        shapes=market(),
        seed=1,
        now=START,
    )
    for name in ("default", "kube-system"):
        cluster.store.create("namespaces", {"metadata": {"name": name, "labels": {}}}, now=START)
    engine.run_until(cluster, START + timedelta(minutes=3), stride=timedelta(seconds=5))
    return cluster


def live(cluster: Cluster, seconds: float) -> None:
    """Let time pass."""
    end = cluster.now + timedelta(seconds=seconds)
    while (due := cluster.room.next_change_at()) is not None and due <= end:
        engine.run_until(cluster, max(due, cluster.now), stride=timedelta(seconds=1))
        cluster.room.advance(cluster.now)
    engine.run_until(cluster, end, stride=timedelta(seconds=1))


def pod(name: str, *, cpu: int = 100, memory: int = 128, **more: Any) -> dict[str, Any]:
    spec, labels = more.pop("spec", {}), more.pop("labels", {"app": name})
    requests = {"cpu": f"{cpu}m", "memory": f"{memory}Mi"}
    container = {"name": "main", "image": "image:1", "resources": {"requests": requests}}
    metadata = {"name": name, "namespace": "default", "labels": labels} | more
    return {"metadata": metadata, "spec": {"containers": [container], **spec}, "status": {"phase": "Pending"}}


@dataclass
class Served:
    """A world behind HTTP."""

    world: World
    server: KubeServer
    clock: HandClock

    @property
    def cluster(self) -> Cluster:
        return next(iter(self.world.clusters.values())).cluster

    def client(self, user: str = ADMIN, token: str | None = None) -> httpx.Client:
        token = token_of(self.cluster, user) if token is None else token
        url = f"{self.server.url}/clusters/{self.cluster.name}"
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=10)

    def control(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.server.url}/control", timeout=10)

    def pass_time(self, seconds: float) -> None:
        async def pass_inside() -> None:
            live(self.cluster, seconds)
            self.clock.instant = self.cluster.now

        asyncio.run_coroutine_threadsafe(pass_inside(), self.server._loop).result(20)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(world: World) -> Iterator[Served]:
    server = KubeServer(world, port=free_port())
    server.start()
    try:
        yield Served(world, server, world.clock)
    finally:
        server.stop()
