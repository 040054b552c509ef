"""How new nodes are dealt out so that losing one pool is bearable."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from policies.domain.optimizer import propose
from policies.domain.plan import PlanProposal
from policies.domain.shapes import CapacityType, ClusterSnapshot
from policies.tests.fleets import FAMILIES, NOW, node, offer, rules, snapshot, workload

SPARE = 6
ALIKE = [
    replace(
        offer("m5.2xlarge"),
        instance_type=f"{family}.2xlarge",
        family=family,
        usd_per_hour=Decimal("0.1") + Decimal(number) / 2000,
    )
    for number, family in enumerate(FAMILIES)
]
"""One zone's pools of equal nodes, each half a percent dearer than the one before."""


def cluster(minimum: int) -> ClusterSnapshot:
    """Ten on-demand nodes of one zone that carry one workload with a minimum."""
    web = workload("web", 20, 1500, 5000, minimum_healthy=minimum, budget_allows=20 - minimum, budget_count=1)
    return snapshot([node(f"n-{i}") for i in range(10)], [web], {("web", f"n-{i}"): 2 for i in range(10)})


def plan_for(minimum: int, *, spread_over_pools: bool = True) -> PlanProposal:
    return propose(
        snapshot=cluster(minimum),
        offers=ALIKE,
        rules=rules(spot_percentage=100, pool_share_percent=50, spread_over_pools=spread_over_pools),
        now=NOW,
    )


def pods_by_family(plan: PlanProposal) -> Counter[str]:
    pods: Counter[str] = Counter()
    for launch in (launch for wave in plan.waves for launch in wave.launches):
        if launch.capacity_type is CapacityType.SPOT:
            pods[launch.instance_type.partition(".")[0]] += sum(count for _, count in launch.pods)
    return pods


def test_given_a_workload_with_a_minimum_when_planned_then_fewer_of_its_pods_hang_on_one_pool() -> None:
    plain, spread = plan_for(10), plan_for(20 - SPARE)

    assert max(pods_by_family(plain).values()) > SPARE >= max(pods_by_family(spread).values())
    assert plain.usd_per_hour_after < spread.usd_per_hour_after <= plain.usd_per_hour_after * 102 / 100


@pytest.mark.parametrize("minimum", [0, 20])
def test_given_no_minimum_or_no_pod_to_spare_when_planned_then_nothing_is_paid_for_spreading(
    minimum: int,
) -> None:
    plans = [plan_for(minimum, spread_over_pools=each) for each in (False, True)]

    assert plans[0] == plans[1]
