from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import cache

import pytest

from policies.domain.constraints import RELAXED_NAMESPACE, Scene, binding
from policies.domain.marginal import ConstraintPrice, constraint_prices, worst_first
from policies.domain.model import HOSTNAME_KEY, ZONE_KEY
from policies.domain.optimizer import propose
from policies.domain.plan import Refusal
from policies.domain.policy import TemplateRules
from policies.domain.refusals import Code
from policies.domain.shapes import Requirement, SpreadRule
from policies.tests.fleets import FAMILIES, NOW, ZONES, catalogue, node, rules, snapshot, workload

OFFERS = catalogue()
_OF_NODES = (Code.EXCLUDED_TYPE, Code.EXCLUDED_LABEL, Code.TOO_YOUNG, Code.SPOT_TO_SPOT, Code.FALLBACK)


def fleet(**traits):
    """Six half-empty on-demand nodes: ``web`` fills them evenly, ``pinned`` is on three of them."""
    nodes = [node(f"n{i}", zone=ZONES[i % 3]) for i in range(6)]
    pods = {("web", item.id): 3 for item in nodes} | {("pinned", f"n{i}"): 1 for i in range(3)}
    workloads = [workload("web", 18, 600, 1500), workload("pinned", 3, 700, 1500, **traits)]
    return snapshot(nodes, workloads, pods)


@cache
def planned(**traits):
    there = fleet(**traits)
    return Scene(there, OFFERS, rules(), propose(snapshot=there, offers=OFFERS, rules=rules(), now=NOW))


def scene(given=None, **traits):
    """A plan that left three nodes and all kinds of pools alone, whatever the reason was."""
    plan = planned().proposal
    refusals = [Refusal("pool", "x", code.value, "") for code in Code if code.value.startswith("pool_")]
    refusals += [Refusal("node", f"n{i}", code.value, "") for i in range(3) for code in _OF_NODES]
    return Scene(fleet(**traits), OFFERS, given or rules(), replace(plan, refusals=tuple(refusals)))


def codes(of):
    return {(constraint.code, constraint.subject) for constraint in binding(of)}


@pytest.mark.parametrize(
    ("traits", "code", "words"),
    [
        ({"do_not_disrupt": True}, "do_not_disrupt", "Do-not-disrupt mark of shop/pinned"),
        ({"controlled": False}, "bare_pod", "Pod without a controller: shop/pinned"),
        ({"has_local_storage": True}, "local_storage", "Local storage of shop/pinned"),
        ({"budget_allows": 0, "budget_count": 1, "minimum_healthy": 3}, "budget_never_allows",
         "Disruption budget of shop/pinned"),
        ({"budget_count": 2}, "several_budgets", "Several disruption budgets of shop/pinned"),
        ({"spot_tolerant": False}, "on_demand_only", "On-demand nodes for shop/pinned"),
        ({"pinned_zone": ZONES[0]}, "pinned_zone", f"Disks of shop/pinned in {ZONES[0]}"),
        ({"anti_affinity_keys": (HOSTNAME_KEY,)}, "anti_affinity",
         "Anti-affinity of shop/pinned"),
        ({"spread": (SpreadRule(ZONE_KEY, 1),)}, "spread", "Zone spread of shop/pinned"),
        ({"requirements": (Requirement("kubernetes.io/arch", "In", ("amd64",)),)}, "node_selector",
         "Node selector of shop/pinned"),
    ],
)  # fmt: skip
def test_given_a_workload_s_constraint_when_listed_then_it_is_named_and_its_relaxation_removes_it(
    traits, code, words
):
    there = scene(**traits)

    found = next(constraint for constraint in binding(there) if constraint.code == code)

    assert (found.subject, found.words) == ("shop/pinned", words)
    snapshot_without, rules_without = found.relax((there.snapshot, there.rules))
    without = replace(there, snapshot=snapshot_without, rules=rules_without)
    assert (code, "shop/pinned") not in codes(without)
    assert rules_without == there.rules


@pytest.mark.parametrize(
    ("changes", "code", "without"),
    [
        ({"az_spread": True}, "az_spread", {"az_spread": False}),
        ({"headroom_cpu_percent": 20}, "headroom", {"headroom_cpu_percent": 0, "headroom_memory_percent": 0}),
        ({"on_demand_base": 2}, "on_demand_base", {"on_demand_base": 0}),
        ({"spot_percentage": 50}, "spot_percentage", {"spot_percentage": 100}),
        ({"pool_share_percent": 20}, "pool_share", {"pool_share_percent": 100}),
        ({"min_nodes": 8}, "min_nodes", {"min_nodes": 0}),
        ({"max_price_per_hour": Decimal("0.2")}, "max_price", {"max_price_per_hour": None}),
        ({"max_risk": 0.0}, "max_risk", {"max_risk": 1.0}),
        ({"excluded_instance_types": frozenset({"m5.large"})}, "excluded_types",
         {"excluded_instance_types": frozenset()}),
        ({"spot_to_spot_saving_percent": 20}, "spot_to_spot",
         {"spot_to_spot_saving_percent": 0, "spot_to_spot_pools": 1}),
        ({}, "spot_reversion", {"spot_reversion": timedelta(0)}),
        ({}, "min_node_lifetime", {"min_node_lifetime": timedelta(0)}),
        ({"excluded_labels": {"a": "b"}}, "excluded_labels", {"excluded_labels": {}}),
        ({"spot_affinity": {"shop": "none", "db": "none"}}, "namespace_off_spot",
         {"spot_affinity": {"db": "none"}}),
    ],
)  # fmt: skip
def test_given_a_rule_of_the_policy_when_listed_then_its_relaxation_removes_it_alone(changes, code, without):
    there = scene(rules(**changes))

    found = next(constraint for constraint in binding(there) if constraint.code == code)

    assert found.relax((there.snapshot, there.rules)) == (there.snapshot, rules(**changes | without))


@pytest.mark.parametrize(
    ("changes", "code", "without"),
    [
        ({"families": frozenset({"m5"})}, "families", {"families": frozenset(FAMILIES)}),
        ({"excluded_sizes": frozenset({"4xlarge"})}, "excluded_sizes", {"excluded_sizes": frozenset()}),
        ({"capacity_type": "on_demand"}, "on_demand_template", {"capacity_type": "spot"}),
        ({"capacity_type": "hybrid"}, "hybrid_template", {"capacity_type": "spot"}),
    ],
)
def test_given_a_rule_of_the_template_when_listed_then_its_relaxation_removes_it_alone(
    changes, code, without
):
    template = replace(TemplateRules(frozenset(FAMILIES)), **changes)
    there = scene(rules(template=template))

    found = next(constraint for constraint in binding(there) if constraint.code == code)

    expected = rules(template=replace(template, **without))
    assert found.relax((there.snapshot, there.rules)) == (there.snapshot, expected)


def test_given_an_excluded_namespace_when_relaxed_then_its_workloads_are_in_no_protected_one():
    there = scene(rules(excluded_namespaces=frozenset({"shop"})))

    found = next(constraint for constraint in binding(there) if constraint.code == "protected_namespace")

    relaxed, same_rules = found.relax((there.snapshot, there.rules))
    assert (found.subject, same_rules) == ("shop", there.rules)
    assert {item.namespace for item in relaxed.workloads} == {RELAXED_NAMESPACE}


@pytest.fixture
def few(monkeypatch):
    """Two constraints are enough to see how they are tried."""
    monkeypatch.setattr("policies.domain.marginal.MAX_TRIED", 2)


def test_given_a_mark_that_holds_nodes_when_priced_then_it_costs_what_the_best_plan_without_it_saves(few):
    steps = list(constraint_prices(scene=planned(do_not_disrupt=True), now=NOW))

    price = next(step.latest for step in steps if step.latest.code == "do_not_disrupt")
    assert price.usd_per_hour_without == planned().proposal.usd_per_hour_after < price.usd_per_hour_with
    assert price.matters
    assert len(steps) == steps[0].candidates == 2
    assert worst_first([step.latest for step in steps])[0] == price


def test_given_a_plan_when_priced_then_the_watch_hears_of_each_run_in_order(few):
    heard = []

    list(constraint_prices(scene=planned(), now=NOW, watch=lambda step, share: heard.append((share, step))))

    assert heard == sorted(heard, key=lambda said: said[0])
    assert heard[0][1].startswith("With every constraint: ")
    assert heard[-1][0] <= 1


def price(without, code="x", least=100):
    return ConstraintPrice(code, "", "Something", Decimal(least), Decimal(without))


def test_given_prices_within_the_search_s_error_when_sorted_then_they_are_left_out():
    assert worst_first([price("99.6"), price(90, "a"), price(101), price(80, "b")]) == [
        price(80, "b"),
        price(90, "a"),
    ]


def test_given_a_better_plan_that_keeps_every_constraint_when_sorted_then_all_are_set_against_it():
    found = [price(90, "a"), price(92, "b", least=92), price(80, "c", least=92)]

    assert worst_first(found) == [price(80, "c", least=92), price(90, "a", least=92)]


def test_given_a_cheaper_plan_without_a_constraint_that_it_keeps_when_priced_then_it_costs_nothing(
    monkeypatch,
):
    there = planned()
    best = there.proposal
    nothing = replace(best, waves=(), usd_per_hour_after=best.usd_per_hour_before, pods_moved=0)
    answers = iter([nothing, best])
    monkeypatch.setattr("policies.domain.marginal.propose", lambda **_: next(answers, nothing))

    steps = list(constraint_prices(scene=there, now=NOW))

    assert {step.latest.usd_per_hour_with for step in steps} == {best.usd_per_hour_after}
    assert worst_first([step.latest for step in steps]) == []
