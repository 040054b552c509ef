"""What takes the place of nodes that AWS takes back."""

from collections import Counter
from dataclasses import replace

from policies.domain.replacement import Lost, replacements
from policies.domain.shapes import CapacityType, Placement, SpreadRule
from policies.tests.fleets import NOW, ZONES, catalogue, node, rules, snapshot, workload

SPOT, ON_DEMAND = CapacityType.SPOT, CapacityType.ON_DEMAND


def spot_node(name, zone=ZONES[0], **changes):
    return node(name, "m5.2xlarge", zone, SPOT, **changes)


def choose(nodes, workloads, placements, *, lost, offers=None, shunned=frozenset(), told=None, **policy):
    seen = snapshot(nodes, workloads, {(p.workload_id, p.node_id): p.count for p in placements})
    taken = [
        Lost(each, pods, told if told is not None else sum(pods.values()))
        for each in nodes[:lost]
        for pods in [{p.workload_id: p.count for p in placements if p.node_id == each.id}]
    ]
    return replacements(
        snapshot=seen, lost=taken, offers=catalogue() if offers is None else offers, rules=rules(**policy),
        shunned=shunned, now=NOW,
    )  # fmt: skip


def busy(count=12, workload_=None):
    nodes = [spot_node(f"n{number}") for number in range(count)]
    web = workload_ or workload("web", replicas=4 * count, cpu=1000, memory=2048)
    return nodes, [web], [Placement("web", each.id, 4) for each in nodes]


def test_given_a_lost_node_when_replaced_then_its_pods_fit_and_its_pool_is_left_alone():
    (choice,) = choose(*busy(), lost=1, shunned=frozenset({("use1-az1", "m5.2xlarge")}))

    launch = choice.launch
    assert launch.capacity_type is SPOT
    assert (launch.zone_id, launch.instance_type) != ("use1-az1", "m5.2xlarge")
    room = next(o for o in catalogue() if o.pool == f"{launch.zone_id}:{launch.instance_type}:spot")
    assert (room.allocatable - room.daemon_overhead).cpu_millis >= 4000
    assert "use1-az1:m5.2xlarge:spot" not in launch.alternatives
    assert launch.alternatives[-1].endswith(":on_demand")


def test_given_many_lost_at_once_when_replaced_then_no_pool_takes_more_than_its_share():
    nodes, workloads, placements = busy(40)

    choices = choose(nodes, workloads, placements, lost=20)

    primary = [(choice.launch.instance_type, choice.launch.zone) for choice in choices]
    assert len(primary) == 20
    assert len(set(primary)) >= 4
    possible = Counter(
        pool
        for choice in choices
        for pool in (
            f"{choice.launch.zone_id}:{choice.launch.instance_type}:spot",
            *choice.launch.alternatives,
        )
        if pool.endswith(":spot")
    )
    assert max(possible.values()) <= 5, "whichever of its pools AWS takes for each launch"


def test_given_a_risky_cheap_pool_when_replaced_then_a_calm_one_is_preferred():
    calm, risky = (
        [o for o in catalogue() if o.capacity_type is SPOT and o.instance_type == kind and o.zone == ZONES[1]]
        for kind in ("m5.2xlarge", "c5.2xlarge")
    )
    offers = [replace(calm[0], interruption_risk=0.02), replace(risky[0], interruption_risk=0.45)]

    (choice,) = choose(*busy(), lost=1, offers=offers)

    assert choice.launch.instance_type == "m5.2xlarge"


def test_given_no_spot_pool_when_replaced_then_on_demand_serves_only_if_the_policy_falls_back():
    offers = [o for o in catalogue() if o.capacity_type is ON_DEMAND]

    (choice,) = choose(*busy(), lost=1, offers=offers)
    (refused,) = choose(*busy(), lost=1, offers=offers, fallback_on_demand=False)

    assert choice.launch.capacity_type is ON_DEMAND
    assert refused.launch is None
    assert refused.reason == "No pool that the policy allows holds the node's pods."


def test_given_pods_bound_to_a_zone_when_replaced_then_every_pool_is_in_it():
    bound = workload("web", replicas=48, cpu=1000, memory=2048, pinned_zone=ZONES[0])

    (choice,) = choose(*busy(workload_=bound), lost=1)

    pools = [f"{choice.launch.zone_id}:", *choice.launch.alternatives]
    assert all(pool.startswith("use1-az1:") for pool in pools)


def test_given_pods_spread_over_zones_when_replaced_then_the_nodes_own_zone_comes_first():
    spread = workload(
        "web", replicas=48, cpu=1000, memory=2048, spread=(SpreadRule("topology.kubernetes.io/zone", 1),)
    )

    choices = choose(*busy(workload_=spread), lost=5)

    assert {choice.launch.zone for choice in choices} == {ZONES[0]}


def test_given_pods_that_left_already_when_replaced_then_the_whole_node_is_replaced():
    nodes, workloads, placements = busy()

    (choice,) = choose(nodes, workloads, placements[1:], lost=1, told=4)

    room = next(
        o for o in catalogue() if o.pool == f"{choice.launch.zone_id}:{choice.launch.instance_type}:spot"
    )
    assert room.allocatable.cpu_millis >= nodes[0].allocatable.cpu_millis


def test_given_an_empty_node_when_lost_then_nothing_is_launched():
    nodes, workloads, placements = busy()

    (choice,) = choose(nodes, workloads, placements[1:], lost=1)

    assert choice.launch is None
