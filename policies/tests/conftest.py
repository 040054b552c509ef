"""What the tests of plans share."""

from decimal import Decimal

import pytest
import time_machine

from clusters.models import InstanceType, Price
from clusters.tests.factories import (
    ClusterFactory,
    InstanceFactory,
    NodeGroupFactory,
    PlacementFactory,
    WorkloadFactory,
)
from policies.models import OptimizationJob, Plan, PlanStep
from policies.services.policies import default_policy_for
from policies.tests.stage import Executor, wave_of
from spotopt.core.clock import utcnow


@pytest.fixture
def prices(db):
    """One type, sold on demand and on spot in the cluster's zone."""
    InstanceType.objects.create(
        name="m5.xlarge", family="m5", size="xlarge", category="m", generation=5, arch="x86_64", vcpu=4,
        memory_mib=16384, max_pods=58, cpu_allocatable_millis=3920, memory_allocatable_mib=14800,
    )  # fmt: skip
    for zone_id, capacity_type, usd in (("", "on_demand", "0.192"), ("use1-az1", "spot", "0.060")):
        Price.objects.create(
            region="us-east-1", zone_id=zone_id, instance_type="m5.xlarge", capacity_type=capacity_type,
            usd_per_hour=Decimal(usd), observed_at=utcnow(), source="aws",
        )  # fmt: skip


@pytest.fixture
def clock():
    with time_machine.travel("2026-11-23T12:00:00Z", tick=False) as traveller:
        yield traveller


@pytest.fixture
def cluster(in_acme, clock):
    row = ClusterFactory()
    group = NodeGroupFactory(cluster=row)
    for _number in range(10):
        node = InstanceFactory(cluster=row, node_group=group)
        workload = WorkloadFactory(cluster=row, replicas=1, ready_replicas=1)
        PlacementFactory(workload=workload, instance=node, count=1)
    default_policy_for(row)
    return row


@pytest.fixture
def executor(cluster, clock):
    return Executor(cluster, clock)


@pytest.fixture
def plan(cluster):
    """Two waves: each buys one spot node and removes one of the ten on-demand nodes."""
    nodes = list(cluster.instances.order_by("node_name")[:2])
    waves = [wave_of(number, node) for number, node in enumerate(nodes, start=1)]
    job = OptimizationJob.objects.create(
        organization_id=cluster.organization_id, cluster=cluster, status="completed", requested_by="test"
    )
    row = Plan.objects.create(
        organization_id=cluster.organization_id,
        cluster=cluster,
        job=job,
        policy_version=1,
        quoted_at=utcnow(),
        usd_per_hour_before=Decimal("1.92"),
        usd_per_hour_after=Decimal("1.656"),
        lower_bound_usd_per_hour=Decimal("0.5"),
        spot_replacement_usd_per_hour=Decimal("0.264"),
        bin_packing_usd_per_hour=0,
        risk=0.05,
        nodes_before=10,
        nodes_after=10,
        pods_moved=2,
        document={"waves": waves},
    )
    seq = 0
    for number, node in enumerate(nodes, start=1):
        target = {"instance_id": node.instance_id, "node_name": node.node_name, "reason": "Cheaper on spot."}
        for kind, name, usd, params in [
            ("launch", f"n{number}", "0.06", {}),
            ("cordon", node.node_name, "0.192", target),
            ("drain", node.node_name, "0.192", target),
            ("terminate", node.node_name, "0.192", target),
            ("verify", "cluster", "0", {}),
        ]:
            seq += 1
            PlanStep.objects.create(
                organization_id=cluster.organization_id, plan=row, seq=seq, wave=number, kind=kind,
                target=name, usd_per_hour=Decimal(usd), params=params,
            )  # fmt: skip
    return row
