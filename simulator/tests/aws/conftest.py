"""A started AWS for the whole session, with a clock the tests can move."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from simulator.aws.server import AwsServer
from simulator.fleet import Account, Cluster, Group, StartingFleet
from simulator.machines import MachineRoom
from simulator.market import Market

CUSTOMER = "111122223333"
ADMINISTRATOR = f"AKIACUSTOMERADMIN{CUSTOMER}"
PLATFORM = "AKIASPOTOPTPLATFORM"
DATA = Path(__file__).parents[3] / "clusters/data"
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
SERVED = (
    Group("general", "asg", "m5.xlarge", 6, 3, 12, labels={"pool": "general"}),
    Group("managed", "managed", "c5.2xlarge", 3, 2, 6, labels={"pool": "managed"}),
    Group("spare", "asg", "m5.large", 3, 1, 5),
)
FLEET = StartingFleet(
    "test",
    (
        Account(
            CUSTOMER,
            (
                Cluster("served", "us-east-1", "1.33", "production", ZONES, SERVED, ()),
                Cluster("far", "eu-west-1", "1.32", "staging", ("eu-west-1a",), SERVED[:1], ()),
            ),
        ),
    ),
)


class SteppedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.instant = now

    def now(self) -> datetime:
        return self.instant

    def advance(self, **duration: float) -> datetime:
        self.instant += timedelta(**duration)
        return self.instant


@dataclass
class World:
    server: AwsServer
    room: MachineRoom
    market: Market
    clock: SteppedClock
    port: int

    def client(
        self, service: str, key: str = ADMINISTRATOR, region: str = "us-east-1", **credentials: Any
    ) -> Any:
        """A boto3 client that never retries, so that every answer is seen."""
        options = {"aws_secret_access_key": "unused", "aws_access_key_id": key, **credentials}
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            config=Config(retries={"total_max_attempts": 1}),
            **options,
        )

    def live(self, **duration: float) -> None:
        """Let time pass: machines move on, then AWS reconciles."""
        now = self.clock.advance(**duration)
        self.room.advance(now)
        self.server.tick(now)


@pytest.fixture(scope="session")
def market() -> Market:
    return Market(seed=1, data_dir=DATA)


@pytest.fixture(scope="module")  # one AWS in a process at a time: moto's state is global
def world(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    room, clock = MachineRoom(), SteppedClock(datetime(2026, 11, 1, 12, tzinfo=UTC))
    server = AwsServer(
        room=room,
        market=market,
        clock=clock,
        state_dir=tmp_path_factory.mktemp("aws"),
        port=port,
        seed=1,
        kube_url="http://127.0.0.1:1",
    )
    server.provision(FLEET)
    server.start()
    yield World(server, room, market, clock, port)
    server.stop()


@pytest.fixture(autouse=True)
def healthy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Repair what a test broke."""
    yield
    if "world" in request.fixturenames:
        world = request.getfixturevalue("world")
        world.server.faults.update(
            {
                "unreachable": False,
                "throttle_rate": 0.0,
                "no_capacity": [],
                "disabled_regions": [],
                "latency_ms": 0,
                "fail_after": {},
                "expires_at": None,
            },
            now=world.clock.now(),
        )


@pytest.fixture
def launch_template(world: World) -> str:
    """The launch template of the group `general`."""
    groups = world.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["general"])
    template_id: str = groups["AutoScalingGroups"][0]["LaunchTemplate"]["LaunchTemplateId"]
    return template_id


@pytest.fixture
def subnets(world: World) -> list[str]:
    """The subnets of the cluster `served`, by zone."""
    found = world.client("ec2").describe_subnets(
        Filters=[{"Name": "tag:kubernetes.io/cluster/served", "Values": ["shared"]}]
    )["Subnets"]
    return [subnet["SubnetId"] for subnet in sorted(found, key=lambda subnet: subnet["AvailabilityZone"])]
