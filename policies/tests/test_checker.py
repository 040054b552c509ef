"""The optimizer's own plans pass the checker, and fail it when their steps or the cluster change."""

from dataclasses import replace

import pytest

from policies.domain.checker import check
from policies.domain.optimizer import propose
from policies.domain.plan import Launch, PlanProposal, Wave
from policies.domain.policy import Rules
from policies.domain.shapes import ClusterSnapshot, Resources
from policies.tests.fleets import NOW, ZONES, catalogue, demo, node, rules, snapshot, workload

CLUSTER = demo(26)
PLAN = propose(snapshot=CLUSTER, offers=catalogue(), rules=rules(), now=NOW)


def codes(plan: PlanProposal, cluster: ClusterSnapshot = CLUSTER, policy: Rules | None = None) -> set[str]:
    violations = check(snapshot=cluster, proposal=plan, offers=catalogue(), rules=policy or rules())
    return {violation.partition(":")[0] for violation in violations}


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
        (in_one_wave(), "wave_size"),
        (removing_first_launching_later(), "no_place"),
    ],
)
def test_given_a_spoilt_plan_when_checked_then_it_is_rejected_for_that_reason(
    plan: PlanProposal, code: str
) -> None:
    assert code in codes(plan)


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
