from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from accounts.models import Account
from clusters.domain.reports import (
    Applied,
    InventoryReport,
    KarpenterState,
    NodePoolState,
    NodeState,
    WorkloadState,
)
from clusters.models import Cluster, DiscoveryRun, Instance, NodePool, Placement, Workload
from clusters.services.inventory import apply_report, record_heartbeat
from spotopt.core.clock import utcnow
from spotopt.core.errors import InvalidInput, NotFound

WEB, API = "shop/Deployment/web", "shop/Deployment/api"


@pytest.fixture
def cluster(in_acme):
    account = Account.objects.create(
        organization=in_acme, alias="main", aws_account_id="111122223333", status=Account.Status.ACTIVE
    )
    return Cluster.objects.create(organization=in_acme, account=account, name="prod", region="us-east-1")


@pytest.fixture
def machines(cluster):
    return [machine(cluster, number) for number in range(3)]


def machine(cluster, number, *, joined=True):
    return Instance.objects.create(
        organization_id=cluster.organization_id,
        account_id=cluster.account_id,
        cluster=cluster if joined else None,
        instance_id=f"i-{number:017x}",
        instance_type="m5.large",
        lifecycle=Instance.Lifecycle.ON_DEMAND,
        region="us-east-1",
        az="us-east-1a",
        launched_at=utcnow(),
    )


def node(number, **fields):
    defaults = {
        "name": f"node-{number}", "instance_id": f"i-{number:017x}", "is_ready": True, "is_cordoned": False,
        "cpu_allocatable_millis": 2000, "memory_allocatable_mib": 8000, "pods_allocatable": 29,
        "cpu_requested_millis": 500, "memory_requested_mib": 700, "pod_count": 3, "daemon_cpu_millis": 100,
        "daemon_memory_mib": 50, "daemon_pods": 2, "cpu_used_millis": 500, "memory_used_mib": None,
        "labels": {"zone": "a"}, "taints": (), "gpu_allocatable": 1, "ephemeral_allocatable_mib": 18_000,
        "daemon_ephemeral_mib": 200,
    }  # fmt: skip
    return NodeState(**(defaults | fields))


def workload(key, **fields):
    namespace, kind, name = key.split("/")
    defaults = {
        "key": key, "namespace": namespace, "kind": kind, "name": name, "replicas": 2, "ready_replicas": 2,
        "pending_replicas": 0, "cpu_request_millis": 250, "memory_request_mib": 300, "gpu_request": 0,
        "cpu_used_millis": None, "memory_used_mib": None, "budget_count": 1, "budget_allows": 1,
        "budget_minimum": 1, "constraints": {"do_not_disrupt": True}, "ephemeral_request_mib": 512,
    }  # fmt: skip
    return WorkloadState(**(defaults | fields))


FULL = InventoryReport(
    sequence=1,
    base=None,
    pods=4,
    pending_pods=1,
    nodes=(node(0), node(1)),
    workloads=(workload(WEB), workload(API)),
    placements={WEB: {"node-0": 2}, API: {"node-0": 1, "node-1": 1}},
)


def picture(cluster):
    """What the database holds of a cluster, without row ids and times."""
    instances = Instance.objects.filter(cluster=cluster).order_by("instance_id")
    workloads = Workload.objects.filter(cluster=cluster).order_by("key")
    placements = Placement.objects.filter(workload__cluster=cluster)
    skipped = {"_state", "id", "created_at", "updated_at", "node_seen_at", "reported_at", "launched_at"}
    plain = [
        {name: value for name, value in vars(row).items() if name not in skipped}
        for row in [*instances, *workloads]
    ]
    where = sorted(placements.values_list("workload__key", "instance__instance_id", "count"))
    return plain, where


def test_given_instances_when_a_full_report_arrives_then_nodes_workloads_and_placements_are_stored(
    cluster, machines
):
    applied = apply_report(cluster_id=cluster.pk, report=FULL)

    assert applied == Applied(1)
    first = Instance.objects.get(pk=machines[0].pk)
    assert (first.node_name, first.is_ready, first.cpu_util, first.memory_util) == (
        "node-0",
        True,
        25.0,
        None,
    )
    assert (first.cpu_allocatable_millis, first.daemon_pods, first.labels) == (2000, 2, {"zone": "a"})
    assert (first.gpu_allocatable, first.ephemeral_allocatable_mib, first.daemon_ephemeral_mib) == (
        1,
        18_000,
        200,
    )
    web = Workload.objects.get(key=WEB)
    assert web.ephemeral_request_mib == 512
    assert (web.replicas, web.budget_allows, web.constraints) == (2, 1, {"do_not_disrupt": True})
    assert picture(cluster)[1] == [
        (API, machines[0].instance_id, 1),
        (API, machines[1].instance_id, 1),
        (WEB, machines[0].instance_id, 2),
    ]
    cluster.refresh_from_db()
    assert (cluster.pod_count, cluster.pending_pods, cluster.snapshot_sequence) == (4, 1, 1)
    assert (cluster.status, cluster.agent_installed) == (Cluster.Status.ACTIVE, True)
    assert utcnow() - cluster.snapshot_at < timedelta(minutes=1)


def pool_state(name="default", **fields):
    defaults = {"spec": {"weight": 1}, "is_ours": False, "steers": "", "used": {"cpu": "8"},
                "managers": {"limits": ("helm",)}}  # fmt: skip
    return NodePoolState(name=name, **(defaults | fields))


def test_given_karpenter_when_reported_then_its_pools_are_kept_until_a_report_says_otherwise(
    cluster, machines
):
    pools = (pool_state(), pool_state("spotopt-default", is_ours=True, steers="default"))

    apply_report(cluster_id=cluster.pk, report=replace(FULL, karpenter=KarpenterState("running", pools)))
    apply_report(cluster_id=cluster.pk, report=InventoryReport(sequence=2, base=1, pods=0, pending_pods=0))
    kept = list(NodePool.objects.filter(cluster=cluster).order_by("name"))
    fewer = KarpenterState("running", (pool_state(spec={"weight": 2}),))
    apply_report(
        cluster_id=cluster.pk,
        report=InventoryReport(sequence=3, base=2, pods=0, pending_pods=0, karpenter=fewer),
    )

    cluster.refresh_from_db()
    assert cluster.karpenter == "running"
    assert [(row.name, row.steers, row.managers) for row in kept] == [
        ("default", "", {"limits": ["helm"]}), ("spotopt-default", "default", {"limits": ["helm"]}),
    ]  # fmt: skip
    assert NodePool.objects.get(cluster=cluster).spec == {"weight": 2}


@pytest.mark.parametrize(
    ("report", "expected"),
    [(FULL, ""), (replace(FULL, karpenter=KarpenterState("absent")), "absent")],
    ids=["an agent that cannot tell", "not installed"],
)
def test_given_pools_when_a_full_report_has_none_then_they_are_forgotten(cluster, machines, report, expected):
    known = KarpenterState("running", (pool_state(),))
    apply_report(cluster_id=cluster.pk, report=replace(FULL, karpenter=known))

    apply_report(cluster_id=cluster.pk, report=replace(report, sequence=9))

    cluster.refresh_from_db()
    assert (cluster.karpenter, cluster.node_pools.count()) == (expected, 0)


def test_given_an_unknown_word_for_karpenter_when_reported_then_nothing_is_stored(cluster, machines):
    with pytest.raises(InvalidInput):
        apply_report(cluster_id=cluster.pk, report=replace(FULL, karpenter=KarpenterState("sleeping")))

    cluster.refresh_from_db()
    assert cluster.snapshot_sequence == 0


def test_given_a_stored_report_when_the_same_comes_again_then_nothing_changes(cluster, machines):
    apply_report(cluster_id=cluster.pk, report=FULL)
    before = picture(cluster)

    assert apply_report(cluster_id=cluster.pk, report=FULL) == Applied(1)
    assert picture(cluster) == before


def test_given_a_delta_when_applied_then_rows_equal_those_of_the_full_report(cluster, machines):
    apply_report(cluster_id=cluster.pk, report=FULL)
    after = replace(
        FULL,
        sequence=2,
        pods=3,
        nodes=(node(1, is_cordoned=True), node(2)),
        workloads=(workload(API, replicas=3),),
        placements={API: {"node-1": 1, "node-2": 2}},
    )
    delta = replace(
        after,
        base=1,
        removed_nodes=frozenset({"node-0"}),
        removed_workloads=frozenset({WEB}),
    )

    assert apply_report(cluster_id=cluster.pk, report=delta) == Applied(2)
    by_delta = picture(cluster)

    assert apply_report(cluster_id=cluster.pk, report=replace(after, sequence=3)) == Applied(3)
    assert picture(cluster) == by_delta
    gone = Instance.objects.get(pk=machines[0].pk)
    assert (gone.node_name, gone.is_ready, gone.pod_count, gone.cpu_requested_millis) == ("", False, 0, 0)


def test_given_another_base_when_a_delta_arrives_then_it_asks_for_a_resync_and_stores_nothing(
    cluster, machines
):
    apply_report(cluster_id=cluster.pk, report=FULL)
    before = picture(cluster)
    delta = replace(FULL, sequence=9, base=7, nodes=(), removed_workloads=frozenset({WEB}))

    assert apply_report(cluster_id=cluster.pk, report=delta) == Applied(1, needs_resync=True)
    assert picture(cluster) == before


def test_given_a_node_without_instance_when_reported_then_it_is_kept_aside_and_one_scan_is_asked_for(
    cluster, machines, django_capture_on_commit_callbacks
):
    report = replace(FULL, nodes=(*FULL.nodes, node(8)), placements={WEB: {"node-8": 1, "node-0": 1}})

    with django_capture_on_commit_callbacks() as effects:
        first = apply_report(cluster_id=cluster.pk, report=report)
        again = apply_report(cluster_id=cluster.pk, report=replace(report, sequence=2))

    assert first.unknown_nodes == again.unknown_nodes == {"node-8"}
    assert picture(cluster)[1] == [(WEB, machines[0].instance_id, 1)]
    cluster.refresh_from_db()
    assert cluster.unknown_nodes == ["node-8"]
    assert DiscoveryRun.objects.filter(account=cluster.account).count() == 1
    tasks = [each.args[0] for each in effects if each.args and each.args[0] == "clusters.scan_account"]
    assert tasks == ["clusters.scan_account"]


def test_given_a_node_kept_aside_when_its_instance_is_known_then_the_next_report_stores_it(cluster, machines):
    report = replace(FULL, nodes=(node(8),), workloads=(workload(WEB),), placements={WEB: {"node-8": 2}})
    apply_report(cluster_id=cluster.pk, report=report)
    machine(cluster, 8, joined=False)

    applied = apply_report(cluster_id=cluster.pk, report=replace(report, sequence=2, base=1))

    assert applied == Applied(2)
    row = Instance.objects.get(node_name="node-8")
    assert row.cluster == cluster
    assert picture(cluster)[1] == [(WEB, row.instance_id, 2)]


def test_given_a_node_name_that_passed_to_a_new_instance_when_reported_then_only_the_new_one_bears_it(
    cluster, machines
):
    apply_report(cluster_id=cluster.pk, report=FULL)
    reborn = node(2, name="node-0")
    delta = InventoryReport(
        sequence=2, base=1, pods=4, pending_pods=0, nodes=(reborn,), placements={WEB: {"node-0": 2}}
    )

    apply_report(cluster_id=cluster.pk, report=delta)

    assert list(Instance.objects.filter(node_name="node-0").values_list("instance_id", flat=True)) == [
        machines[2].instance_id
    ]
    assert (WEB, machines[2].instance_id, 2) in picture(cluster)[1]


def test_given_an_instance_of_another_account_when_reported_then_it_is_not_touched(
    cluster, machines, in_acme
):
    elsewhere = Account.objects.create(organization=in_acme, alias="other", aws_account_id="444455556666")
    theirs = machine(cluster, 9, joined=False)
    Instance.objects.filter(pk=theirs.pk).update(account=elsewhere)

    applied = apply_report(cluster_id=cluster.pk, report=replace(FULL, nodes=(node(9),), placements={}))

    assert applied.unknown_nodes == {"node-9"}
    theirs.refresh_from_db()
    assert theirs.node_name == ""
    assert theirs.cluster_id is None


def test_given_many_rows_when_a_full_report_arrives_then_the_query_count_stays_the_same(
    cluster, django_assert_num_queries
):
    for number in range(40):
        machine(cluster, number)
    keys = [f"shop/Deployment/app-{number}" for number in range(60)]
    report = InventoryReport(
        sequence=1,
        base=None,
        pods=60,
        pending_pods=0,
        nodes=tuple(node(number) for number in range(40)),
        workloads=tuple(workload(key) for key in keys),
        placements={key: {f"node-{number % 40}": 1} for number, key in enumerate(keys)},
    )

    with django_assert_num_queries(13):
        apply_report(cluster_id=cluster.pk, report=report)


def test_given_a_stranger_cluster_when_reported_then_it_is_not_found(in_acme):
    with pytest.raises(NotFound):
        apply_report(cluster_id=uuid4(), report=FULL)


def test_given_a_heartbeat_when_recorded_then_the_cluster_shows_it(cluster):
    record_heartbeat(cluster_id=cluster.pk, agent_version="1.2.3")

    cluster.refresh_from_db()
    assert cluster.agent_version == "1.2.3"
    assert utcnow() - cluster.last_heartbeat_at < timedelta(minutes=1)
