from dataclasses import replace
from decimal import Decimal

import pytest

from policies.domain.constraints import Scene, binding
from policies.domain.marginal import MAX_TRIED, ConstraintPrice, constraint_prices, worst_first
from policies.domain.model import HOSTNAME_KEY, ZONE_KEY
from policies.domain.optimizer import propose
from policies.domain.policy import TemplateRules
from policies.domain.shapes import Requirement, SpreadRule
from policies.tests.fleets import FAMILIES, NOW, ZONES, catalogue, node, rules, snapshot, workload

OFFERS = catalogue()


def scene(given=None, **traits):
    """Nine half-empty on-demand nodes: one workload fills them evenly, ``pinned`` is on three of them."""
    nodes = [node(f"n{i}", zone=ZONES[i % 3]) for i in range(9)]
    pods = {("web", item.id): 3 for item in nodes} | {("pinned", f"n{i}"): 1 for i in range(3)}
    workloads = [workload("web", 27, 600, 1500), workload("pinned", 3, 700, 1500, **traits)]
    there, given = snapshot(nodes, workloads, pods), given or rules()
    return Scene(there, OFFERS, given, propose(snapshot=there, offers=OFFERS, rules=given, now=NOW))


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
    ("changes", "code"),
    [
        ({"az_spread": True}, "az_spread"),
        ({"headroom_cpu_percent": 20}, "headroom"),
        ({"on_demand_base": 2}, "on_demand_base"),
        ({"spot_percentage": 50}, "spot_percentage"),
        ({"pool_share_percent": 20}, "pool_share"),
        ({"min_nodes": 8}, "min_nodes"),
        ({"max_price_per_hour": Decimal("0.2")}, "max_price"),
        ({"max_risk": 0.0}, "max_risk"),
        ({"excluded_instance_types": frozenset({"m5.2xlarge"})}, "excluded_types"),
        ({"template": TemplateRules(frozenset({"m5"}))}, "families"),
        ({"template": TemplateRules(frozenset(FAMILIES), excluded_sizes=frozenset({"4xlarge"}))},
         "excluded_sizes"),
        ({"template": TemplateRules(frozenset(FAMILIES), capacity_type="on_demand")}, "on_demand_template"),
        ({"template": TemplateRules(frozenset(FAMILIES), capacity_type="hybrid")}, "hybrid_template"),
        ({"spot_affinity": {"shop": "none"}}, "namespace_off_spot"),
        ({"excluded_namespaces": frozenset({"shop"})}, "protected_namespace"),
    ],
)  # fmt: skip
def test_given_a_rule_when_listed_then_its_relaxation_removes_it(changes, code):
    there = scene(rules(**changes))

    found = next(constraint for constraint in binding(there) if constraint.code == code)

    snapshot_without, rules_without = found.relax((there.snapshot, there.rules))
    without = replace(there, snapshot=snapshot_without, rules=rules_without)
    replanned = propose(snapshot=snapshot_without, offers=OFFERS, rules=rules_without, now=NOW)
    assert code not in {c for c, _ in codes(replace(without, proposal=replanned))}


def test_given_a_mark_that_holds_nodes_when_priced_then_it_costs_what_the_best_plan_without_it_saves():
    there = scene(do_not_disrupt=True)

    steps = list(constraint_prices(scene=there, now=NOW))

    price = next(step.latest for step in steps if step.latest.code == "do_not_disrupt")
    freely = scene().proposal.usd_per_hour_after
    assert price.usd_per_hour_without == freely < price.usd_per_hour_with
    assert price.matters
    assert len(steps) == steps[0].candidates <= MAX_TRIED
    assert worst_first([step.latest for step in steps])[0] == price


def test_given_a_plan_when_priced_then_the_watch_hears_of_each_run_in_order():
    heard = []

    list(constraint_prices(scene=scene(), now=NOW, watch=lambda step, share: heard.append((share, step))))

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
    there = scene()
    best = propose(snapshot=there.snapshot, offers=OFFERS, rules=there.rules, now=NOW)
    nothing = replace(best, waves=(), usd_per_hour_after=best.usd_per_hour_before, pods_moved=0)
    answers = iter([nothing, best])
    monkeypatch.setattr("policies.domain.marginal.propose", lambda **_: next(answers, nothing))

    steps = list(constraint_prices(scene=there, now=NOW))

    assert {step.latest.usd_per_hour_with for step in steps} == {best.usd_per_hour_after}
    assert worst_first([step.latest for step in steps]) == []
