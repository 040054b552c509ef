from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.fleet import Workload
from simulator.kube import engine, seeding
from simulator.kube.podindex import is_active, is_ready
from simulator.tests.world.standin import deployment, empty_cluster, live, machine

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")


def cluster_with(*workloads, nodes=3):
    cluster = empty_cluster(*(machine(at + 1, zone=ZONES[at % 3]) for at in range(nodes)))
    for name in ("default", "kube-system"):
        cluster.store.remove("namespaces", "", name)
    seeding.seed(cluster, workloads)
    live(cluster, 60)
    return cluster


def pods_of(cluster, app):
    return [
        each for each in cluster.store.bodies("pods")
        if each["metadata"]["labels"].get("app.kubernetes.io/name") == app
    ]  # fmt: skip


def change(cluster, resource, name, **spec):
    body = cluster.store.get(resource, "default", name)
    generation = {"generation": body["metadata"]["generation"] + 1}
    cluster.store.put(
        resource, body | {"spec": body["spec"] | spec, "metadata": body["metadata"] | generation}
    )
    engine.step(cluster, cluster.now)


def new_template(cluster, resource, name):
    template = cluster.store.get(resource, "default", name)["spec"]["template"]
    metadata = template["metadata"] | {"annotations": {"restartedAt": cluster.now.isoformat()}}
    return template | {"metadata": metadata}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_given_any_sizes_when_a_deployment_is_scaled_then_exactly_that_many_pods_run(sizes):
    cluster = cluster_with(deployment("web", 2))

    for size in sizes:
        change(cluster, "deployments", "web", replicas=size)
        live(cluster, 60)

        assert sum(is_ready(each) for each in pods_of(cluster, "web")) == size
        status = cluster.store.get("deployments", "default", "web")["status"]
        assert (status["replicas"], status["readyReplicas"]) == (size, size)


def test_given_a_new_template_when_rolling_then_readiness_never_falls_below_three_quarters():
    cluster = cluster_with(deployment("web", 8))
    before = {each["metadata"]["name"] for each in pods_of(cluster, "web")}
    change(cluster, "deployments", "web", template=new_template(cluster, "deployments", "web"))

    fewest, most = 8, 0
    for _ in range(300):
        live(cluster, 1)
        active = [each for each in pods_of(cluster, "web") if is_active(each)]
        fewest, most = min(fewest, sum(map(is_ready, active))), max(most, len(active))

    after = {each["metadata"]["name"] for each in pods_of(cluster, "web")}
    assert len(after) == 8
    assert not before & after
    assert (fewest, most) == (6, 10)
    assert cluster.store.get("deployments", "default", "web")["status"]["updatedReplicas"] == 8


def test_given_surge_only_when_a_single_replica_restarts_then_it_is_never_away():
    cluster = cluster_with(deployment("single", 1))
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    change(cluster, "deployments", "single", strategy=strategy)
    change(cluster, "deployments", "single", template=new_template(cluster, "deployments", "single"))

    for _ in range(120):
        live(cluster, 1)
        assert any(is_ready(each) and is_active(each) for each in pods_of(cluster, "single"))

    assert len(pods_of(cluster, "single")) == 1


def test_given_a_stateful_set_when_a_pod_ends_then_it_returns_under_its_name_in_its_zone():
    redis = Workload("StatefulSet", "default", "redis", 3, 100, 128, spread_zones=True, volume_gib=10)
    cluster = cluster_with(redis, nodes=6)
    live(cluster, 120)
    old = cluster.store.get("pods", "default", "redis-1")
    zone = cluster.store.get("nodes", "", old["spec"]["nodeName"])["metadata"]["labels"]
    cluster.delete_pod("default", "redis-1", cause="eviction")

    live(cluster, 120)

    new = cluster.store.get("pods", "default", "redis-1")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert is_ready(new)
    assert cluster.store.get("nodes", "", new["spec"]["nodeName"])["metadata"]["labels"][
        "topology.kubernetes.io/zone"
    ] == zone["topology.kubernetes.io/zone"]  # fmt: skip


def test_given_a_stateful_set_when_it_starts_then_its_pods_come_one_after_the_other():
    cluster = cluster_with(Workload("StatefulSet", "default", "db", 3, 100, 128))
    live(cluster, 60)

    created = [
        cluster.store.get("pods", "default", f"db-{at}")["metadata"]["creationTimestamp"] for at in range(3)
    ]

    assert created == sorted(set(created))


def test_given_a_daemon_set_when_nodes_come_and_are_cordoned_then_each_has_one_pod():
    cluster = cluster_with(Workload("DaemonSet", "default", "agent", 0, 50, 64))
    node = cluster.store.get("nodes", "", machine(1).private_dns)
    cluster.store.put("nodes", node | {"spec": node["spec"] | {"unschedulable": True}})
    cluster.room.launch(machine(9, at=cluster.now))

    live(cluster, 120)

    where = sorted(each["spec"]["nodeName"] for each in pods_of(cluster, "agent"))
    assert where == sorted(each["metadata"]["name"] for each in cluster.store.bodies("nodes"))
    assert len(where) == 4
    assert all(is_ready(each) for each in pods_of(cluster, "agent"))


@pytest.mark.parametrize("replicas", [0, 3])
def test_given_a_cordon_when_lifted_then_the_taint_comes_and_goes(replicas):
    cluster = cluster_with(deployment("web", replicas))
    name = machine(1).private_dns
    node = cluster.store.get("nodes", "", name)

    cluster.store.put("nodes", node | {"spec": node["spec"] | {"unschedulable": True}})
    engine.step(cluster, cluster.now)
    (taint,) = cluster.store.get("nodes", "", name)["spec"]["taints"]
    assert (taint["key"], taint["effect"]) == ("node.kubernetes.io/unschedulable", "NoSchedule")

    node = cluster.store.get("nodes", "", name)
    spec = {key: value for key, value in node["spec"].items() if key != "unschedulable"}
    cluster.store.put("nodes", node | {"spec": spec})
    engine.step(cluster, cluster.now)
    assert "taints" not in cluster.store.get("nodes", "", name)["spec"]


def test_given_a_no_execute_taint_when_pods_do_not_tolerate_it_then_they_leave():
    cluster = cluster_with(deployment("web", 6))
    name = machine(1).private_dns
    node = cluster.store.get("nodes", "", name)
    taint = {"key": "leave", "effect": "NoExecute"}

    cluster.store.put("nodes", node | {"spec": node["spec"] | {"taints": [taint]}})
    live(cluster, 120)

    assert all(each["spec"]["nodeName"] != name for each in pods_of(cluster, "web"))
    assert sum(is_ready(each) for each in pods_of(cluster, "web")) == 6


def test_given_time_passes_when_nothing_is_due_then_the_store_does_not_change():
    cluster = cluster_with(deployment("web", 6))
    live(cluster, 1)
    version, nodes = cluster.store.version, len(cluster.store.collections["nodes"].entries)

    live(cluster, timedelta(minutes=20).total_seconds())

    assert cluster.store.version - version <= nodes * 5
