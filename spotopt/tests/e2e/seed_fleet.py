"""Rows of clusters: their nodes, what runs on them, and what they cost over time."""

import random
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from accounts.models import Account
from clusters.models import Cluster, ClusterSample, Instance, NodeGroup, Placement, Workload

TYPES = {
    "m5.2xlarge": (7_910, 30_000, "0.384"),
    "m5.xlarge": (3_920, 14_600, "0.192"),
    "c5.4xlarge": (15_890, 29_000, "0.68"),
    "r5.2xlarge": (7_910, 62_000, "0.504"),
    "m6i.large": (1_930, 7_100, "0.096"),
    "c6a.2xlarge": (7_910, 14_600, "0.306"),
    "t3.xlarge": (3_920, 14_600, "0.1664"),
    "i3.xlarge": (3_920, 29_000, "0.312"),
}
NAMES = (
    "checkout",
    "search",
    "payments",
    "catalog",
    "gateway",
    "ledger",
    "mailer",
    "ranking",
    "sessions",
    "web",
)


def make_cluster(
    account: Account,
    name: str,
    now: datetime,
    *,
    env: str,
    heard: timedelta | None = timedelta(seconds=12),
    region: str = "eu-west-1",
) -> Cluster:
    seen = now - heard if heard is not None else None
    return Cluster.objects.create(
        organization=account.organization,
        account=account,
        name=name,
        region=region,
        arn=f"arn:aws:eks:{region}:123456789012:cluster/{name}",
        k8s_version="1.31",
        environment=env,
        status="active" if seen else "discovered",
        agent_installed=seen is not None,
        agent_version="1.0.0" if seen else "",
        last_heartbeat_at=seen,
        snapshot_at=seen,
        last_synced_at=now - timedelta(minutes=2),
    )


def make_nodes(
    cluster: Cluster,
    chance: random.Random,
    now: datetime,
    count: int,
    *,
    spot_share: float,
    measured: bool = True,
) -> list[Instance]:
    group = NodeGroup.objects.create(
        organization=cluster.organization,
        cluster=cluster,
        name="general",
        kind="managed_nodegroup",
        min_size=3,
        desired_capacity=count,
        max_size=count * 2,
    )
    rows = [
        _node(cluster, group, chance, now, number, spot_share, measured=measured) for number in range(count)
    ]
    return Instance.objects.bulk_create(rows)


def _node(
    cluster: Cluster,
    group: NodeGroup,
    chance: random.Random,
    now: datetime,
    number: int,
    spot_share: float,
    *,
    measured: bool,
) -> Instance:
    kind = chance.choices(list(TYPES), weights=[8, 6, 3, 3, 4, 3, 2, 1])[0]
    cpu, memory, price = TYPES[kind]
    is_spot = chance.random() < spot_share
    load = chance.uniform(0.1, 0.75)
    facts: dict[str, object] = {}
    if measured:
        facts = {
            "node_name": f"ip-10-0-{number // 200}-{number % 200}.{cluster.region}.compute.internal",
            "is_ready": chance.random() > 0.03,
            "is_cordoned": chance.random() < 0.02,
            "cpu_requested_millis": int(cpu * load),
            "memory_requested_mib": int(memory * load * 0.9),
            "cpu_util": 100 * load * chance.uniform(0.3, 0.9),
            "memory_util": 100 * load * chance.uniform(0.5, 1.0),
            "pod_count": chance.randint(4, 28),
            "node_seen_at": now,
        }
    return Instance(
        organization_id=cluster.organization_id,
        account_id=cluster.account_id,
        cluster=cluster,
        node_group=group,
        instance_id=f"i-{uuid4().hex[:17]}",
        instance_type=kind,
        lifecycle="spot" if is_spot else "on_demand",
        region=cluster.region,
        az=f"{cluster.region}{chance.choice('abc')}",
        state="running",
        price=Decimal(price) * (Decimal("0.35") if is_spot else 1),
        price_is_estimate=chance.random() < 0.02,
        launched_at=now - timedelta(hours=chance.randint(1, 700)),
        last_seen_at=now - timedelta(minutes=2),
        cpu_allocatable_millis=cpu,
        memory_allocatable_mib=memory,
        **facts,
    )


def make_workloads(
    cluster: Cluster, nodes: list[Instance], chance: random.Random, now: datetime, count: int
) -> None:
    rows, placements = [], []
    for number in range(count):
        namespace, name = chance.choice(("shop", "data", "platform")), f"{NAMES[number % 10]}-{number // 10}"
        row = Workload(
            organization_id=cluster.organization_id,
            cluster=cluster,
            key=f"{namespace}/Deployment/{name}",
            namespace=namespace,
            kind="Deployment",
            name=name,
            cpu_request_millis=chance.choice((100, 250, 500, 1000)),
            memory_request_mib=chance.choice((256, 512, 1024, 2048)),
            cpu_used_millis=chance.randint(20, 200),
            memory_used_mib=chance.randint(80, 400),
            budget_count=1,
            budget_allows=chance.choice((None, 0, 1, 2)),
            reported_at=now,
        )
        homes = chance.sample(nodes, k=min(len(nodes), chance.randint(1, 14)))
        counts = [chance.randint(1, 4) for _ in homes]
        row.replicas = row.ready_replicas = sum(counts)
        rows.append(row)
        placements += [
            Placement(organization_id=cluster.organization_id, workload=row, instance=home, count=size)
            for home, size in zip(homes, counts, strict=True)
        ]
    rows[0].pending_replicas, rows[0].replicas = 2, rows[0].replicas + 2
    Workload.objects.bulk_create(rows)
    Placement.objects.bulk_create(placements)
    cluster.pod_count, cluster.pending_pods = sum(row.ready_replicas for row in rows), 2
    cluster.save()


def make_samples(cluster: Cluster, chance: random.Random, now: datetime, *, hours: int, minutes: int) -> None:
    usd = sum((row.price or Decimal(0) for row in cluster.instances.all()), Decimal(0))
    nodes = cluster.instances.count()
    steps = hours * 60 // minutes
    ClusterSample.objects.bulk_create(
        ClusterSample(
            organization_id=cluster.organization_id,
            cluster=cluster,
            taken_at=now - timedelta(minutes=minutes * (steps - step)),
            usd_per_hour=usd * Decimal(str(round(1.3 - 0.3 * step / steps + chance.uniform(-0.02, 0.02), 4))),
            nodes=nodes,
            spot_nodes=0,
            pods=cluster.pod_count,
            pending_pods=0,
        )
        for step in range(steps)
    )
