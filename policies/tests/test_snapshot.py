from datetime import timedelta
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
from policies.domain import shapes
from policies.domain.shapes import CapacityType
from policies.selectors.snapshot import cluster_snapshot, offers, quotes
from policies.tests.factories import PolicyFactory
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


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


def test_given_every_rule_about_other_pods_when_read_then_the_engine_sees_it(cluster, two_zones):
    in_json = {
        "alternatives": [
            [{"key": "disk", "operator": "In", "values": ["ssd"]}],
            [{"key": "old", "operator": "Exists"}],
        ],
        "spread": [
            {
                "topology_key": ZONE,
                "max_skew": 1,
                "min_domains": 2,
                "counts_own": False,
                "also_counts": ["shop/db"],
                "honors_taints": True,
            }
        ],
        "pod_affinity": [{"topology_key": ZONE, "workloads": ["shop/db"]}],
        "pod_anti_affinity": [{"topology_key": HOST, "workloads": ["shop/api"]}],
        "on_demand": "40%",
    }
    WorkloadFactory(
        cluster=cluster, key="shop/web", replicas=4, constraints=in_json, ephemeral_request_mib=70
    )

    [web] = cluster_snapshot(cluster.pk).workloads

    assert web.alternatives == (
        (shapes.Requirement("disk", "In", ("ssd",)),),
        (shapes.Requirement("old", "Exists"),),
    )
    assert web.spread == (shapes.SpreadRule(ZONE, 1, 2, ("shop/db",), counts_own=False, honors_taints=True),)
    assert web.pod_affinity == (shapes.PodTerm(ZONE, ("shop/db",)),)
    assert web.pod_anti_affinity == (shapes.PodTerm(HOST, ("shop/api",)),)
    assert (web.on_demand_minimum, web.request.ephemeral_mib) == (2, 70)


@pytest.mark.parametrize(
    ("amount", "pods"), [("", 0), ("3", 3), ("9", 4), ("25%", 1), ("26%", 2), ("100%", 4)]
)
def test_given_a_part_on_demand_when_read_then_it_is_a_number_of_pods(cluster, amount, pods):
    WorkloadFactory(cluster=cluster, replicas=4, constraints={"on_demand": amount})

    assert [w.on_demand_minimum for w in cluster_snapshot(cluster.pk).workloads] == [pods]


def test_given_rules_about_a_workload_that_is_split_when_read_then_they_mean_its_parts(cluster, two_zones):
    disks = {"zonal_volumes": True, "spread": [{"topology_key": HOST, "max_skew": 1}]}
    database = WorkloadFactory(
        cluster=cluster, key="shop/db", kind="StatefulSet", constraints=disks, replicas=2
    )
    near = {"pod_affinity": [{"topology_key": ZONE, "workloads": ["shop/db"]}]}
    WorkloadFactory(cluster=cluster, key="shop/web", constraints=near)
    for node in two_zones:
        PlacementFactory(workload=database, instance=node, count=1)

    found = {workload.id: workload for workload in cluster_snapshot(cluster.pk).workloads}

    parts = ("shop/db@us-east-1a", "shop/db@us-east-1b")
    assert found["shop/web"].pod_affinity == (shapes.PodTerm(ZONE, ("shop/db", *parts)),)
    assert found[parts[0]].spread == (shapes.SpreadRule(HOST, 1, also_counts=(parts[1],)),)


def test_given_nodes_with_gpus_and_disks_when_read_then_new_nodes_get_the_smallest_disk(cluster, two_zones):
    sizes = [18_000, 90_000]
    for node, size in zip(two_zones, sizes, strict=True):
        type(node).objects.filter(pk=node.pk).update(gpu_allocatable=1, ephemeral_allocatable_mib=size)
    InstanceType.objects.create(
        name="m6i.large", family="m6i", size="large", category="m", generation=6, arch="x86_64", vcpu=2,
        memory_mib=8192, max_pods=29, cpu_allocatable_millis=1930, memory_allocatable_mib=7000,
    )  # fmt: skip
    Price.objects.create(
        region="us-east-1", instance_type="m6i.large", capacity_type="on_demand",
        usd_per_hour=Decimal("0.096"), source="bundled", observed_at=utcnow(),
    )  # fmt: skip

    snapshot = cluster_snapshot(cluster.pk)

    assert [(n.allocatable.gpu, n.allocatable.ephemeral_mib) for n in snapshot.nodes] == [
        (1, s) for s in sizes
    ]
    assert {offer.allocatable.ephemeral_mib for offer in offers(snapshot)} == {18_000}


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


def test_given_prices_that_nobody_could_refresh_when_read_then_only_spot_is_planned_with_a_tenth_more(
    cluster, two_zones
):
    InstanceType.objects.create(
        name="m6i.large", family="m6i", size="large", category="m", generation=6, arch="x86_64", vcpu=2,
        memory_mib=8192, max_pods=29, cpu_allocatable_millis=1930, memory_allocatable_mib=7000,
    )  # fmt: skip
    common = {"region": "us-east-1", "instance_type": "m6i.large", "source": "aws"}
    old = utcnow() - timedelta(minutes=11)
    for zone_id, capacity_type, usd in (("", "on_demand", "0.096"), ("use1-az2", "spot", "0.03")):
        Price.objects.create(
            capacity_type=capacity_type, zone_id=zone_id, usd_per_hour=Decimal(usd), observed_at=old, **common
        )

    found = offers(cluster_snapshot(cluster.pk))

    assert {(o.capacity_type, o.usd_per_hour) for o in found} == {
        (CapacityType.ON_DEMAND, Decimal("0.096")), (CapacityType.SPOT, Decimal("0.033")),
    }  # fmt: skip
    assert quotes("us-east-1", {"n1": ("use1-az2", "m6i.large", "spot")}) == {"n1": Decimal("0.033")}


@pytest.mark.parametrize(
    ("enabled", "reason"), [(True, "Karpenter looks after its nodes itself, and is steered."), (False, "")]
)
def test_given_karpenters_nodes_when_it_is_steered_then_no_plan_may_touch_them(in_acme, enabled, reason):
    cluster = ClusterFactory()
    pool = NodeGroupFactory(cluster=cluster, kind="karpenter_nodepool")
    InstanceFactory(cluster=cluster, node_group=pool)
    other = InstanceFactory(cluster=cluster)
    PolicyFactory(cluster=cluster, config={"karpenter": {"enabled": enabled}})

    protected = {node.id: node.protected_reason for node in cluster_snapshot(cluster.pk).nodes}

    assert sorted(protected.values()) == ["", reason]
    assert protected[other.node_name] == ""
