"""Spoilt copies of valid plans: the checker rejects each for the right reason."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from policies.domain.checker import check
from policies.domain.optimizer import propose
from policies.domain.plan import Breakdown, Launch, PlanProposal, Removal, Wave
from policies.domain.policy import Rules
from policies.domain.shapes import ClusterSnapshot, Resources, SpreadRule
from policies.tests.fleets import NOW, ZONES, catalogue, demo, node, rules, snapshot, workload

CLUSTER = demo(26)
PLAN = propose(snapshot=CLUSTER, offers=catalogue(), rules=rules(), now=NOW)
FIRST = next(removal for wave in PLAN.waves for removal in wave.removals)
CARRYING = next(removal for wave in PLAN.waves for removal in wave.removals if removal.pods_moved)
BOUGHT = next(launch for wave in PLAN.waves for launch in wave.launches)


def codes(plan: PlanProposal, cluster: ClusterSnapshot = CLUSTER, policy: Rules | None = None) -> set[str]:
    violations = check(snapshot=cluster, proposal=plan, offers=catalogue(), rules=policy or rules())
    return {violation.partition(":")[0] for violation in violations}


def with_launch(change: Callable[[Launch], Launch]) -> PlanProposal:
    def changed(launch: Launch) -> Launch:
        return change(launch) if launch.id == BOUGHT.id else launch

    return replace(
        PLAN, waves=tuple(replace(wave, launches=tuple(map(changed, wave.launches))) for wave in PLAN.waves)
    )


def with_removal(change: Callable[[Removal], Removal]) -> PlanProposal:
    def changed(removal: Removal) -> Removal:
        return change(removal) if removal.node_id == FIRST.node_id else removal

    return replace(
        PLAN, waves=tuple(replace(wave, removals=tuple(map(changed, wave.removals))) for wave in PLAN.waves)
    )


def in_one_wave() -> PlanProposal:
    launches = tuple(launch for wave in PLAN.waves for launch in wave.launches)
    removals = tuple(removal for wave in PLAN.waves for removal in wave.removals)
    return replace(PLAN, waves=(Wave(launches, removals),))


def removing_first_launching_later() -> PlanProposal:
    launches = tuple(launch for wave in PLAN.waves for launch in wave.launches)
    removals = tuple(Wave((), wave.removals) for wave in PLAN.waves)
    return replace(PLAN, waves=(*removals, Wave(launches, ())))


def test_given_the_plan_as_proposed_when_checked_then_nothing_is_wrong() -> None:
    assert PLAN.waves
    assert codes(PLAN) == set()


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (replace(PLAN, cluster_id="other"), "wrong_cluster"),
        (with_removal(lambda r: replace(r, node_id="ghost")), "unknown_node"),
        (with_removal(lambda r: replace(r, instance_id="i-other")), "wrong_instance"),
        (replace(PLAN, waves=(PLAN.waves[0], *PLAN.waves)), "removed_twice"),
        (with_launch(lambda n: replace(n, id="n2")), "launched_twice"),
        (replace(PLAN, usd_per_hour_after=PLAN.usd_per_hour_after - 1), "wrong_price"),
        (replace(PLAN, usd_per_hour_before=PLAN.usd_per_hour_before + 1), "wrong_price"),
        (with_removal(lambda r: replace(r, usd_per_hour=r.usd_per_hour + 1)), "wrong_price"),
        (replace(PLAN, breakdown=Breakdown(Decimal(1), Decimal(1))), "breakdown"),
        (replace(PLAN, lower_bound_usd_per_hour=PLAN.usd_per_hour_before), "bound"),
        (replace(PLAN, nodes_after=PLAN.nodes_after - 1), "node_count"),
        (with_launch(lambda n: replace(n, usd_per_hour=n.usd_per_hour / 2)), "stale_offer"),
        (with_launch(lambda n: replace(n, instance_type="m9.huge")), "unknown_pool"),
        (with_launch(lambda n: replace(n, alternatives=("nowhere:m5.large:spot",))), "unknown_pool"),
        (replace(PLAN, refusals=()), "no_reason"),
        (in_one_wave(), "wave_size"),
        (removing_first_launching_later(), "no_place"),
    ],
)
def test_given_a_spoilt_plan_when_checked_then_it_is_rejected_for_that_reason(
    plan: PlanProposal, code: str
) -> None:
    assert code in codes(plan)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"max_risk": 0.01}, "max_risk"),
        ({"max_price_per_hour": Decimal("0.01")}, "max_price"),
        ({"excluded_instance_types": frozenset({BOUGHT.instance_type})}, "excluded_type"),
        ({"template": replace(rules().template, families=frozenset({"x9"}))}, "template"),
        ({"template": replace(rules().template, architecture="arm64")}, "template"),
        ({"template": replace(rules().template, capacity_type="on_demand")}, "template"),
        (
            {
                "template": replace(
                    rules().template, excluded_sizes=frozenset({BOUGHT.instance_type.partition(".")[2]})
                )
            },
            "template",
        ),
        ({"spot_percentage": 10}, "spot_share"),
        ({"on_demand_base": 20}, "on_demand_base"),
        ({"min_nodes": 20}, "node_floor"),
        ({"max_nodes": 9}, "max_nodes"),
        ({"headroom_cpu_percent": 80}, "headroom"),
        ({"headroom_memory_percent": 90}, "headroom"),
        ({"min_node_lifetime": timedelta(days=60)}, "too_young"),
        ({"excluded_labels": {"kubernetes.io/arch": "amd64"}}, "excluded_label"),
        ({"excluded_namespaces": frozenset({"shop"})}, "protected_namespace"),
    ],
)
def test_given_stricter_rules_when_checked_then_the_plan_is_rejected_for_that_reason(
    changes: dict[str, Any], code: str
) -> None:
    assert code in codes(PLAN, policy=rules(**changes))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"protected_reason": "tagged"}, "protected_node"),
        ({"ready": False}, "not_ready"),
        ({"cordoned": True}, "not_ready"),
        ({"launched_at": NOW - timedelta(minutes=1)}, "too_young"),
    ],
)
def test_given_a_node_changed_since_when_checked_then_its_removal_is_rejected(
    changes: dict[str, Any], code: str
) -> None:
    nodes = [replace(n, **changes) if n.id == FIRST.node_id else n for n in CLUSTER.nodes]

    assert code in codes(PLAN, replace(CLUSTER, nodes=tuple(nodes)))


def test_given_a_sick_node_group_when_checked_then_removals_from_it_are_rejected() -> None:
    nodes = [replace(n, ready=index % 4 > 0) for index, n in enumerate(CLUSTER.nodes)]

    assert "group_unhealthy" in codes(PLAN, replace(CLUSTER, nodes=tuple(nodes)))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"namespace": "kube-system"}, "protected_namespace"),
        ({"do_not_disrupt": True}, "do_not_disrupt"),
        ({"controlled": False}, "bare_pod"),
        ({"has_local_storage": True}, "local_storage"),
        ({"budget_count": 2}, "several_budgets"),
        ({"budget_count": 1, "budget_allows": 0}, "budget"),
        ({"node_selector": {"disk": "nvme"}}, "no_place"),
        ({"pinned_zone": "us-east-1z"}, "no_place"),
        ({"anti_affinity_keys": ("kubernetes.io/os", "topology.kubernetes.io/zone")}, "no_place"),
        ({"spread": (SpreadRule("rack", 1),)}, "no_place"),
        ({"request": Resources(60_000, 1, 1)}, "no_place"),
    ],
)
def test_given_a_workload_changed_since_when_checked_then_moving_it_is_rejected(
    changes: dict[str, Any], code: str
) -> None:
    moved = {p.workload_id for p in CLUSTER.placements if p.node_id == CARRYING.node_id}
    changed = tuple(replace(w, **changes) if w.id in moved else w for w in CLUSTER.workloads)

    assert code in codes(PLAN, replace(CLUSTER, workloads=changed))


def test_given_pods_that_must_not_run_on_spot_when_checked_then_a_plan_of_spot_nodes_is_rejected() -> None:
    intolerant = tuple(replace(w, spot_tolerant=False) for w in CLUSTER.workloads)

    assert "no_place" in codes(PLAN, replace(CLUSTER, workloads=intolerant))


def test_given_one_pool_for_every_launch_when_checked_then_the_pool_share_is_missed() -> None:
    offer = next(o for o in catalogue() if o.pool == "use1-az1:m5.2xlarge:on_demand")

    def alike(launch: Launch) -> Launch:
        return replace(
            launch,
            instance_type=offer.instance_type,
            zone=offer.zone,
            zone_id=offer.zone_id,
            capacity_type=offer.capacity_type,
            usd_per_hour=offer.usd_per_hour,
            interruption_risk=offer.interruption_risk,
            alternatives=(),
        )

    waves = tuple(replace(wave, launches=tuple(map(alike, wave.launches))) for wave in PLAN.waves)

    assert "pool_share" in codes(replace(PLAN, waves=waves))


def test_given_a_pool_out_of_capacity_when_checked_then_buying_from_it_is_rejected() -> None:
    cold = [replace(o, back_off_until=NOW + timedelta(minutes=5)) for o in catalogue()]

    violations = check(snapshot=CLUSTER, proposal=PLAN, offers=cold, rules=rules())

    assert any(violation.startswith("back_off:") for violation in violations)


def test_given_the_last_node_of_a_zone_when_removed_then_the_zones_are_missed() -> None:
    nodes = [node(f"n-{i}", zone=ZONES[min(i, 1)]) for i in range(5)]
    cluster = snapshot(nodes, [], {})
    plan = propose(snapshot=cluster, offers=[], rules=rules(az_spread=False, min_saving_percent=0), now=NOW)
    removed = [r for wave in plan.waves for r in wave.removals]
    other = next(n for n in nodes if n.id == "n-0")
    waves = (
        Wave((), (replace(removed[0], node_id=other.id, instance_id=other.instance_id),)),
        *plan.waves[1:],
    )

    assert "zones" in codes(replace(plan, waves=waves), cluster, rules(az_spread=True))


def test_given_pending_pods_without_a_word_when_checked_then_the_plan_is_rejected() -> None:
    giant = workload("giant", 1, request=Resources(500_000, 1, 1))
    cluster = replace(CLUSTER, workloads=(*CLUSTER.workloads, giant), pending={"giant": 1})

    assert codes(PLAN, cluster) == {"pending"}


def test_given_a_plan_that_costs_more_when_checked_then_it_is_rejected_as_dearer() -> None:
    wave = Wave((BOUGHT,), ())

    assert "dearer" in codes(replace(PLAN, waves=(wave,)))
