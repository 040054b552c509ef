"""What the policy's thresholds refuse, and what passes them."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from policies.domain.document import resolve
from policies.domain.optimizer import propose
from policies.domain.plan import PlanProposal
from policies.domain.shapes import CapacityType, ClusterSnapshot, Offer, Taint
from policies.tests.fleets import NOW, ZONES, catalogue, node, offer, rules, snapshot, workload

ONE_ZONE = [pool for pool in catalogue() if pool.zone == ZONES[0]]
EMPTY = {"n-6", "n-7"}


def plan_for(cluster: ClusterSnapshot, offers: list[Offer], **changes: Any) -> PlanProposal:
    values = {"spot_percentage": 100, "pool_share_percent": 50, **changes}
    return propose(snapshot=cluster, offers=offers, rules=rules(**values), now=NOW)


def removed(plan: PlanProposal) -> set[str]:
    return {removal.node_id for wave in plan.waves for removal in wave.removals}


def codes(plan: PlanProposal) -> set[str]:
    return {refusal.code for refusal in plan.refusals if refusal.subject_kind in ("cluster", "node")}


def half_empty(capacity_type: CapacityType = CapacityType.ON_DEMAND, **changes: Any) -> ClusterSnapshot:
    """Eight nodes of one zone: six carry two pods each, which three could carry, and two carry none."""
    nodes = [node(f"n-{i}", capacity_type=capacity_type, **changes) for i in range(8)]
    pods = {("web", f"n-{i}"): 2 for i in range(6)}
    return snapshot(nodes, [workload("web", 12, 1500, 4000)], pods)


def test_given_a_plan_that_moves_many_pods_for_its_saving_when_gated_then_only_empty_nodes_go() -> None:
    plan = plan_for(half_empty(), [], min_saving_per_disruption=10.0)

    assert removed(plan) == EMPTY
    assert plan.pods_moved == 0


def test_given_no_empty_nodes_when_nothing_passes_the_gate_then_the_reason_weighs_saving_and_moves() -> None:
    cluster = half_empty()
    busy = replace(cluster, nodes=cluster.nodes[:6])

    plan = plan_for(busy, [], min_saving_per_disruption=10.0)

    assert plan.waves == ()
    assert "disrupts_too_much" in codes(plan)
    assert plan_for(busy, [], min_saving_per_disruption=0.5).pods_moved > 0


@pytest.mark.parametrize(
    ("percent", "per_month", "moves"),
    [(15, None, True), (90, None, False), (90, Decimal(50), True), (90, Decimal(5000), False)],
)
def test_given_a_least_saving_when_proposing_then_the_share_or_the_sum_is_enough(
    percent: int, per_month: Decimal | None, moves: bool
) -> None:
    plan = plan_for(half_empty(), [], min_saving_percent=percent, min_saving_usd_per_month=per_month)

    assert (plan.pods_moved > 0) is moves
    assert removed(plan) >= EMPTY


@pytest.mark.parametrize(
    ("changes", "exchanges"),
    [
        ({}, True),
        ({"spot_to_spot_saving_percent": 90}, False),
        ({"spot_to_spot_pools": 50}, False),
    ],
)
def test_given_dear_spot_nodes_when_proposing_then_spot_replaces_them_only_where_it_is_worth_it(
    changes: dict[str, int], exchanges: bool
) -> None:
    nodes = [node(f"n-{i}", capacity_type=CapacityType.SPOT, usd_per_hour=Decimal("0.3")) for i in range(6)]
    cluster = snapshot(nodes, [workload("web", 30, 1400, 5000)], {("web", f"n-{i}"): 5 for i in range(6)})

    plan = plan_for(cluster, ONE_ZONE, headroom_cpu_percent=0, headroom_memory_percent=0, **changes)

    assert bool(plan.waves) is exchanges
    assert ("spot_to_spot" in codes(plan)) is not exchanges


@pytest.mark.parametrize(("minutes", "returns"), [(45, False), (90, True)])
def test_given_on_demand_nodes_that_spotopt_launched_when_young_then_spot_waits(
    minutes: int, returns: bool
) -> None:
    launched = NOW - timedelta(minutes=minutes)
    cluster = half_empty(launched_at=launched, group_kind="spotopt")

    plan = plan_for(cluster, [offer("m5.xlarge")], spot_reversion=timedelta(minutes=60))

    assert bool(plan.waves) is returns
    assert ("on_demand_fallback" in codes(plan)) is not returns


def test_given_a_policy_document_when_resolved_then_its_thresholds_reach_the_optimizer() -> None:
    config = {
        "binpack": {
            "min_saving_percent": 20,
            "min_saving_usd_per_month": None,
            "min_saving_per_disruption": 0.75,
        },
        "provisioning": {
            "spot_to_spot_pools": 7,
            "spot_to_spot_saving_percent": 12,
            "spot_reversion_minutes": 45,
        },
    }

    resolved = resolve(config, rules().template)

    assert resolved.min_saving_percent == 20
    assert resolved.min_saving_usd_per_month is None
    assert resolved.min_saving_per_disruption == pytest.approx(0.75)
    assert (resolved.spot_to_spot_pools, resolved.spot_to_spot_saving_percent) == (7, 12)
    assert resolved.spot_reversion == timedelta(minutes=45)


def test_given_a_spot_node_that_just_came_when_proposing_then_the_return_to_spot_is_paced() -> None:
    cluster = half_empty(group_kind="spotopt", launched_at=NOW - timedelta(hours=2))
    came = node("n-new", capacity_type=CapacityType.SPOT, group_kind="spotopt", launched_at=NOW)
    earlier = replace(came, launched_at=NOW - timedelta(minutes=10))

    paced = plan_for(replace(cluster, nodes=(*cluster.nodes, came)), ONE_ZONE)
    due = plan_for(replace(cluster, nodes=(*cluster.nodes, earlier)), ONE_ZONE)

    assert paced.waves == ()
    assert "on_demand_fallback" in codes(paced)
    assert removed(due) >= {"n-0", "n-1"}


@pytest.mark.parametrize(("share", "returns"), [("0.80", True), ("0.90", False)])
def test_given_spot_hardly_below_on_demand_when_proposing_then_a_node_of_ours_stays_on_demand(
    share: str, returns: bool
) -> None:
    cluster = half_empty(group_kind="spotopt", launched_at=NOW - timedelta(hours=2))
    busy = replace(cluster, nodes=cluster.nodes[:3])
    pods = {("web", each.id): 4 for each in busy.nodes}
    full = snapshot(busy.nodes, [workload("web", 12, 1500, 4000)], pods)
    usd = (busy.nodes[0].usd_per_hour * Decimal(share)).quantize(Decimal("0.000001"))
    pools = [offer("m5.2xlarge", zone, usd_per_hour=usd, interruption_risk=0.0) for zone in ZONES]

    plan = plan_for(full, pools, min_saving_percent=0, min_saving_per_disruption=0.0)

    assert bool(plan.waves) is returns
    assert ("on_demand_fallback" in codes(plan)) is not returns


@pytest.mark.parametrize(
    ("binpack", "gone"),
    [
        ({"enabled": False}, set()),
        ({"method": "delete_empty"}, EMPTY),
    ],
)
def test_given_a_policy_that_empties_few_nodes_when_proposing_then_the_others_say_so(
    binpack: dict[str, Any], gone: set[str]
) -> None:
    cluster = half_empty()
    resolved = resolve({"binpack": binpack}, rules().template)

    plan = propose(snapshot=cluster, offers=ONE_ZONE, rules=resolved, now=NOW)

    assert removed(plan) == gone
    assert "consolidation_off" in codes(plan)
    assert plan.pods_moved == 0


def test_given_nodes_that_were_candidates_too_briefly_when_proposing_then_they_stay() -> None:
    cluster = half_empty(launched_at=NOW - timedelta(minutes=30))
    kept, gone = (
        propose(
            snapshot=cluster,
            offers=ONE_ZONE,
            rules=resolve({"binpack": {"stabilization_minutes": minutes}}, rules().template),
            now=NOW,
        )
        for minutes in (45, 15)
    )

    assert kept.waves == ()
    assert "too_young" in codes(kept)
    assert gone.waves


def test_given_an_excluded_taint_when_proposing_then_its_nodes_stay_and_say_so() -> None:
    cluster = half_empty()
    marked = replace(cluster.nodes[0], taints=(Taint("licence", "", "PreferNoSchedule"),))
    resolved = resolve({"exclusions": {"taints": ["licence"]}}, rules().template)

    plan = propose(
        snapshot=replace(cluster, nodes=(marked, *cluster.nodes[1:])),
        offers=ONE_ZONE,
        rules=resolved,
        now=NOW,
    )

    assert plan.waves
    assert marked.id not in removed(plan)
    assert "excluded_taint" in codes(plan)


@pytest.mark.parametrize(("default", "spot"), [("prefer", True), ("none", False)])
def test_given_a_default_affinity_when_proposing_then_unnamed_namespaces_follow_it(
    default: str, spot: bool
) -> None:
    resolved = resolve({"spot_affinity": {"default": default}}, rules().template)
    nodes = [node(f"n-{i}", "m5.4xlarge", ZONES[i % 3]) for i in range(9)]
    cluster = snapshot(nodes, [workload("web", 18, 1000, 3000)], {("web", f"n-{i}"): 2 for i in range(9)})

    plan = propose(snapshot=cluster, offers=catalogue(), rules=resolved, now=NOW)

    assert plan.waves
    launches = [launch for wave in plan.waves for launch in wave.launches if launch.pods]
    assert any(launch.capacity_type is CapacityType.SPOT for launch in launches) is spot
