from dataclasses import replace

import pytest

from simulator.fleet import NodePool
from simulator.kube import karpenter
from simulator.kube.karpenter import POOL
from simulator.kube.orders import CAPACITY_TYPE
from simulator.tests.world.standin import build_world, deployment, fleet_of, live

FAMILIES = ("m5", "m6i", "c5", "r5")
REGULAR = NodePool("regular", FAMILIES, ("on-demand",))
SPOT = NodePool("spot", FAMILIES, ("spot",), weight=10)


def cluster_with(*pools, workloads=(), nodes=1):
    world = build_world(fleet_of(*workloads, nodes=nodes, karpenter=pools), has_seller=True)
    return next(iter(world.clusters.values())).cluster


def scale(cluster, replicas, name="web"):
    body = cluster.store.get("deployments", "default", name)
    cluster.store.put("deployments", body | {"spec": body["spec"] | {"replicas": replicas}})


def change(cluster, name, **spec):
    body = cluster.store.get("nodepools", "", name)
    cluster.store.put("nodepools", body | {"spec": body["spec"] | spec})


def bought(cluster):
    """Living machines by pool: (instance type, capacity type)."""
    found = {}
    for machine in cluster.room.all():
        if machine.launched_by == "karpenter" and machine.is_alive:
            found.setdefault(machine.tags[POOL], []).append(machine)
    return found


def is_all_bound(cluster):
    return not cluster.index.unscheduled


BIG = deployment("web", 1, cpu_millis=1500, memory_mib=2048)


def test_given_pods_without_room_when_time_passes_then_nodes_come_from_the_heaviest_pool_and_take_them():
    cluster = cluster_with(REGULAR, SPOT, workloads=[BIG])

    scale(cluster, 12)
    live(cluster, 180)

    [(name, machines)] = bought(cluster).items()
    assert name == "spot"
    assert {machine.lifecycle for machine in machines} == {"spot"}
    assert is_all_bound(cluster)
    node = cluster.store.get("nodes", "", machines[0].private_dns)
    labels = node["metadata"]["labels"]
    assert (labels[POOL], labels[CAPACITY_TYPE]) == ("spot", "spot")
    tags = machines[0].tags
    assert tags["kubernetes.io/cluster/test"] == "owned"
    assert tags["karpenter.sh/nodeclaim"].startswith("spot-")
    status = cluster.store.get("nodepools", "", "spot")["status"]["resources"]
    assert int(status["nodes"]) == len(machines)
    assert int(status["cpu"]) == sum(cluster.shapes.shape(m.instance_type).vcpu for m in machines)


@pytest.mark.parametrize("obstacle", ["limit", "no capacity", "a taint", "a selector"])
def test_given_a_heavier_pool_that_cannot_serve_when_pods_wait_then_the_next_pool_does(monkeypatch, obstacle):
    cluster = cluster_with(REGULAR, SPOT, workloads=[BIG])
    template = cluster.store.get("nodepools", "", "spot")["spec"]["template"]
    if obstacle == "limit":
        change(cluster, "spot", limits={"cpu": "0"})
    elif obstacle == "no capacity":
        monkeypatch.setattr(type(cluster.shapes), "has_capacity", lambda *_: False)
    elif obstacle == "a taint":
        taints = [{"key": "team", "value": "x", "effect": "NoSchedule"}]
        change(cluster, "spot", template={"spec": template["spec"] | {"taints": taints}})
    else:
        body = cluster.store.get("deployments", "default", "web")
        body["spec"]["template"]["spec"]["nodeSelector"] = {CAPACITY_TYPE: "on-demand"}

    scale(cluster, 12)
    live(cluster, 180)

    assert list(bought(cluster)) == ["regular"]
    assert is_all_bound(cluster)


def test_given_a_limit_when_pods_need_more_then_the_pool_stays_within_it_and_they_wait():
    cluster = cluster_with(replace(SPOT, cpu_limit=8), workloads=[BIG])

    scale(cluster, 30)
    live(cluster, 180)

    vcpus = sum(cluster.shapes.shape(m.instance_type).vcpu for m in bought(cluster)["spot"])
    assert 0 < vcpus <= 8
    assert not is_all_bound(cluster)


def test_given_nodes_on_their_way_when_looked_again_then_no_second_ones_are_bought():
    cluster = cluster_with(SPOT, workloads=[BIG])

    scale(cluster, 12)
    live(cluster, 1)
    first = len(bought(cluster)["spot"])
    for _ in range(5):
        karpenter.run(cluster)
        live(cluster, 1)

    assert len(bought(cluster)["spot"]) == first > 0


def test_given_a_node_that_got_empty_when_the_time_is_over_then_it_goes_with_its_claim_and_no_sooner():
    cluster = cluster_with(replace(SPOT, consolidate_after="5m"), workloads=[BIG])
    scale(cluster, 4)
    live(cluster, 180)
    before = len(bought(cluster)["spot"])

    scale(cluster, 0)
    live(cluster, 240)
    meanwhile = len(bought(cluster)["spot"])
    live(cluster, 900)

    assert before == meanwhile > 0
    assert bought(cluster) == {}
    assert not list(cluster.store.bodies("nodeclaims"))
    assert cluster.store.get("nodepools", "", "spot")["status"]["resources"]["nodes"] == "0"


@pytest.mark.parametrize("rules", [{"consolidateAfter": "Never"}, {"budgets": [{"nodes": "0"}]}])
def test_given_rules_that_keep_empty_nodes_when_time_passes_then_they_stay(rules):
    cluster = cluster_with(SPOT, workloads=[BIG])
    change(cluster, "spot", disruption={"consolidateAfter": "30s"} | rules)
    scale(cluster, 4)
    live(cluster, 180)

    scale(cluster, 0)
    live(cluster, 600)

    assert len(bought(cluster)["spot"]) > 0


def test_given_a_cluster_without_karpenter_when_its_api_is_asked_then_there_is_no_such_path(served, admin):
    path = "/apis/karpenter.sh/v1/nodepools"

    with_it = admin.get(path).status_code
    served.cluster.has_karpenter = False

    assert (with_it, admin.get(path).status_code) == (200, 404)
