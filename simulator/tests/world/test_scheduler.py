from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.kube import engine
from simulator.kube.conditions import condition_of
from simulator.kube.eligibility import blocking_taint, is_cordoned, selects_node
from simulator.kube.nodeview import HOST, ZONE
from simulator.kube.podindex import requests_of
from simulator.kube.quantities import cpu_millis, memory_bytes
from simulator.tests.world.standin import START, capacity_label, empty_cluster, machine, pod

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
TYPES = ("m5.large", "m5.xlarge", "c5.large")
TAINT = {"key": "team", "value": "blue", "effect": "NoSchedule"}
TOLERATION = {"key": "team", "operator": "Equal", "value": "blue", "effect": "NoSchedule"}


def three_nodes(**more):
    return empty_cluster(*(machine(at + 1, zone=zone, **more) for at, zone in enumerate(ZONES)))


def add(cluster, *pods):
    for each in pods:
        cluster.store.create("pods", each, now=cluster.now)
    engine.step(cluster, cluster.now + timedelta(seconds=1))


def node_of(cluster, name):
    return cluster.store.get("pods", "default", name)["spec"].get("nodeName")


def zone_of(cluster, name):
    return cluster.store.get("nodes", "", node_of(cluster, name))["metadata"]["labels"][ZONE]


def reason_of(cluster, name):
    return condition_of(cluster.store.get("pods", "default", name), "PodScheduled")["message"]


def spread(skew=1, when="DoNotSchedule", key=ZONE):
    selector = {"matchLabels": {"app": "web"}}
    constraint = {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector}
    return {"topologySpreadConstraints": [constraint]}


def anti_affinity(key=HOST):
    term = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": key}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {"affinity": {"podAntiAffinity": required}}


machines = st.lists(
    st.tuples(
        st.sampled_from(ZONES), st.sampled_from(TYPES), st.booleans(), st.sampled_from(["red", "blue"])
    ),
    min_size=1,
    max_size=5,
)
demands = st.lists(
    st.tuples(
        st.integers(0, 2500),
        st.integers(0, 6000),
        st.booleans(),
        st.sampled_from([None, "red", "blue"]),
        st.sampled_from(["free", "spread", "apart"]),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(machines, demands)
def test_given_any_nodes_and_pods_when_scheduled_then_every_rule_holds_and_nothing_feasible_waits(
    chosen_machines, chosen_demands
):
    cluster = empty_cluster(
        *(
            machine(
                at + 1,
                zone=zone,
                instance_type=kind,
                taints=[TAINT] if tainted else [],
                labels={"color": color},
            )
            for at, (zone, kind, tainted, color) in enumerate(chosen_machines)
        )
    )
    for at, (cpu, memory, tolerant, color, relation) in enumerate(chosen_demands):
        spec = {"tolerations": [TOLERATION]} if tolerant else {}
        spec |= {"nodeSelector": {"color": color}} if color else {}
        spec |= {"free": {}, "spread": spread(), "apart": anti_affinity()}[relation]
        labels = {"app": "other" if relation == "free" else "web"}
        add(cluster, pod(f"pod-{at:02}", cpu=cpu, memory=memory, spec=spec, labels=labels))

    for node in cluster.store.bodies("nodes"):
        assert_node_is_lawful(cluster, node)
    for key in cluster.index.unscheduled:
        waiting = cluster.store.get("pods", *key)
        if waiting["spec"].keys() & {"topologySpreadConstraints", "affinity"}:
            continue
        assert not any(could_run(cluster, waiting, node) for node in cluster.store.bodies("nodes"))


def assert_node_is_lawful(cluster, node):
    pods = cluster.index.pods_on(node["metadata"]["name"])
    cpu, memory = (sum(each) for each in zip((0, 0), *map(requests_of, pods), strict=True))
    assert cpu <= cpu_millis(node["status"]["allocatable"]["cpu"])
    assert memory <= memory_bytes(node["status"]["allocatable"]["memory"])
    assert all(selects_node(each, node) and blocking_taint(each, node) is None for each in pods)
    repelling = [each for each in pods if "affinity" in each["spec"]]
    web = [each for each in pods if each["metadata"]["labels"]["app"] == "web"]
    assert not repelling or len(web) == 1


def could_run(cluster, waiting, node):
    cpu, memory = requests_of(waiting)
    used = cluster.index.used.get(node["metadata"]["name"], (0, 0, 0))
    allocatable = node["status"]["allocatable"]
    repelled = waiting["metadata"]["labels"]["app"] == "web"
    return (
        not repelled
        and selects_node(waiting, node)
        and blocking_taint(waiting, node) is None
        and not is_cordoned(waiting, node)
        and (cpu == 0 or used[0] + cpu <= cpu_millis(allocatable["cpu"]))
        and (memory == 0 or used[1] + memory <= memory_bytes(allocatable["memory"]))
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 3))
def test_given_a_hard_zone_spread_when_pods_are_placed_then_the_skew_never_exceeds_its_maximum(count, skew):
    cluster = three_nodes()

    add(cluster, *(pod(f"web-{at}", labels={"app": "web"}, spec=spread(skew)) for at in range(count)))

    zones = [zone_of(cluster, f"web-{at}") for at in range(count)]
    counts = [zones.count(zone) for zone in ZONES]
    assert max(counts) - min(counts) <= skew


def test_given_a_cordoned_zone_when_a_hard_spread_demands_it_then_the_pod_waits_for_it():
    cluster = three_nodes()
    node = next(cluster.store.bodies("nodes"))
    cluster.store.put("nodes", node | {"spec": node["spec"] | {"unschedulable": True}})

    add(cluster, *(pod(f"web-{at}", labels={"app": "web"}, spec=spread()) for at in range(3)))

    waiting = [name for _, name in cluster.index.unscheduled]
    assert len(waiting) == 1
    assert "1 node(s) were unschedulable" in reason_of(cluster, waiting[0])
    assert "2 node(s) didn't match pod topology spread constraints" in reason_of(cluster, waiting[0])


def test_given_anti_affinity_when_there_are_fewer_nodes_than_pods_then_the_rest_waits():
    cluster = three_nodes()

    add(cluster, *(pod(f"web-{at}", labels={"app": "web"}, spec=anti_affinity()) for at in range(4)))

    assert len({node_of(cluster, f"web-{at}") for at in range(3)}) == 3
    assert node_of(cluster, "web-3") is None


def test_given_a_repelling_pod_when_a_stranger_it_repels_arrives_then_the_stranger_goes_elsewhere():
    cluster = three_nodes()
    add(cluster, pod("lonely", labels={"app": "lonely"}, spec=anti_affinity(ZONE)))

    add(cluster, *(pod(f"web-{at}", labels={"app": "web"}) for at in range(6)))

    assert node_of(cluster, "lonely") not in {node_of(cluster, f"web-{at}") for at in range(6)}


def test_given_required_pod_affinity_when_placed_then_it_joins_its_friend():
    cluster = three_nodes()
    add(cluster, pod("friend"))
    term = {"labelSelector": {"matchLabels": {"app": "friend"}}, "topologyKey": HOST}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}

    add(cluster, pod("fan", spec={"affinity": {"podAffinity": required}}))

    assert node_of(cluster, "fan") == node_of(cluster, "friend")


def test_given_free_choice_when_pods_arrive_then_the_least_allocated_node_is_chosen():
    cluster = three_nodes()
    add(cluster, pod("big", cpu=3000, memory=9000))

    add(cluster, pod("next", cpu=500), pod("third", cpu=500))

    assert len({node_of(cluster, name) for name in ("big", "next", "third")}) == 3


def test_given_a_soft_taint_when_another_node_is_free_then_the_tainted_one_is_avoided():
    soft = {"key": "old", "value": "", "effect": "PreferNoSchedule"}
    cluster = empty_cluster(machine(1, taints=[soft]), machine(2))

    add(cluster, pod("one"), pod("two"))

    assert node_of(cluster, "one") == node_of(cluster, "two") == machine(2).private_dns


@pytest.mark.parametrize(("capacity_type", "lifecycle"), [("ON_DEMAND", "on-demand"), ("SPOT", "spot")])
def test_given_an_affinity_to_a_capacity_type_when_placed_then_only_such_nodes_serve(
    capacity_type, lifecycle
):
    kinds = ("spot", "on-demand")
    machines = (machine(at, lifecycle=kind, labels=capacity_label(kind)) for at, kind in enumerate(kinds, 1))
    cluster = empty_cluster(*machines)
    expression = {"key": "eks.amazonaws.com/capacityType", "operator": "In", "values": [capacity_type]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}

    add(cluster, *(pod(f"p{at}", spec={"affinity": affinity}) for at in range(5)))

    (name,) = {node_of(cluster, f"p{at}") for at in range(5)}
    assert cluster.machine_of(cluster.store.get("nodes", "", name)).lifecycle == lifecycle


def test_given_no_room_when_a_pod_waits_then_it_says_why_and_a_new_node_takes_it():
    cluster = empty_cluster(machine(1))
    add(cluster, pod("huge", cpu=3500), pod("late", cpu=3500))
    waiting = next(name for _, name in cluster.index.unscheduled)
    assert reason_of(cluster, waiting) == "0/1 nodes are available: 1 Insufficient cpu."

    cluster.room.launch(machine(2, at=cluster.now))
    engine.run_until(cluster, cluster.now + timedelta(minutes=2), stride=timedelta(seconds=1))

    assert node_of(cluster, waiting) == machine(2).private_dns
    assert cluster.store.get("pods", "default", waiting)["status"]["phase"] == "Running"


def test_given_higher_priority_when_room_is_short_then_it_is_placed_first():
    cluster = empty_cluster(machine(1))
    cluster.store.create("pods", pod("low", cpu=3000), now=START)
    cluster.store.create("pods", pod("high", cpu=3000, spec={"priority": 1000}), now=START)

    engine.step(cluster, cluster.now + timedelta(seconds=1))

    assert node_of(cluster, "high") is not None
    assert node_of(cluster, "low") is None
