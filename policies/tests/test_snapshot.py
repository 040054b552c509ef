from decimal import Decimal

import pytest

from clusters.models import InstanceType, Price
from clusters.tests.factories import (
    ClusterFactory,
    InstanceFactory,
    NodeGroupFactory,
    PlacementFactory,
    WorkloadFactory,
)
from policies.domain.shapes import CapacityType
from policies.selectors.snapshot import cluster_snapshot, offers
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict


@pytest.fixture
def cluster(in_acme):
    return ClusterFactory()


@pytest.fixture
def two_zones(cluster):
    group = NodeGroupFactory(cluster=cluster)
    return [
        InstanceFactory(cluster=cluster, node_group=group, az="us-east-1a", az_id="use1-az1"),
        InstanceFactory(cluster=cluster, node_group=group, az="us-east-1b", az_id="use1-az2"),
    ]


def test_given_no_report_yet_when_read_then_it_says_what_to_do(cluster):
    type(cluster).objects.update(snapshot_at=None)

    with pytest.raises(Conflict, match="has not reported yet"):
        cluster_snapshot(cluster.pk)


def test_given_disks_in_two_zones_when_read_then_each_zone_is_a_workload_of_its_own(cluster, two_zones):
    database = WorkloadFactory(
        cluster=cluster, kind="StatefulSet", constraints={"zonal_volumes": True}, replicas=3
    )
    PlacementFactory(workload=database, instance=two_zones[0], count=2)
    PlacementFactory(workload=database, instance=two_zones[1], count=1)

    snapshot = cluster_snapshot(cluster.pk)

    assert {(w.id, w.pinned_zone, w.replicas) for w in snapshot.workloads} == {
        (f"{database.key}@us-east-1a", "us-east-1a", 2),
        (f"{database.key}@us-east-1b", "us-east-1b", 1),
    }
    assert {p.workload_id for p in snapshot.placements} == {w.id for w in snapshot.workloads}


def test_given_daemon_sets_and_unmeasured_nodes_when_read_then_they_are_left_out(cluster, two_zones):
    WorkloadFactory(cluster=cluster, kind="DaemonSet")
    InstanceFactory(cluster=cluster, price=None)

    snapshot = cluster_snapshot(cluster.pk)

    assert snapshot.workloads == ()
    assert len(snapshot.nodes) == 2


def test_given_a_restored_minimum_when_read_then_only_the_dearest_nodes_above_it_may_go(cluster):
    group = NodeGroupFactory(cluster=cluster, name="web", keeps_minimum=True, min_size=2, desired_capacity=3)
    for number, price in enumerate(["0.10", "0.40", "0.20"]):
        InstanceFactory(cluster=cluster, node_group=group, node_name=f"n{number}", price=Decimal(price))
    free = InstanceFactory(cluster=cluster, node_group=NodeGroupFactory(cluster=cluster, name="free"))

    held = {node.id: node.protected_reason for node in cluster_snapshot(cluster.pk).nodes}

    reason = "web must keep 2 nodes; somebody had that minimum restored."
    assert held == {"n0": reason, "n1": "", "n2": reason, free.node_name: ""}


def test_given_prices_when_offers_are_read_then_on_demand_is_in_every_zone_and_spot_where_it_is_priced(
    cluster, two_zones, django_assert_num_queries
):
    InstanceType.objects.create(
        name="m6i.large", family="m6i", size="large", category="m", generation=6, arch="x86_64", vcpu=2,
        memory_mib=8192, max_pods=29, cpu_allocatable_millis=1930, memory_allocatable_mib=7000,
    )  # fmt: skip
    common = {"region": "us-east-1", "instance_type": "m6i.large", "observed_at": utcnow()}
    Price.objects.create(capacity_type="on_demand", usd_per_hour=Decimal("0.096"), source="bundled", **common)
    Price.objects.create(
        capacity_type="spot", zone_id="use1-az2", usd_per_hour=Decimal("0.03"), source="aws", **common
    )
    snapshot = cluster_snapshot(cluster.pk)

    with django_assert_num_queries(5):
        found = offers(snapshot)

    assert {(o.zone, o.capacity_type, o.usd_per_hour) for o in found} == {
        ("us-east-1a", CapacityType.ON_DEMAND, Decimal("0.096")),
        ("us-east-1b", CapacityType.ON_DEMAND, Decimal("0.096")),
        ("us-east-1b", CapacityType.SPOT, Decimal("0.03")),
    }
