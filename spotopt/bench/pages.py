"""Server time and queries of the busiest pages: 50 clusters, 5,000 nodes, 50,000 pods.

Run ``python -m spotopt.bench.pages``. Each page is served by Django's own handler, middleware and templates
included, beside a page of the same size that asks for nothing (the probe). The aims are a 95th percentile
of 150 ms, and as many queries with 50 clusters as with 5.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from statistics import quantiles
from typing import Any
from uuid import UUID

from spotopt.bench.scratch import scratch_stores

ROUNDS = 60
AIM_MS = 150.0
NODES_PER_CLUSTER = 100
PODS_PER_NODE = 10
WORKLOADS_PER_CLUSTER = 40


@dataclass(frozen=True, slots=True)
class Page:
    """What one page cost."""

    name: str
    clusters: int
    p50_ms: float
    p95_ms: float
    queries: int
    kilobytes: float


def main() -> int:
    """Print a line for each page; the exit status says whether the aims were met."""
    with tempfile.TemporaryDirectory() as name, scratch_stores(Path(name)):
        few, many = list(measure(5)), list(measure(50))
    for page in [*few, *many]:
        sys.stdout.write(
            f"{page.clusters:3d} clusters  {page.name:<10} p50 {page.p50_ms:6.1f} ms  "
            f"p95 {page.p95_ms:6.1f} ms  {page.queries:3d} queries  {page.kilobytes:6.1f} kB\n"
        )
    is_constant = all(one.queries == two.queries for one, two in zip(few, many, strict=True))
    slowest = max(page.p95_ms for page in many)
    probe = many[-1].p50_ms
    sys.stdout.write(
        f"slowest p95 {slowest:.1f} ms (aim ≤ {AIM_MS:.0f}), {slowest / probe:.1f} × the bare probe; "
        f"queries {'constant' if is_constant else 'GROW'} from 5 to 50 clusters\n"
    )
    return 0 if is_constant and slowest <= AIM_MS else 1


def measure(clusters: int) -> Iterator[Page]:
    """Yield the cost of each page for an organization of this many clusters."""
    from django.test import Client  # noqa: PLC0415  # Django has to be set up first

    user, cluster_id = _populate(clusters)
    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(user)
    for name, path in (
        ("dashboard", "/dashboard"),
        ("clusters", "/clusters"),
        ("cluster", f"/clusters/{cluster_id}"),
        ("nodes", f"/clusters/{cluster_id}/nodes"),
        ("workloads", f"/clusters/{cluster_id}/workloads"),
        ("probe", "/healthz"),
    ):
        yield _time(client, name, path, clusters)


def _time(client: Any, name: str, path: str, clusters: int) -> Page:
    from django.db import connection  # noqa: PLC0415
    from django.test.utils import CaptureQueriesContext  # noqa: PLC0415

    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.status_code)  # noqa: S101, PLR2004
    with CaptureQueriesContext(
        connection,
    ) as captured:
        client.get(path)
    queries = len(captured)  # before the next request empties the log
    spent = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        client.get(path)
        spent.append((time.perf_counter() - begun) * 1000)
    cuts = quantiles(spent, n=20)
    return Page(name, clusters, cuts[9], cuts[18], queries, len(answer.content) / 1000)


def _populate(clusters: int) -> tuple[Any, UUID]:
    """Create an organization of this size and return its owner and one cluster."""
    from django.db import connection  # noqa: PLC0415

    from accounts.models import Account, Membership, Organization, User  # noqa: PLC0415
    from clusters.models import Cluster, Instance  # noqa: PLC0415
    from spotopt.core.tenancy import tenant  # noqa: PLC0415

    owner = User.objects.create_user(
        f"bench{clusters}@spotopt.example", "Bench-2026", onboarding_skipped_at=_now()
    )
    organization = Organization.objects.create(
        name=f"Bench {clusters}", slug=f"bench-{clusters}", owner=owner
    )
    Membership.objects.create(user=owner, organization=organization, role=Membership.Role.OWNER)
    with tenant(organization.pk):
        account = Account.objects.create(
            organization=organization, alias="Main", status="active",
            aws_account_id=f"{111100000000 + clusters}",
            role_arn=f"arn:aws:iam::{111100000000 + clusters}:role/SpotOptimizerRole", last_scan_at=_now(),
        )  # fmt: skip
        rows = Cluster.objects.bulk_create(_clusters(account, clusters))
        instances = Instance.objects.bulk_create(
            instance
            for number, row in enumerate(rows)
            for instance in _instances(account, row, number, clusters)
        )
        _run(rows, instances)
        _remember(rows)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")  # as autovacuum would have by the time that anybody looks
    return owner, rows[0].pk


def _now() -> Any:
    from spotopt.core.clock import utcnow  # noqa: PLC0415

    return utcnow()


def _clusters(account: Any, count: int) -> Iterator[Any]:
    from clusters.models import Cluster  # noqa: PLC0415

    for number in range(count):
        yield Cluster(
            organization_id=account.organization_id, account=account, name=f"cluster-{number:03d}",
            region="us-east-1",
            arn=f"arn:aws:eks:us-east-1:{account.aws_account_id}:cluster/cluster-{number:03d}",
            status="active", agent_installed=True, agent_version="1.0.0", snapshot_at=_now(),
            last_heartbeat_at=_now(), last_synced_at=_now(), k8s_version="1.33",
            pod_count=NODES_PER_CLUSTER * PODS_PER_NODE,
        )  # fmt: skip


def _instances(account: Any, cluster: Any, number: int, clusters: int) -> Iterator[Any]:
    from clusters.models import Instance  # noqa: PLC0415

    for index in range(NODES_PER_CLUSTER):
        zone = "abc"[index % 3]
        yield Instance(
            organization_id=account.organization_id, account=account, cluster=cluster,
            instance_id=f"i-{clusters:04x}{number:06x}{index:07x}",
            instance_type=["m5.xlarge", "c6i.2xlarge"][index % 2],
            lifecycle=["on_demand", "spot"][index % 2], region="us-east-1", az=f"us-east-1{zone}",
            az_id=f"use1-az{index % 3 + 1}", price=Decimal("0.192000"),
            launched_at=_now() - timedelta(days=9),
            node_name=f"ip-10-{number}-0-{index}.ec2.internal", is_ready=True, cpu_allocatable_millis=3920,
            memory_allocatable_mib=14800, pods_allocatable=58, cpu_requested_millis=2100,
            memory_requested_mib=8000, pod_count=PODS_PER_NODE, cpu_util=31.0, memory_util=48.0,
            node_seen_at=_now(), last_seen_at=_now(),
        )  # fmt: skip


def _run(clusters: list[Any], instances: list[Any]) -> None:
    """Place ten pods on each node: forty workloads in each cluster, two or three of them on a node."""
    from clusters.models import Placement, Workload  # noqa: PLC0415

    workloads = Workload.objects.bulk_create(
        Workload(
            organization_id=cluster.organization_id, cluster=cluster, key=f"shop/Deployment/web-{index}",
            namespace="shop", kind="Deployment", name=f"web-{index}", replicas=25, ready_replicas=25,
            cpu_request_millis=200, memory_request_mib=512, reported_at=_now(),
        )
        for cluster in clusters
        for index in range(WORKLOADS_PER_CLUSTER)
    )  # fmt: skip
    by_cluster: dict[UUID, list[Any]] = {cluster.pk: [] for cluster in clusters}
    for workload in workloads:
        by_cluster[workload.cluster_id].append(workload)
    Placement.objects.bulk_create(
        Placement(
            organization_id=instance.organization_id, instance=instance, count=PODS_PER_NODE // 2,
            workload=by_cluster[instance.cluster_id][(index * 2 + part) % WORKLOADS_PER_CLUSTER],
        )
        for index, instance in enumerate(instances)
        for part in range(2)
    )  # fmt: skip


def _remember(clusters: list[Any]) -> None:
    """Give every cluster a day of samples, five minutes apart."""
    from clusters.models import ClusterSample  # noqa: PLC0415

    ClusterSample.objects.bulk_create(
        ClusterSample(
            organization_id=cluster.organization_id, cluster=cluster,
            taken_at=_now() - timedelta(minutes=5 * step),
            usd_per_hour=Decimal("19.2"), nodes=NODES_PER_CLUSTER, spot_nodes=50, pods=1000, pending_pods=0,
        )
        for cluster in clusters
        for step in range(288)
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
