"""Laws that every plan keeps, and worked examples of what is proposed and what is refused."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from policies.domain.bound import lower_bound
from policies.domain.checker import check
from policies.domain.eligibility import refused_nodes
from policies.domain.optimizer import potential, propose
from policies.domain.plan import PlanProposal
from policies.domain.policy import Rules, TemplateRules
from policies.domain.selection import allowed_offers
from policies.domain.shapes import CapacityType, ClusterSnapshot, Offer, Resources
from policies.tests import fleets, strategies
from policies.tests.fleets import NOW, ZONES, catalogue, demo, node, offer, rules, snapshot, workload

LAWS = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def plan_for(cluster: ClusterSnapshot, offers: list[Offer] | None = None, **changes: Any) -> PlanProposal:
    return propose(
        snapshot=cluster, offers=catalogue() if offers is None else offers, rules=rules(**changes), now=NOW
    )


def reasons(proposal: PlanProposal, kind: str = "node") -> dict[str, str]:
    return {refusal.subject: refusal.code for refusal in proposal.refusals if refusal.subject_kind == kind}


@LAWS
@given(cluster=strategies.snapshots(), pools=strategies.pools(), policy=strategies.rules())
def test_given_any_cluster_when_proposing_then_the_plan_is_valid_cheaper_and_explained(
    cluster: ClusterSnapshot, pools: list[int], policy: Rules
) -> None:
    offers = strategies.chosen(pools)
    plan = propose(snapshot=cluster, offers=offers, rules=policy, now=NOW)

    assert check(snapshot=cluster, proposal=plan, offers=offers, rules=policy) == ()
    assert plan.usd_per_hour_after <= plan.usd_per_hour_before
    assert plan.breakdown.total == plan.usd_per_hour_saved
    removed = {removal.node_id for wave in plan.waves for removal in wave.removals}
    assert {n.id for n in cluster.nodes} - removed <= set(reasons(plan))
    assert not removed & set(reasons(plan))
    assert 0 <= plan.risk <= 1

    assert_floors_hold(cluster, plan, policy)
    allowed, _ = allowed_offers(offers, policy, NOW)
    bound = lower_bound(cluster, allowed, refused_nodes(cluster, policy, NOW), policy)
    assert bound <= plan.lower_bound_usd_per_hour <= plan.usd_per_hour_after


def assert_floors_hold(cluster: ClusterSnapshot, plan: PlanProposal, policy: Rules) -> None:
    present, ready = len(cluster.nodes), sum(n.ready and not n.cordoned for n in cluster.nodes)
    for wave in plan.waves:
        present, ready = present + len(wave.launches), ready + len(wave.launches)
        assert len(wave.removals) <= max(1, present * policy.max_disrupted_percent // 100)
        present, ready = present - len(wave.removals), ready - len(wave.removals)
        assert not wave.removals or ready >= max(3, policy.min_nodes)
    assert plan.nodes_after == present


@settings(LAWS, max_examples=25)
@given(cluster=strategies.snapshots(), pools=strategies.pools(), policy=strategies.rules())
def test_given_any_cluster_when_proposing_twice_then_the_plans_are_equal(
    cluster: ClusterSnapshot, pools: list[int], policy: Rules
) -> None:
    offers = strategies.chosen(pools)
    first = propose(snapshot=cluster, offers=offers, rules=policy, now=NOW)

    assert propose(snapshot=cluster, offers=offers, rules=policy, now=NOW) == first


@pytest.mark.parametrize("node_count", [16, 26, 58])
def test_given_a_poorly_packed_on_demand_fleet_when_proposing_then_it_costs_at_least_45_percent_less(
    node_count: int,
) -> None:
    plan = plan_for(demo(node_count))

    assert plan.usd_per_hour_after <= plan.usd_per_hour_before * Decimal("0.55")
    assert plan.breakdown.spot_replacement > 0
    assert plan.breakdown.bin_packing > 0


def test_given_a_plan_that_was_carried_out_when_proposing_again_then_nothing_is_left_to_do() -> None:
    cluster = demo(26)
    first = plan_for(cluster)

    second = plan_for(carried_out(cluster, first))

    assert second.usd_per_hour_saved <= first.usd_per_hour_before * Decimal("0.05")


def carried_out(cluster: ClusterSnapshot, plan: PlanProposal) -> ClusterSnapshot:
    removed = {removal.node_id for wave in plan.waves for removal in wave.removals}
    kept = [n for n in cluster.nodes if n.id not in removed]
    new = [
        node(
            launch.id,
            launch.instance_type,
            launch.zone,
            launch.capacity_type,
            usd_per_hour=launch.usd_per_hour,
        )
        for wave in plan.waves
        for launch in wave.launches
    ]
    return fleets.spread_out([*kept, *new], cluster.workloads)


def test_given_spot_launches_when_proposed_then_each_names_three_alternatives_and_on_demand_last() -> None:
    plan = plan_for(demo(26), spot_percentage=100)

    spot = [launch for wave in plan.waves for launch in wave.launches if launch.capacity_type == "spot"]
    assert spot
    for launch in spot:
        assert len(launch.alternatives) >= 3
        assert launch.alternatives[-1].endswith(":on_demand")
        assert all(pool.endswith(":spot") for pool in launch.alternatives[:-1])


def test_given_fallback_is_off_when_proposed_then_no_alternative_is_on_demand() -> None:
    plan = plan_for(demo(16), spot_percentage=100, fallback_on_demand=False)

    launches = [launch for wave in plan.waves for launch in wave.launches]
    assert launches
    assert not [
        p for n in launches if n.capacity_type == "spot" for p in n.alternatives if p.endswith("on_demand")
    ]


def test_given_empty_nodes_when_proposing_then_they_go_first_as_empty_and_three_stay() -> None:
    cluster = snapshot([node(f"n-{i}", zone=ZONES[i % 3]) for i in range(6)], [], {})

    plan = plan_for(cluster, offers=[])

    removals = [removal for wave in plan.waves for removal in wave.removals]
    assert {removal.reason_code for removal in removals} == {"empty"}
    assert plan.nodes_after == 3
    assert plan.breakdown.bin_packing == plan.usd_per_hour_saved
    assert [len(wave.removals) for wave in plan.waves] == [1, 1, 1]


def test_given_too_few_nodes_when_proposing_then_the_floor_is_the_reason() -> None:
    cluster = snapshot([node(f"n-{i}", zone=ZONES[i % 3]) for i in range(3)], [], {})

    plan = plan_for(cluster, offers=[])

    assert plan.waves == ()
    assert plan.usd_per_hour_saved == 0
    assert set(reasons(plan)) == {"n-0", "n-1", "n-2"}


@pytest.mark.parametrize(
    ("traits", "code"),
    [
        ({"do_not_disrupt": True}, "do_not_disrupt"),
        ({"controlled": False}, "bare_pod"),
        ({"has_local_storage": True}, "local_storage"),
        ({"budget_count": 2, "budget_allows": 1}, "several_budgets"),
        ({"budget_count": 1, "budget_allows": 0, "minimum_healthy": 2}, "budget_never_allows"),
        ({"budget_count": 1, "budget_allows": 0, "minimum_healthy": 1}, "budget_exhausted"),
        ({"namespace": "kube-system"}, "protected_namespace"),
        ({"namespace": "payments"}, "protected_namespace"),
    ],
)
def test_given_a_pod_that_must_not_move_when_proposing_then_its_node_stays_and_says_why(
    traits: dict[str, Any], code: str
) -> None:
    nodes = [node(f"n-{i}", zone=ZONES[i % 3]) for i in range(8)]
    cluster = snapshot(nodes, [workload("web", 2, **traits)], {("web", "n-7"): 2})

    plan = plan_for(cluster, excluded_namespaces=frozenset({"payments"}))

    assert reasons(plan)["n-7"] == code
    assert reasons(plan, "workload") == {f"{traits.get('namespace', 'shop')}/web": code}
    assert plan.nodes_after < 8


@pytest.mark.parametrize(
    ("traits", "code"),
    [
        ({"protected_reason": "tagged"}, "protected"),
        ({"ready": False}, "not_ready"),
        ({"cordoned": True}, "cordoned"),
        ({"launched_at": NOW - timedelta(minutes=4)}, "too_young"),
        ({"labels": {"keep": "yes"}}, "excluded_label"),
    ],
)
def test_given_a_node_that_must_not_go_when_proposing_then_it_stays_and_says_why(
    traits: dict[str, Any], code: str
) -> None:
    nodes = [node(f"n-{i}", zone=ZONES[i % 3], group="") for i in range(7)]
    cluster = snapshot([*nodes, node("odd", **traits, group="")], [], {})

    plan = plan_for(cluster, excluded_labels={"keep": "yes"})

    assert reasons(plan)["odd"] == code
    assert plan.nodes_after < 8


def test_given_a_daemon_set_in_kube_system_when_proposing_then_its_nodes_may_go() -> None:
    nodes = [node(f"n-{i}", zone=ZONES[i % 3]) for i in range(5)]
    proxy = workload("kube-proxy", 5, namespace="kube-system", kind="DaemonSet")
    cluster = snapshot(nodes, [proxy], {("kube-proxy", n.id): 1 for n in nodes})

    assert plan_for(cluster).nodes_after == 3


def test_given_on_demand_only_pods_when_proposing_then_no_spot_node_carries_them() -> None:
    cluster = fleets.spread_out(
        [node(f"n-{i}", "m5.4xlarge", ZONES[i % 3]) for i in range(9)],
        [workload("ledger", 6, 1000, spot_tolerant=False), workload("web", 12, 500)],
    )

    plan = plan_for(cluster)

    launches = [launch for wave in plan.waves for launch in wave.launches]
    assert plan.usd_per_hour_saved > 0
    assert not [n for n in launches if n.capacity_type is CapacityType.SPOT and "ledger" in dict(n.pods)]


def test_given_a_namespace_barred_from_spot_when_proposing_then_its_pods_stay_on_demand() -> None:
    plan = plan_for(demo(16), spot_affinity={"shop": "none"})

    assert not [n for wave in plan.waves for n in wave.launches if n.capacity_type == "spot"]


def test_given_a_pool_share_when_proposing_then_whole_nodes_keep_it() -> None:
    plan = plan_for(demo(58), pool_share_percent=10)

    pools = [(launch.instance_type, launch.zone) for wave in plan.waves for launch in wave.launches]
    assert plan.usd_per_hour_saved > 0
    assert max(pools.count(pool) for pool in pools) <= max(1, plan.nodes_after // 10)


def test_given_a_spot_share_when_proposing_then_new_on_demand_nodes_make_up_the_rest() -> None:
    plan = plan_for(demo(58), spot_percentage=60)

    launches = [launch for wave in plan.waves for launch in wave.launches]
    spot = sum(n.usd_per_hour for n in launches if n.capacity_type is CapacityType.SPOT)
    assert 0 < spot <= sum(n.usd_per_hour for n in launches) * Decimal("0.6")


def test_given_ten_thousand_refused_pools_when_proposing_then_one_reason_a_family_is_given() -> None:
    refused = [
        replace(offer("m5.xlarge"), instance_type=f"m5.{i}xlarge", interruption_risk=0.9) for i in range(5000)
    ]
    cold = [replace(o, back_off_until=NOW + timedelta(minutes=3)) for o in catalogue() if o.family == "c5"]

    plan = plan_for(demo(16), offers=[*refused, *cold])

    assert [(r.subject, r.code) for r in plan.refusals if r.subject_kind == "pool"] == [
        ("c5", "pool_back_off"),
        ("m5", "pool_risk"),
    ]


def test_given_only_dearer_pools_when_proposing_then_nothing_is_bought() -> None:
    dear = [replace(o, usd_per_hour=o.usd_per_hour * 20) for o in catalogue()]

    plan = plan_for(demo(16), offers=dear)

    assert not [launch for wave in plan.waves for launch in wave.launches]


def test_given_a_saving_below_the_threshold_when_proposing_then_it_is_refused_but_still_the_potential() -> (
    None
):
    cluster = demo(16)

    plan = plan_for(cluster, min_saving_usd_per_hour=Decimal(100))
    open_saving = potential(snapshot=cluster, offers=catalogue(), rules=rules(), now=NOW)

    assert plan.waves == ()
    assert reasons(plan, "cluster") == {"acme": "saving_too_small"}
    assert open_saving.breakdown.total == open_saving.usd_per_hour_before - open_saving.usd_per_hour_after > 0


def test_given_pending_pods_when_a_plan_saves_then_they_get_a_place_too() -> None:
    cluster = replace(demo(26), pending={"w0": 3})

    plan = plan_for(cluster)

    assert plan.usd_per_hour_saved > 0
    assert check(snapshot=cluster, proposal=plan, offers=catalogue(), rules=rules()) == ()


def test_given_pending_pods_that_nothing_holds_when_proposing_then_they_are_refused_by_name() -> None:
    giant = workload("giant", 1, request=Resources(500_000, 1_000_000, 1))
    base = demo(26)
    cluster = replace(base, workloads=(*base.workloads, giant), pending={"giant": 1})

    plan = plan_for(cluster)

    assert plan.usd_per_hour_saved > 0
    assert reasons(plan, "workload")["shop/giant"] == "unplaceable"


def test_given_a_cluster_without_nodes_when_proposing_then_the_plan_is_empty() -> None:
    plan = plan_for(snapshot([], [], {}))

    assert (plan.waves, plan.nodes_after, plan.usd_per_hour_after) == ((), 0, 0)


PACKING = Path(__file__).resolve().parents[3] / "shared" / "data" / "packing"
START, SCRATCH = "log60-1000", Decimal("4.44")
"""A churned cluster, and the best price from scratch that the data's reference gives for it."""


@pytest.mark.skipif(not PACKING.is_dir(), reason="the packing workloads are not on this machine")
def test_given_a_churned_cluster_when_proposing_then_the_price_nears_the_reference() -> None:
    start = json.loads((PACKING / "migration" / f"{START}.json").read_text())
    types = {t["name"]: t for t in json.loads((PACKING / "catalogues" / "cat_GP32.json").read_text())}
    policy = Rules(
        template=TemplateRules(frozenset(t["fam"] for t in types.values()), frozenset(), strategy="cheapest"),
        spot_percentage=100,
        headroom_cpu_percent=0,
        headroom_memory_percent=0,
        pool_share_percent=100,
        max_risk=1,
        az_spread=False,
    )
    daemons = Resources(300, 400, 5)

    plan = propose(
        snapshot=_running(start, types, daemons), offers=_offered(types, daemons), rules=policy, now=NOW
    )

    assert plan.lower_bound_usd_per_hour <= SCRATCH
    assert plan.usd_per_hour_after <= SCRATCH * Decimal("1.08")


def _offered(types: dict[str, Any], daemons: Resources) -> list[Offer]:
    return [
        Offer(
            name, t["fam"], "x86_64", zone, zone, CapacityType.SPOT, Decimal(str(price)), 0.1,
            Resources(t["acpu"], t["amem"], t["pods"]), daemons, {},
        )
        for name, t in types.items()
        for zone, price in t["spot"].items()
    ]  # fmt: skip


def _running(start: dict[str, Any], types: dict[str, Any], daemons: Resources) -> ClusterSnapshot:
    nodes, pods = [], {}
    for index, running in enumerate(start["nodes"]):
        t = types[running["type"]]
        room = Resources(t["acpu"], t["amem"], t["pods"])
        capacity_type = CapacityType.SPOT if running["ct"] == "spot" else CapacityType.ON_DEMAND
        name = f"n-{index}"
        nodes.append(
            replace(
                node(name), instance_type=running["type"], zone=running["zone"], capacity_type=capacity_type,
                usd_per_hour=Decimal(str(running["price"])), allocatable=room, daemon_overhead=daemons,
            )
        )  # fmt: skip
        pods.update({(shape, name): count for shape, count in running["pods"].items()})
    counts = {shape: sum(n for (key, _), n in pods.items() if key == shape) for shape, _ in pods}
    shapes = {str(index): shape for index, shape in enumerate(start["shapes"])}
    items = [workload(key, n, shapes[key]["cpu"], shapes[key]["mem"]) for key, n in counts.items()]
    return snapshot(nodes, items, pods)


def test_given_nodes_with_one_pod_each_when_planned_then_the_reasons_speak_of_one_pod():
    nodes = [node(f"n{i}", zone=ZONES[i % 3]) for i in range(6)]
    there = snapshot(nodes, [workload("web", 6, 500, 1000)], {("web", n.id): 1 for n in nodes})

    plan = propose(snapshot=there, offers=catalogue(), rules=rules(), now=NOW)

    reasons = {r.reason for wave in plan.waves for r in wave.removals if r.pods_moved == 1}
    assert reasons
    assert all(reason.startswith(("Its pod fits on", "Its pod runs for")) for reason in reasons)
