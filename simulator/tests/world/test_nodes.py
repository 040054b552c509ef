from datetime import timedelta

from simulator.fleet import Budget
from simulator.kube.conditions import condition_of
from simulator.kube.podindex import is_ready, is_terminating
from simulator.tests.world.standin import HandClock, build_world, deployment, fleet_of, live, machine


def a_world(**more):
    clock = HandClock()
    world = build_world(fleet_of(deployment("web", 6, budget=Budget(min_available=5)), **more), clock=clock)
    return world, world.clusters["test"].cluster


def node_names(cluster):
    return [each["metadata"]["name"] for each in cluster.store.bodies("nodes")]


def test_given_a_starting_fleet_when_the_world_begins_then_nodes_and_pods_are_ready_since_a_month():
    world, cluster = a_world()

    nodes, pods = list(cluster.store.bodies("nodes")), list(cluster.store.bodies("pods"))

    assert (len(nodes), len(pods)) == (3, 6)
    assert all(is_ready(each) for each in (*nodes, *pods))
    limit = (world.clock.now() - timedelta(days=29)).isoformat()
    assert all(each["metadata"]["creationTimestamp"] < limit for each in (*nodes, *pods))


def test_given_a_launched_machine_when_it_boots_then_it_joins_not_ready_and_turns_ready_on_time():
    _, cluster = a_world()
    launched = machine(50, at=cluster.now, lifecycle="spot", labels={"team": "blue"})
    cluster.room.launch(launched)
    boot_seconds = (launched.ready_at - launched.launched_at).total_seconds()

    live(cluster, boot_seconds - 2)
    joined = cluster.store.get("nodes", "", launched.private_dns)
    assert condition_of(joined, "Ready")["status"] == "False"
    assert "node.kubernetes.io/not-ready" in {each["key"] for each in joined["spec"]["taints"]}

    live(cluster, 4)
    ready = cluster.store.get("nodes", "", launched.private_dns)
    assert is_ready(ready)
    assert "taints" not in ready["spec"]
    assert 25 <= boot_seconds <= 70
    labels = ready["metadata"]["labels"]
    assert "eks.amazonaws.com/capacityType" not in labels  # only user data says it
    assert labels["topology.k8s.aws/zone-id"] == "use1-az1"
    assert labels["team"] == "blue"
    assert ready["spec"]["providerID"] == f"aws:///us-east-1a/{launched.instance_id}"
    assert ready["status"]["allocatable"]["cpu"] == "3920m"


def test_given_a_terminated_machine_when_it_is_gone_then_so_is_its_node_and_its_pods_run_elsewhere():
    world, cluster = a_world()
    victim = world.room.all()[0]

    world.room.terminate(victim.instance_id, reason="user", at=cluster.now)
    live(cluster, 1)
    lost = [each for each in cluster.index.pods_on(victim.private_dns) if is_ready(each)]
    live(cluster, 120)

    assert lost == []
    assert victim.private_dns not in node_names(cluster)
    assert victim.state == "terminated"
    assert sum(is_ready(each) for each in cluster.store.bodies("pods")) == 6


def test_given_broken_hardware_when_its_kubelet_is_silent_then_not_ready_then_pods_are_replaced():
    world, cluster = a_world()
    victim = world.room.all()[0]
    world.room.fail(victim.instance_id, at=cluster.now)

    live(cluster, 30)
    assert is_ready(cluster.store.get("nodes", "", victim.private_dns))
    live(cluster, 15)
    node = cluster.store.get("nodes", "", victim.private_dns)
    assert condition_of(node, "Ready")["status"] == "Unknown"
    assert not any(is_ready(each) for each in cluster.index.pods_on(victim.private_dns))

    live(cluster, 330)
    stuck = cluster.index.pods_on(victim.private_dns)
    assert stuck
    assert all(is_terminating(each) for each in stuck)
    assert sum(is_ready(each) for each in cluster.store.bodies("pods")) == 6


def test_given_a_two_minute_notice_when_it_runs_out_then_the_machine_ends_as_interrupted():
    _, cluster = a_world()
    spot = machine(60, at=cluster.now, lifecycle="spot")
    cluster.room.launch(spot)
    live(cluster, 90)
    cluster.room.warn(spot.instance_id, at=cluster.now)

    live(cluster, 119)
    assert spot.state == "running"
    live(cluster, 2)

    assert (spot.state, spot.termination_reason) == ("shutting-down", "spot-interruption")
    live(cluster, 60)
    assert spot.private_dns not in node_names(cluster)


def test_given_a_deleted_node_object_when_its_machine_lives_on_then_it_does_not_come_back():
    world, cluster = a_world()
    victim = world.room.all()[0]

    cluster.store.remove("nodes", "", victim.private_dns)
    live(cluster, 120)

    assert victim.private_dns not in node_names(cluster)
    assert victim.is_alive
    assert sum(is_ready(each) for each in cluster.store.bodies("pods")) == 6
