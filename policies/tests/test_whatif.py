from decimal import Decimal

import pytest

from policies.domain.shapes import CapacityType
from policies.domain.whatif import Commitment, Scenario, outcome_of
from policies.tests.fleets import NOW, ZONES, catalogue, node, rules, snapshot, workload
from spotopt.core.errors import Conflict

OFFERS = catalogue()


def fleet():
    """Six on-demand nodes and two spot ones, lightly used."""
    nodes = [node(f"n{i}", zone=ZONES[i % 3]) for i in range(6)]
    nodes += [node(f"s{i}", zone=ZONES[i], capacity_type=CapacityType.SPOT) for i in range(2)]
    pods = {("web", item.id): 2 for item in nodes}
    return snapshot(nodes, [workload("web", 16, 900, 2000)], pods)


def outcome(**changes):
    name = changes.pop("name", "x")
    given = changes.pop("rules", None) or rules()
    scenario = Scenario(name, given, **changes)
    return outcome_of(snapshot=fleet(), offers=OFFERS, scenario=scenario, now=NOW)


def test_given_the_cluster_as_it_is_when_asked_then_it_is_the_best_plan_however_small():
    found = outcome(name="As it is", rules=rules(min_saving_percent=100))

    assert found.name == "As it is"
    assert found.usd_per_hour_before == sum(item.usd_per_hour for item in fleet().nodes)
    assert found.lower_bound_usd_per_hour <= found.usd_per_hour_after < found.usd_per_hour_before
    assert found.nodes_after == found.nodes_before + found.nodes_launched - found.nodes_removed
    assert found.pods_moved > 0


def test_given_no_spot_when_asked_then_today_s_spot_nodes_count_as_on_demand_and_none_is_left():
    usual, found = outcome(), outcome(is_on_demand_only=True)

    on_demand = next(item.usd_per_hour for item in fleet().nodes if item.id == "n0")
    assert found.usd_per_hour_before == 8 * on_demand
    assert (found.spot_nodes_after, found.risk) == (0, 0.0)
    assert found.usd_per_hour_after > usual.usd_per_hour_after
    assert found.refusals["pool_capacity_type"] > 0


def test_given_dearer_prices_when_asked_then_nodes_and_pools_of_that_kind_cost_as_much_more():
    usual = outcome()
    spot, all_dearer = outcome(spot_price_percent=100), outcome(
        spot_price_percent=50, on_demand_price_percent=50
    )  # fmt: skip

    running_spot = sum(n.usd_per_hour for n in fleet().nodes if n.capacity_type is CapacityType.SPOT)
    assert spot.usd_per_hour_before == usual.usd_per_hour_before + running_spot
    assert all_dearer.usd_per_hour_before == usual.usd_per_hour_before * Decimal("1.5")
    assert all_dearer.usd_per_hour_after >= usual.usd_per_hour_after


def test_given_paid_nodes_that_run_when_asked_then_they_cost_nothing_more_and_the_fee_is_counted():
    usual = outcome()
    paid = outcome(commitments=(Commitment("m5.2xlarge", 3),))
    rented = outcome(commitments=(Commitment("m5.2xlarge", 3, Decimal("0.2")),))

    price = next(item.usd_per_hour for item in fleet().nodes if item.id == "n0")
    assert paid.usd_per_hour_before == usual.usd_per_hour_before - 3 * price
    assert paid.usd_per_hour_after < usual.usd_per_hour_after
    assert rented.fee_usd_per_hour == Decimal("0.6")
    assert rented.usd_per_hour_after == paid.usd_per_hour_after + Decimal("0.6")
    assert rented.lower_bound_usd_per_hour >= Decimal("0.6")


def test_given_paid_nodes_that_do_not_run_yet_when_asked_then_they_stand_ready_to_be_filled():
    found = outcome(commitments=(Commitment("m6i.2xlarge", 8),))

    assert found.nodes_before == len(fleet().nodes) + 8
    assert found.usd_per_hour_after == 0


def test_given_a_commitment_to_an_unknown_type_when_asked_then_it_is_refused():
    with pytest.raises(Conflict, match=r"x1\.32xlarge has no on-demand price"):
        outcome(commitments=(Commitment("x1.32xlarge", 1),))
