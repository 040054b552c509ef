from dataclasses import fields, is_dataclass
from decimal import Decimal
from operator import attrgetter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.domain.document import PolicyDocument, as_json, parse, resolve, warnings, with_changes
from policies.domain.policy import PROTECTED_NAMESPACES, Rules, TemplateRules
from spotopt.core.errors import Conflict, InvalidInput

TEMPLATE = TemplateRules(frozenset({"m5", "t3"}))

WHOLE = {
    "karpenter.ttl_seconds_after_empty": (0, 86_400),
    "karpenter.max_node_age_minutes": (60, 525_600),
    "provisioning.spot_percentage": (0, 100),
    "provisioning.on_demand_base": (0, 1_000),
    "provisioning.spot_reversion_minutes": (30, 1_440),
    "binpack.aggressiveness": (20, 80),
    "binpack.stabilization_minutes": (1, 120),
    "provisioning.spot_to_spot_pools": (1, 50),
    "provisioning.spot_to_spot_saving_percent": (0, 90),
    "binpack.min_saving_percent": (0, 100),
    "rightsizing.buffer_percent": (10, 50),
    "constraints.min_nodes": (3, 5_000),
    "constraints.max_nodes": (3, 5_000),
    "constraints.min_node_lifetime_minutes": (5, 10_080),
    "constraints.headroom_cpu_percent": (0, 100),
    "constraints.headroom_memory_percent": (0, 100),
    "constraints.pool_share_percent": (5, 50),
    "constraints.max_disrupted_percent": (1, 10),
}
SCORES = {
    "provisioning.max_pool_risk": (0, 1),
    "binpack.min_saving_per_disruption": (0, 10),
    "binpack.weights.cpu": (0, 10),
    "binpack.weights.memory": (0, 10),
    "binpack.weights.pod_density": (0, 10),
    "approval.max_risk": (0, 1),
}
CHOICES = {
    "provisioning.strategy": ["capacity_optimized", "lowest_price", "balanced"],
    "provisioning.on_rebalance": ["watch", "replace"],
    "binpack.method": ["replace_and_move", "delete_empty"],
    "rightsizing.mode": ["recommend", "off", "auto"],
    "spot_affinity.default": ["prefer", "force", "none"],
    "schedule.type": ["always_on"],
}
SWITCHES = [
    "karpenter.enabled", "karpenter.consolidation", "karpenter.drift", "provisioning.fallback_on_demand",
    "provisioning.diversification", "binpack.enabled", "constraints.block_burstable", "constraints.az_spread",
    "approval.required", "binpack.surge_single_replicas",
]  # fmt: skip
MONEY = [
    "provisioning.max_price_per_hour",
    "binpack.min_saving_usd_per_month",
    "binpack.min_saving_usd_per_hour",
    "rightsizing.min_monthly_savings",
]
LISTS = [
    "constraints.allowed_families", "exclusions.namespaces", "exclusions.taints", "exclusions.instance_types",
]  # fmt: skip
MAPS = ["spot_affinity.namespaces", "exclusions.labels"]


def nested(path, value):
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def merged(parts):
    result = {}
    for path, value in parts.items():
        *sections, knob = path.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        place[knob] = value
    return result


def every_knob(document, path=""):
    for item in fields(document):
        value = getattr(document, item.name)
        if is_dataclass(value):
            yield from every_knob(value, f"{path}{item.name}.")
        else:
            yield f"{path}{item.name}"


names = st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
documents = st.fixed_dictionaries(
    {},
    optional={
        **{path: st.integers(low, high) for path, (low, high) in WHOLE.items() if "nodes" not in path},
        "constraints.min_nodes": st.integers(3, 20),
        "constraints.max_nodes": st.none() | st.integers(20, 5_000),
        **{path: st.floats(low, high) for path, (low, high) in SCORES.items()},
        **{path: st.sampled_from(choices) for path, choices in CHOICES.items()},
        **{path: st.booleans() for path in SWITCHES},
        **{path: st.decimals(0, 10_000, places=4).map(str) for path in MONEY},
        **{path: st.lists(names, max_size=4) for path in LISTS},
        "exclusions.labels": st.dictionaries(names, names, max_size=3),
    },
).map(merged)


def test_given_the_document_when_listed_then_every_knob_is_tested_here():
    assert set(every_knob(PolicyDocument())) == {*WHOLE, *SCORES, *CHOICES, *SWITCHES, *MONEY, *LISTS, *MAPS}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents)
def test_given_an_accepted_document_when_written_and_parsed_then_it_is_the_same(config):
    document = parse(config)

    assert parse(as_json(document)) == document
    assert as_json(parse(as_json(document))) == as_json(document)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents, documents)
def test_given_two_accepted_documents_when_one_changes_the_other_then_its_knobs_hold(base, change):
    document = with_changes(parse(base), change)

    wanted = as_json(parse(change))
    for section, knobs in change.items():
        for knob in knobs:
            if (section, knob) != ("binpack", "weights"):
                assert as_json(document)[section][knob] == wanted[section][knob]


@settings(deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.integers(1, 10**6), st.booleans())
def test_given_a_whole_number_out_of_range_when_parsed_then_its_knob_is_named(path, distance, is_below):
    low, high = WHOLE[path]

    with pytest.raises(InvalidInput) as refused:
        parse(nested(path, low - distance if is_below else high + distance))

    assert refused.value.extra["errors"] == {path: [f"must be a whole number from {low} to {high}."]}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        *(
            (path, wrong, f"must be a number from {low} to {high}.")
            for path, (low, high) in SCORES.items()
            for wrong in (high + 0.5, float("nan"))
        ),
        *((path, "never", f"must be {' or '.join(choices)}.") for path, choices in CHOICES.items()),
        *((path, 1, "must be true or false.") for path in SWITCHES),
        *((path, 0.25, 'must be US dollars as a decimal string, such as "0.25".') for path in MONEY),
        *(
            (path, text, "must be US dollars from 0 to 1,000,000 with at most six decimals.")
            for path in MONEY
            for text in ("-1", "0.0000001", "NaN", "ten", "1000001")
        ),
        *(
            (path, True, f"must be a whole number from {low} to {high}.")
            for path, (low, high) in WHOLE.items()
        ),
        (
            "exclusions.namespaces",
            ["Not_A_Namespace"],
            "must be Kubernetes namespaces; 'Not_A_Namespace' is not one.",
        ),
        ("exclusions.instance_types", "m5.large", "must be a list of at most 200 instance types."),
        (
            "exclusions.labels",
            {"ok": "no\x00"},
            "must be Kubernetes labels; 'ok' is not one, or its value is not.",
        ),
        ("exclusions.labels", {"ok": 1}, "must be Kubernetes labels; 'ok' is not one, or its value is not."),
        (
            "spot_affinity.namespaces",
            {"shop": "always"},
            "must say prefer or force or none for each namespace.",
        ),
        ("binpack.speed", 1, "is not a knob of the policy."),
        ("binpack", 40, "must be an object."),
        ("binpack.weights", [], "must be an object."),
        ("constraints.min_nodes", 2, "must be a whole number from 3 to 5000."),
    ],
)
def test_given_a_bad_knob_when_parsed_then_it_is_named_with_its_range(path, value, message):
    with pytest.raises(InvalidInput) as refused:
        parse(nested(path, value))

    assert refused.value.extra["errors"] == {path: [message]}
    assert refused.value.detail == f"The policy is not valid: {path} {message}"


def test_given_several_bad_knobs_when_parsed_then_each_is_named():
    with pytest.raises(InvalidInput) as refused:
        parse({"binpack": {"aggressiveness": 90}, "rightsizing": {"buffer_percent": 5}, "fun": {}})

    assert set(refused.value.extra["errors"]) == {
        "binpack.aggressiveness",
        "rightsizing.buffer_percent",
        "fun",
    }


def test_given_fewer_nodes_at_most_than_at_least_when_parsed_then_it_is_refused():
    with pytest.raises(InvalidInput) as refused:
        parse({"constraints": {"min_nodes": 10, "max_nodes": 9}})

    assert refused.value.extra["errors"] == {"constraints.max_nodes": ["must be at least min_nodes, 10."]}


def test_given_an_excluded_namespace_when_it_is_given_a_spot_affinity_then_it_is_refused():
    with pytest.raises(InvalidInput) as refused:
        parse({"spot_affinity": {"namespaces": {"kube-system": "force"}}})

    assert refused.value.extra["errors"] == {
        "spot_affinity.namespaces": ["must not name excluded namespaces: kube-system."]
    }


def test_given_exclusions_without_the_protected_namespaces_when_parsed_then_they_are_put_back():
    document = parse({"exclusions": {"namespaces": ["shop"]}})

    assert document.exclusions.namespaces == tuple(sorted({"shop", *PROTECTED_NAMESPACES}))


def test_given_a_label_map_when_changed_then_it_is_replaced_whole():
    document = parse({"exclusions": {"labels": {"a": "1", "b": "2"}}})

    assert with_changes(document, {"exclusions": {"labels": {"c": "3"}}}).exclusions.labels == {"c": "3"}


def test_given_one_weight_when_changed_then_the_other_weights_stay():
    document = with_changes(
        parse({"binpack": {"weights": {"cpu": 2}}}), {"binpack": {"weights": {"memory": 3}}}
    )

    assert as_json(document)["binpack"]["weights"] == {"cpu": 2.0, "memory": 3.0, "pod_density": 0.5}


def test_given_nothing_when_resolved_then_the_rules_are_their_own_defaults():
    assert resolve({}, TEMPLATE) == Rules(
        template=TEMPLATE, excluded_namespaces=frozenset(PROTECTED_NAMESPACES)
    )


def test_given_knobs_when_resolved_then_each_reaches_the_rules():
    rules = resolve(
        {
            "provisioning": {"spot_percentage": 60, "max_price_per_hour": "1.5", "diversification": False},
            "constraints": {"block_burstable": True, "max_nodes": 50, "min_node_lifetime_minutes": 20},
            "binpack": {"min_saving_usd_per_hour": "0.5"},
            "exclusions": {"labels": {"team": "db"}, "instance_types": ["m5.large"]},
            "spot_affinity": {"namespaces": {"shop": "none"}},
        },
        TEMPLATE,
    )

    assert rules.template.families == {"m5"}
    assert (rules.spot_percentage, rules.max_price_per_hour, rules.pool_share_percent) == (
        60,
        Decimal("1.5"),
        50,
    )
    assert (rules.max_nodes, rules.min_node_lifetime.total_seconds()) == (50, 1200)
    assert rules.min_saving_usd_per_hour == Decimal("0.5")
    assert (rules.excluded_labels, rules.excluded_instance_types) == ({"team": "db"}, {"m5.large"})
    assert rules.spot_affinity == {"shop": "none"}


def test_given_a_template_of_burstable_families_when_they_are_blocked_then_the_contradiction_is_told():
    with pytest.raises(Conflict) as refused:
        resolve({"constraints": {"block_burstable": True}}, TemplateRules(frozenset({"t3"})))

    assert refused.value.extra == {
        "code": "contradiction", "template_families": ["t3"], "allowed_families": [],
    }  # fmt: skip


def test_given_a_bold_document_when_warned_then_each_boldness_has_a_sentence():
    bold = parse(
        {
            "provisioning": {"spot_percentage": 95, "fallback_on_demand": False, "diversification": False},
            "spot_affinity": {"namespaces": {"shop": "force"}},
            "binpack": {"enabled": False, "method": "delete_empty"},
            "constraints": {"az_spread": False},
        }
    )

    assert len(warnings(bold, TEMPLATE)) == 7
    assert warnings(parse({}), TEMPLATE) == []


@pytest.mark.parametrize(
    ("knob", "value"),
    [("binpack.aggressiveness", 80), ("rightsizing.mode", "auto")],
)
def test_given_a_knob_that_nothing_reads_when_turned_then_a_warning_says_so(knob, value):
    assert warnings(parse(nested(knob, value)), TEMPLATE) == [f"{knob} has no effect yet."]


def test_given_every_knob_when_turned_then_the_rules_change_or_a_warning_tells_that_nothing_does():
    read_elsewhere = {
        "karpenter.enabled",
        "karpenter.consolidation",
        "karpenter.ttl_seconds_after_empty",
        "karpenter.drift",
        "karpenter.max_node_age_minutes",
        "provisioning.on_rebalance",
        "approval.required",
        "approval.max_risk",
    }
    turned = {
        **{path: high for path, (_, high) in {**WHOLE, **SCORES}.items()},
        "constraints.max_disrupted_percent": 1,
        **{path: choices[-1] for path, choices in CHOICES.items() if len(choices) > 1},
        **{path: not _default(path) for path in SWITCHES},
        **dict.fromkeys(MONEY, "77"),
        **{path: ["m5"] for path in LISTS},
        "spot_affinity.namespaces": {"shop": "none"},
        "exclusions.labels": {"team": "db"},
        "constraints.min_nodes": 9,
    }
    silent = {
        path
        for path, value in turned.items()
        if resolve(nested(path, value), TEMPLATE) == resolve({}, TEMPLATE)
        and not warnings(parse(nested(path, value)), TEMPLATE)
    }

    assert silent == read_elsewhere


def _default(path):
    return attrgetter(path)(PolicyDocument())
