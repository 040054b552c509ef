from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.domain.facts import ClusterFacts, NodeFacts
from clusters.domain.guardrails import disruption_cap, judge

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def _node(number: int, **changes: object) -> NodeFacts:
    node = NodeFacts(
        name=f"node-{number}",
        instance_id=f"i-{number:08x}",
        group=f"group-{number % 2}",
        launched_at=NOW - timedelta(days=1),
        is_ready=True,
        is_cordoned=False,
        pods=0,
    )
    return replace(node, **changes)


def _facts(count: int = 20, **changes: object) -> ClusterFacts:
    nodes = {node.instance_id: node for node in map(_node, range(count))}
    facts = ClusterFacts(now=NOW, safe_mode="off", is_paused=False, snapshot_at=NOW, nodes=nodes)
    return replace(facts, **changes)


def _with(facts: ClusterFacts, node: NodeFacts) -> ClusterFacts:
    return replace(facts, nodes={**facts.nodes, node.instance_id: node})


def _facts_with_unready(*numbers: int) -> ClusterFacts:
    facts = _facts()
    for number in numbers:
        facts = _with(facts, _node(number, is_ready=False))
    return facts


TARGET = "i-00000000"


def _code(facts: ClusterFacts, kind: str = "drain_node", *, is_voluntary: bool = True) -> str | None:
    verdict = judge(kind=kind, instance_id=TARGET, is_voluntary=is_voluntary, facts=facts)
    return verdict.code if verdict else None


def test_given_a_healthy_cluster_when_judged_then_a_drain_may_go_ahead():
    assert _code(_facts()) is None


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (_facts(safe_mode="on"), "safe_mode"),
        (_facts(safe_mode="freeze"), "frozen"),
        (_facts(is_paused=True), "paused"),
        (_facts(snapshot_at=None), "stale_snapshot"),
        (_facts(snapshot_at=NOW - timedelta(minutes=3, seconds=1)), "stale_snapshot"),
        (_facts(nodes={}), "node_unknown"),
        (_with(_facts(), _node(0, launched_at=NOW - timedelta(minutes=4))), "node_too_young"),
        (_facts(disrupted=frozenset({"i-00000001", "i-00000002"})), "disruption_budget"),
        (_facts(3), "ready_floor"),
        (_facts_with_unready(2, 4, 6), "group_unready"),
    ],
)  # fmt: skip
def test_given_a_reason_not_to_when_judged_then_it_is_refused_by_name(facts, code):
    assert _code(facts) == code


@pytest.mark.parametrize("kind", ["launch_node", "update_deployment"])
@pytest.mark.parametrize(
    ("facts", "code"),
    [(_facts(snapshot_at=None), "stale_snapshot"), (_facts_with_unready(1, 3, 5), "group_unready")],
)
def test_given_an_open_breaker_when_any_voluntary_work_is_judged_then_it_stops(facts, code, kind):
    assert _code(facts, kind) == code
    assert _code(facts, "drain_node") == code
    assert _code(facts, "uncordon_node") is None
    assert _code(facts, kind, is_voluntary=False) is None


def test_given_nodes_that_still_boot_when_judged_then_they_do_not_count_against_their_group():
    facts = _facts()
    for number in (2, 4, 6):
        booting = _node(number, is_ready=False, launched_at=NOW - timedelta(minutes=2))
        facts = _with(facts, booting)

    assert _code(facts) is None


def test_given_pods_on_the_node_when_asked_to_terminate_it_then_it_is_refused():
    facts = _with(_facts(), _node(0, pods=2))

    assert _code(facts, "terminate_instance") == "node_not_empty"
    assert _code(facts, "drain_node") is None


def test_given_pods_on_the_node_when_clean_up_asks_to_terminate_it_then_it_is_refused_too():
    facts = _with(_facts(), _node(0, pods=2))

    assert _code(facts, "terminate_instance", is_voluntary=False) == "node_not_empty"
    assert _code(_facts(nodes={}), "terminate_instance", is_voluntary=False) is None


@pytest.mark.parametrize("nodes", [_facts().nodes, {}])
def test_given_an_old_report_when_clean_up_asks_to_terminate_then_pods_may_have_come_and_it_is_refused(nodes):
    facts = _facts(nodes=nodes, snapshot_at=NOW - timedelta(minutes=3, seconds=1))

    assert _code(facts, "terminate_instance", is_voluntary=False) == "stale_snapshot"


def test_given_an_open_node_when_asked_to_terminate_it_then_pods_may_have_come_and_it_is_refused():
    cordoned = _with(_facts(), _node(0, is_cordoned=True))

    assert _code(_facts(), "terminate_instance") == "node_not_cordoned"
    assert _code(cordoned, "terminate_instance") is None


@pytest.mark.parametrize("switch", [{"safe_mode": "on"}, {"is_paused": True}, {"snapshot_at": None}])
def test_given_a_switch_when_the_act_is_not_voluntary_then_it_passes(switch):
    assert _code(_facts(**switch), is_voluntary=False) is None


def test_given_a_freeze_when_the_act_is_not_voluntary_then_it_is_refused_all_the_same():
    assert _code(_facts(safe_mode="freeze"), is_voluntary=False) == "frozen"


@given(count=st.integers(1, 400), disrupted=st.integers(0, 60), unready=st.integers(0, 60))
def test_law_whatever_is_allowed_keeps_the_budget_and_the_floor(count, disrupted, unready):
    facts = _facts(count)
    ids = list(facts.nodes)
    for instance_id in ids[-unready:] if unready else []:
        facts = _with(facts, replace(facts.nodes[instance_id], is_ready=False))
    facts = replace(facts, disrupted=frozenset(ids[1 : disrupted + 1]))

    if _code(facts) is None:
        gone = facts.disrupted | {TARGET}
        assert len(gone) <= max(1, count // 10)
        assert sum(node.is_ready and node.instance_id not in gone for node in facts.nodes.values()) >= 3


@given(st.integers(0, 10_000))
def test_law_the_cap_is_a_tenth_but_at_least_one(nodes):
    assert disruption_cap(nodes) == max(1, nodes // 10)


@pytest.mark.parametrize(
    ("kind", "is_voluntary", "code"),
    [
        ("uncordon_node", False, "node_taken"),
        ("drain_node", True, "node_taken"),
        ("terminate_instance", True, "node_taken"),
        ("cordon_node", False, None),
        ("drain_node", False, None),
    ],
)
def test_given_a_node_that_aws_takes_when_judged_then_only_its_rescue_goes_on(kind, is_voluntary, code):
    assert _code(_facts(taken=frozenset({TARGET})), kind, is_voluntary=is_voluntary) == code
