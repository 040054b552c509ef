import math
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.domain.document import Karpenter
from policies.domain.karpenter import FIELDS, Market, NodePool, Wanted, wishes
from policies.domain.policy import TemplateRules
from policies.domain.pool_types import CAPACITY_TYPE, INSTANCE_TYPE, LEAVING_MARGIN, admits_value
from policies.domain.quantities import amount, rounded_down, seconds
from policies.domain.shapes import CapacityType
from policies.tests.fleets import FAMILIES, NOW, SIZES, ZONES, offer, rules

SPOT = {"key": CAPACITY_TYPE, "operator": "In", "values": ["spot", "on-demand"]}
CLASS = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}
OFFERS = tuple(
    offer(f"{family}.{size}", zone, capacity)
    for family in FAMILIES
    for size in SIZES
    for zone in ZONES
    for capacity in CapacityType
)


def pool(name="default", *, requirements=(SPOT,), used=None, **spec):
    template = {"spec": {"nodeClassRef": CLASS, "requirements": list(requirements), "expireAfter": "720h"}}
    return NodePool(name, {"template": template, **spec}, used=used or {"cpu": "100", "nodes": "10"})


def mine(wish, **changes):
    """Our pool as the cluster shows it once a wish was carried out."""
    values = {"is_ours": True, "steers": wish.pool, "used": {}}
    return NodePool(wish.name, deepcopy(dict(wish.manifest["spec"])), **values | changes)


def wanted(*, knobs=None, **changes):
    return Wanted(Karpenter(**(knobs or {})), rules(**changes))


def wish_for(*pools, want=None, offers=OFFERS):
    [made] = wishes(pools, want or wanted(), Market(offers, NOW))
    return made


def types_of(spec):
    return next(r["values"] for r in spec["template"]["spec"]["requirements"] if r["key"] == INSTANCE_TYPE)


def test_given_a_pool_with_spot_when_steered_then_ours_is_heavier_and_narrower_and_names_the_same_class():
    theirs = pool(weight=10, limits={"cpu": "1000", "memory": "4000Gi"})
    theirs.spec["template"]["metadata"] = {"labels": {"team": "shop"}}

    wish = wish_for(theirs, want=wanted(spot_percentage=80))

    spec = wish.manifest["spec"]
    assert (wish.code, wish.name, spec["weight"]) == ("steered", "spotopt-default", 11)
    assert spec["template"]["spec"]["nodeClassRef"] == CLASS
    assert spec["template"]["metadata"] == {"labels": {"team": "shop"}}
    assert spec["template"]["spec"]["requirements"][:2] == [
        SPOT, {"key": CAPACITY_TYPE, "operator": "In", "values": ["spot"]},
    ]  # fmt: skip
    assert spec["limits"] == {"cpu": "80", "memory": "3932160Mi"}
    assert spec["disruption"] == {
        "consolidationPolicy": "WhenEmptyOrUnderutilized",
        "consolidateAfter": "30s",
        "budgets": [{"nodes": "10%"}, {"nodes": "10%"}],
    }
    assert wish.manifest["metadata"] == {
        "name": "spotopt-default", "labels": {"spotopt.io/managed": "true"},
        "annotations": {"spotopt.io/steers": "default"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "want", "code"),
    [
        ({"replicas": 3}, {}, "static"),
        ({"weight": 100}, {}, "weight_full"),
        ({"requirements": [SPOT | {"values": ["on-demand"]}]}, {}, "no_spot_allowed"),
        ({}, {"spot_percentage": 0}, "no_spot_wanted"),
        ({}, {"template": TemplateRules(families=frozenset({"m5"}), capacity_type="on_demand")},
         "no_spot_wanted"),
        ({}, {"template": TemplateRules(families=frozenset({"x9"}))}, "few_types"),
        ({}, {"max_risk": 0.0}, "few_types"),
        ({"limits": {"cpu": "a lot"}}, {}, "unreadable"),
        ({"template": None}, {}, "unreadable"),
        ({"name": "a" * 60}, {}, "name_too_long"),
    ],
)  # fmt: skip
def test_given_a_pool_that_cannot_be_steered_when_asked_then_nothing_is_applied_and_the_reason_is_told(
    changes, want, code
):
    risky = tuple(replace(each, interruption_risk=0.05) for each in OFFERS)

    wish = wish_for(pool(**changes), want=wanted(**want), offers=risky)

    assert (wish.code, wish.manifest) == (code, None)
    assert wish.sentence.endswith(".") or code == "unreadable"


def test_given_neighbours_when_steered_then_order_and_names_of_the_customer_are_respected():
    made = wishes(
        [pool("a", weight=1), pool("b", weight=2), pool("c", weight=9), pool("spotopt-c")],
        wanted(),
        Market(OFFERS, NOW),
    )

    codes = {wish.pool: wish.code for wish in made}
    assert codes == {"a": "weight_taken", "b": "steered", "c": "name_taken", "spotopt-c": "weight_taken"}


def test_given_somebody_elses_hand_on_ours_when_asked_then_it_is_told_and_ours_is_left_alone():
    first = wish_for(pool())

    wish = wish_for(pool(), mine(first, managers={"limits": ("argocd",)}))

    assert (wish.code, wish.manifest) == ("managed_elsewhere", None)
    assert "argocd set limits" in wish.sentence


@pytest.mark.parametrize("theirs", [[pool()], []])
def test_given_ours_when_switched_off_or_its_pool_is_gone_then_it_launches_nothing_and_stays_as_it_is(theirs):
    steered = wish_for(pool())

    [wish] = wishes([*theirs, mine(steered)], None, Market((), NOW))

    assert wish.code == ("off" if theirs else "pool_gone")
    assert wish.manifest["spec"] == {**steered.manifest["spec"], "limits": {"cpu": "0"}}
    assert not wish.is_met_by(mine(steered))
    assert wish.is_met_by(mine(wish))


def test_given_ours_in_place_when_nothing_changed_then_the_wish_is_met():
    first = wish_for(pool())

    again = wish_for(pool(), mine(first))

    assert again.is_met_by(mine(first))
    assert not again.is_met_by(None)


def test_given_a_named_type_when_its_risk_grows_a_little_then_it_stays_and_when_it_grows_much_it_goes():
    named = types_of(wish_for(pool()).manifest["spec"])

    def after(risk):
        offers = [replace(o, interruption_risk=risk) if o.instance_type == named[0] else o for o in OFFERS]
        want = wanted(max_risk=0.5)
        return types_of(wish_for(pool(), mine(wish_for(pool())), want=want, offers=offers).manifest["spec"])

    assert named[0] in after(0.5 + LEAVING_MARGIN / 2)
    assert named[0] not in after(0.5 + LEAVING_MARGIN * 2)


def test_given_a_type_risky_in_one_zone_when_steered_then_it_is_named_only_if_the_pool_bars_the_zone():
    offers = [
        replace(o, interruption_risk=0.9) if (o.zone, o.family) == (ZONES[0], "m5") else o for o in OFFERS
    ]
    barred = {"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": [ZONES[0]]}

    everywhere = types_of(wish_for(pool(), offers=offers).manifest["spec"])
    elsewhere = types_of(wish_for(pool(requirements=[SPOT, barred]), offers=offers).manifest["spec"])

    assert not any(name.startswith("m5.") for name in everywhere)
    assert any(name.startswith("m5.") for name in elsewhere)


@pytest.mark.parametrize(("cpu", "largest"), [("0", 16), ("100", 16), ("200", 32)])
def test_given_the_cpu_in_use_when_steered_then_no_node_is_larger_than_its_share(cpu, largest):
    named = types_of(wish_for(pool(used={"cpu": cpu, "nodes": "10"})).manifest["spec"])

    assert max(SIZES[name.partition(".")[2]] for name in named) == largest


@pytest.mark.parametrize(
    ("knobs", "field", "value"),
    [
        ({"consolidation": False}, "consolidationPolicy", "WhenEmpty"),
        ({"ttl_seconds_after_empty": 600}, "consolidateAfter", "600s"),
        ({"drift": False}, "budgets", [{"nodes": "10%"}, {"nodes": "10%"},
                                       {"nodes": "0", "reasons": ["Drifted"]}]),
    ],
)  # fmt: skip
def test_given_a_knob_of_the_policy_when_turned_then_ours_disrupts_less(knobs, field, value):
    assert wish_for(pool(), want=wanted(knobs=knobs)).manifest["spec"]["disruption"][field] == value


def test_given_a_largest_age_when_set_then_our_nodes_grow_no_older():
    spec = wish_for(pool(), want=wanted(knobs={"max_node_age_minutes": 90})).manifest["spec"]

    assert spec["template"]["spec"]["expireAfter"] == "90m"


durations = st.sampled_from(["0s", "30s", "5m", "1h30m", "720h", "Never"])
customers = st.fixed_dictionaries(
    {},
    optional={
        "weight": st.integers(1, 99),
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "cpu": st.sampled_from(["0", "10", "64", "1500m", "1000"]),
                "memory": st.sampled_from(["100Gi", "1Ti", "0"]),
                "nodes": st.integers(0, 500),
                "nvidia.com/gpu": st.sampled_from(["0", "8"]),
            },
        ),
        "disruption": st.fixed_dictionaries(
            {},
            optional={
                "consolidationPolicy": st.sampled_from(["WhenEmpty", "Balanced", "WhenEmptyOrUnderutilized"]),
                "consolidateAfter": durations,
                "budgets": st.lists(
                    st.sampled_from([{"nodes": "0"}, {"nodes": "5"}, {"nodes": "20%", "reasons": ["Empty"]}]),
                    min_size=1,
                ),
            },
        ),
    },
)
narrowings = st.lists(
    st.sampled_from(
        [
            {"key": "karpenter.k8s.aws/instance-category", "operator": "In", "values": ["c", "m"]},
            {"key": "karpenter.k8s.aws/instance-generation", "operator": "Gt", "values": ["4"]},
            {"key": "karpenter.k8s.aws/instance-cpu", "operator": "Lte", "values": ["16"]},
            {"key": INSTANCE_TYPE, "operator": "NotIn", "values": ["m5.xlarge"]},
            {"key": "example.com/unknown", "operator": "Exists"},
        ]
    ),
    unique_by=repr,
)
uses = st.fixed_dictionaries(
    {"cpu": st.sampled_from(["0", "8", "100", "2500"]), "nodes": st.integers(0, 50).map(str)}
)
policies = st.builds(
    lambda knobs, changes: wanted(knobs=knobs, **changes),
    st.fixed_dictionaries(
        {},
        optional={
            "consolidation": st.booleans(),
            "drift": st.booleans(),
            "ttl_seconds_after_empty": st.integers(0, 86_400),
            "max_node_age_minutes": st.none() | st.integers(60, 525_600),
        },
    ),
    st.fixed_dictionaries(
        {"spot_percentage": st.integers(1, 100), "on_demand_base": st.integers(0, 20)},
        optional={
            "max_price_per_hour": st.just(Decimal("0.5")),
            "excluded_instance_types": st.just(frozenset({"m5.large"})),
            "max_disrupted_percent": st.integers(1, 10),
        },
    ),
)


@settings(max_examples=60, deadline=None)
@given(customers, narrowings, uses, uses, policies)
def test_given_any_pool_and_policy_when_steered_then_ours_is_never_looser_than_the_customers(
    changes, narrowings, used, ours_used, want
):
    theirs = pool(requirements=[SPOT, *narrowings], used=used, **changes)
    first = wish_for(theirs, want=want)
    if first.code != "steered":
        assert first.manifest is None
        return
    spec = wish_for(theirs, mine(first, used=ours_used), want=want).manifest["spec"]

    assert set(spec) == set(FIELDS)
    assert spec["weight"] > changes.get("weight", 0)
    for name, limit in changes.get("limits", {}).items():
        assert amount(spec["limits"][name]) <= max(0, amount(limit) - amount(used.get(name, 0)))
    total = amount(used["cpu"]) + amount(ours_used["cpu"])
    if want.rules.spot_percentage < 100:
        assert amount(spec["limits"]["cpu"]) <= total * want.rules.spot_percentage / 100
    _assert_template_is_narrower(theirs.spec["template"], spec["template"], want)
    _assert_disrupts_no_more(changes.get("disruption", {}), spec["disruption"], want)


def _assert_template_is_narrower(theirs, ours, want):
    given_, made = theirs["spec"], ours["spec"]
    assert made["requirements"][: len(given_["requirements"])] == given_["requirements"]
    assert {key: value for key, value in made.items() if key not in ("requirements", "expireAfter")} == {
        key: value for key, value in given_.items() if key not in ("requirements", "expireAfter")
    }
    assert seconds(made["expireAfter"]) <= seconds(given_["expireAfter"])
    for name in made["requirements"][-1]["values"]:
        assert admits_value(given_["requirements"], INSTANCE_TYPE, name)
        assert name.partition(".")[0] in want.rules.template.families
        assert name not in want.rules.excluded_instance_types


def _assert_disrupts_no_more(theirs, ours, want):
    order = ["WhenEmpty", "Balanced", "WhenEmptyOrUnderutilized"]
    policy = theirs.get("consolidationPolicy", order[-1])
    assert order.index(ours["consolidationPolicy"]) <= order.index(policy)
    assert seconds(ours["consolidateAfter"]) >= seconds(theirs.get("consolidateAfter", "0s"))
    budgets = theirs.get("budgets", [{"nodes": "10%"}])
    assert ours["budgets"][: len(budgets)] == budgets
    assert {"nodes": f"{want.rules.max_disrupted_percent}%"} in ours["budgets"]


@given(st.integers(0, 10**7), st.sampled_from(["cpu", "nodes", "memory"]))
def test_given_any_amount_when_rounded_down_then_it_is_at_most_an_eighth_less(number, resource):
    value = Decimal(number) * (2**20 if resource == "memory" else 1)

    rounded = amount(rounded_down(value, resource))

    assert value * 7 / 8 <= rounded <= value


def test_given_durations_when_read_then_they_are_seconds_and_nonsense_is_refused():
    assert [seconds(text) for text in ("0s", "1h30m", "Never")] == [0, 5400, math.inf]
    for text in ("", "soon", "-5m"):
        with pytest.raises(ValueError, match="duration"):
            seconds(text)
