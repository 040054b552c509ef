import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentapi import protocol
from agentapi.protocol import (
    Command,
    Constraints,
    KarpenterReport,
    NodePoolReport,
    NodeReport,
    PodTerm,
    ProtocolError,
    Registration,
    Requirement,
    Snapshot,
    Spread,
    State,
    Taint,
    Toleration,
    WorkloadReport,
    parse,
)
from spotopt.core import crypto

words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
counts = st.integers(0, 2**31 - 1)
maybe_counts = st.none() | counts
labels = st.dictionaries(words, words, max_size=3)
lists = {"max_size": 2}
instants = st.integers(0, 2**41).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
constraints = st.builds(
    Constraints,
    node_selector=labels,
    requirements=st.lists(
        st.builds(Requirement, words, words, st.lists(words, **lists).map(tuple)), **lists
    ).map(tuple),
    alternatives=st.lists(
        st.lists(st.builds(Requirement, words, words), min_size=1, **lists).map(tuple), **lists
    ).map(tuple),
    pod_affinity=st.lists(st.builds(PodTerm, words, st.lists(words, **lists).map(tuple)), **lists).map(tuple),
    tolerations=st.lists(st.builds(Toleration, words, words, words, words), **lists).map(tuple),
    spread=st.lists(st.builds(Spread, words, counts), **lists).map(tuple),
    anti_affinity_keys=st.lists(words, **lists).map(tuple),
    pinned_zone=words,
    do_not_disrupt=st.booleans(),
    spot_tolerant=st.booleans(),
)
names = st.sampled_from(["a", "b", "c", "d"])
nodes = st.builds(
    NodeReport,
    name=names,
    instance_id=words,
    ready=st.booleans(),
    pod_count=counts,
    cpu_used_millis=maybe_counts,
    labels=labels,
    taints=st.lists(st.builds(Taint, words, words, words), **lists).map(tuple),
)
keys = st.sampled_from(["shop/Deployment/web", "shop/Deployment/api", "data/StatefulSet/db"])
workloads = st.builds(
    WorkloadReport,
    key=keys,
    namespace=words,
    kind=words,
    name=words,
    replicas=counts,
    budget_allows=maybe_counts,
    constraints=constraints,
)


pools = st.builds(
    NodePoolReport,
    name=words,
    spec=st.dictionaries(words, st.integers(0, 9) | words, max_size=2),
    ours=st.booleans(),
    used=st.dictionaries(words, words, max_size=2),
    managers=st.dictionaries(words, st.lists(words, max_size=2).map(tuple), max_size=2),
)
karpenters = st.builds(KarpenterReport, words, st.lists(pools, max_size=2).map(tuple))


@st.composite
def states(draw):
    found = draw(st.dictionaries(names, nodes, max_size=4))
    rows = draw(st.dictionaries(keys, workloads, max_size=3))
    places = st.dictionaries(names, st.integers(1, 9), min_size=1, max_size=3)
    placed = {key: draw(places) for key in rows if draw(st.booleans())}
    return State(
        nodes={name: replace(node, name=name) for name, node in found.items()},
        workloads={key: replace(row, key=key) for key, row in rows.items()},
        placements=placed,
        pods=draw(counts),
        pending_pods=draw(counts),
        karpenter=draw(karpenters),
    )


def over_the_wire(document):
    return parse(type(document), json.loads(protocol.inflate(protocol.encode(document))))


@given(states(), instants)
@settings(max_examples=60, deadline=None)
def test_given_any_full_snapshot_when_sent_then_the_other_end_reads_the_same(state, taken_at):
    snapshot = state.full(agent_id="agent-1", sequence=7, taken_at=taken_at)

    assert over_the_wire(snapshot) == snapshot
    assert State().after(snapshot) == state


@given(states(), states(), instants)
@settings(max_examples=60, deadline=None)
def test_given_two_states_when_the_delta_is_applied_then_the_first_becomes_the_second(old, new, taken_at):
    delta = new.delta(old, agent_id="agent-1", sequence=8, base=7, taken_at=taken_at)

    assert old.after(over_the_wire(delta)) == new


@given(states(), instants)
@settings(max_examples=30, deadline=None)
def test_given_nothing_changed_when_a_delta_is_made_then_it_is_empty(state, taken_at):
    delta = state.delta(state, agent_id="agent-1", sequence=8, base=7, taken_at=taken_at)

    assert (delta.nodes, delta.workloads, delta.placements) == ((), (), {})
    assert (delta.removed_nodes, delta.removed_workloads) == ((), ())


@given(states(), instants)
@settings(max_examples=30, deadline=None)
def test_given_unknown_nodes_when_the_next_delta_is_made_then_it_tells_about_them_again(state, taken_at):
    unknown = frozenset(sorted(state.nodes)[:1])

    held = state.without_nodes(unknown)
    delta = state.delta(held, agent_id="agent-1", sequence=8, base=7, taken_at=taken_at)

    assert {node.name for node in delta.nodes} == unknown
    assert {key for key, where in state.placements.items() if unknown & where.keys()} == set(delta.placements)


SNAPSHOT = {"agent_id": "agent-1", "sequence": 1, "taken_at": "2026-01-01T00:00:00.000Z"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sequence": "1"}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"sequence": -1}, "sequence"),
        ({"taken_at": "yesterday"}, "taken_at"),
        ({"taken_at": "2026-01-01T00:00:00"}, "taken_at"),
        ({"nodes": {}}, "nodes"),
        ({"nodes": [{"name": "a", "instance_id": "i", "ready": 1}]}, "nodes[0].ready"),
        ({"nodes": [{"instance_id": "i"}]}, "nodes[0].name"),
        ({"nodes": [{"name": "a\x00", "instance_id": "i"}]}, "nodes[0].name"),
        ({"nodes": [{"name": "a", "instance_id": "i", "pod_count": 2**31}]}, "nodes[0].pod_count"),
        ({"placements": {"web": {"a": 0}}}, "placements.web.a"),
        ({"workloads": [{"key": "k", "namespace": "n", "kind": "k"}]}, "workloads[0].name"),
        (
            {
                "workloads": [
                    {
                        "key": "k",
                        "namespace": "n",
                        "kind": "k",
                        "name": "n",
                        "constraints": {"spread": [{"topology_key": "zone"}]},
                    }
                ]
            },
            "workloads[0].constraints.spread[0].max_skew",
        ),
    ],
)
def test_given_a_wrong_field_when_parsed_then_the_error_names_it(change, field):
    with pytest.raises(ProtocolError) as error:
        parse(Snapshot, SNAPSHOT | change)

    assert error.value.field == field


@pytest.mark.parametrize("document", [None, [], "x", 3])
def test_given_no_object_when_parsed_then_the_document_is_refused(document):
    with pytest.raises(ProtocolError) as error:
        parse(Snapshot, document)

    assert error.value.field == "document"


def test_given_fields_of_a_newer_end_when_parsed_then_they_are_ignored():
    document = {"agent_id": "agent-001", "version": "9", "mood": "good"}

    assert parse(Registration, document) == Registration(agent_id="agent-001", version="9")


@pytest.mark.parametrize(
    "body", [b"no gzip", protocol.encode(Registration("agent-1", "1"))[:-9], b"\x1f\x8b"]
)
def test_given_a_damaged_body_when_inflated_then_it_is_refused(body):
    with pytest.raises(ProtocolError):
        protocol.inflate(body)


def test_given_a_small_body_that_inflates_to_very_much_when_read_then_it_is_refused(monkeypatch):
    monkeypatch.setattr(protocol.codec, "MAX_DOCUMENT_BYTES", 1000)

    with pytest.raises(ProtocolError):
        protocol.inflate(gzip.compress(b"0" * 100_000))


def command(**fields):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    defaults = {
        "action_id": "a", "cluster_id": "c", "agent_id": "g", "action_type": "drain_node",
        "payload": {"node_name": "n", "share": 0.5, "deep": {"b": 1, "a": [None, "ü"]}}, "created_at": now,
        "expires_at": now + timedelta(minutes=5), "nonce": "n",
    }  # fmt: skip
    return Command(**(defaults | fields))


def signed(unsigned):
    return replace(unsigned, signature=crypto.sign(unsigned.signed_document()))


def test_given_a_command_signed_by_the_product_when_sent_then_the_agent_trusts_it():
    received = over_the_wire(signed(command()))

    assert received.is_signed_by(crypto.public_key())


@pytest.mark.parametrize(
    "forgery",
    [
        {"action_id": "b"},
        {"cluster_id": "d"},
        {"agent_id": "h"},
        {"action_type": "cordon_node"},
        {"payload": {"node_name": "m"}},
        {"expires_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"nonce": "m"},
        {"signature": ""},
        {"signature": "AAAA"},
        {"signature": "not base64"},
    ],
)
def test_given_a_changed_command_when_checked_then_its_signature_does_not_hold(forgery):
    assert not replace(signed(command()), **forgery).is_signed_by(crypto.public_key())


def test_given_both_ends_when_they_canonicalise_then_the_bytes_are_equal():
    document = {"b": 1, "a": {"ü": [1.5, None, True]}}

    assert protocol.canonical_json(document) == crypto.canonical_json(document)
