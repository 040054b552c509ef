"""The judges of the fault run: each must be able to say no."""

import importlib
import json
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from spotopt.tests.chaos import judge, records, report
from spotopt.tests.chaos.campaign import Tally
from spotopt.tests.chaos.records import Move
from spotopt.tests.chaos.sabotage import sitecustomize
from spotopt.tests.chaos.wire import Witness

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CLAIM = Move(
    action_id="a1",
    cluster_id="c1",
    kind="drain_node",
    is_voluntary=True,
    instance_id="i-1",
    before="pending",
    after="running",
    lease_until=None,
    at=NOW,
    created_at=NOW - timedelta(minutes=1),
    is_paused=False,
    nodes=8,
    written_in=1,
)
END = replace(CLAIM, before="running", after="succeeded", written_in=2)


def test_given_a_claim_and_its_end_when_judged_then_no_rule_was_broken():
    assert not records.count([CLAIM, END])


@pytest.mark.parametrize(
    ("moves", "counter"),
    [
        ([replace(END, before="succeeded", after="running")], "moves that no rule allows"),
        ([replace(CLAIM, before="running", lease_until=NOW + timedelta(minutes=1))], "actions claimed twice"),
        ([replace(CLAIM, created_at=NOW - timedelta(minutes=16))], "actions begun after their time"),
        ([replace(CLAIM, is_paused=True)], "voluntary work begun in a pause"),
        (
            [CLAIM, replace(CLAIM, action_id="a2", instance_id="i-2", written_in=3)],
            "nodes disrupted beyond the budget",
        ),
    ],
)
def test_given_a_broken_rule_when_judged_then_its_counter_moves(moves, counter):
    assert records.count(moves) == {counter: 1}


@pytest.mark.parametrize(
    "moves",
    [
        [replace(CLAIM, before="running", lease_until=NOW - timedelta(minutes=1))],
        [replace(CLAIM, is_paused=True), replace(END, is_paused=True, after="refused", written_in=1)],
        [CLAIM, END, replace(CLAIM, action_id="a2", instance_id="i-2", written_in=3)],
        [replace(CLAIM, is_paused=True, is_voluntary=False)],
    ],
    ids=["a dead worker's work taken over", "refused at its claim", "one after the other", "clean-up"],
)
def test_given_what_looks_alike_when_judged_then_no_counter_moves(moves):
    assert not records.count(moves)


class World:
    """The simulator's records of one cluster."""

    def __init__(self, losses=(), violations=(), duplicates=(), orphans=()):
        cluster = {"pdb_violations": list(violations), "below_minimum": list(losses)}
        self._records = {
            "availability": {"clusters": {"one": cluster}},
            "launches": {"duplicates": list(duplicates), "orphans": list(orphans)},
        }

    def read(self, name):
        return self._records[name]


@pytest.fixture
def stage(monkeypatch):
    """A stage whose queue and agents did nothing wrong."""
    clock = json.dumps({"origin": NOW.timestamp(), "wall": time.time(), "rate": 20})
    monkeypatch.setattr(records, "read", lambda _directory: [CLAIM, END])
    monkeypatch.setattr(records, "left_open", lambda _directory, *, now: [])
    monkeypatch.setattr(records, "known_instances", lambda _directory: {"i-1", "i-2"})
    return SimpleNamespace(
        database=None,
        instance=SimpleNamespace(clock=lambda: clock),
        wire=SimpleNamespace(witness=Witness()),
        world=World(),
    )


def counted(stage, tally=None):
    return Counter(name for name, _ in judge.findings(stage, tally or Tally()))


def test_given_nothing_wrong_when_judged_then_no_counter_moves(stage):
    assert not counted(stage, Tally(ended=Counter({"completed": 3, "stopped": 1})))


def test_given_losses_when_judged_then_those_of_the_owner_and_of_budgets_are_told_apart(stage):
    losses = [
        {"voluntary": True, "budget": ""},
        {"voluntary": True, "budget": "web"},
        {"voluntary": False, "budget": ""},
    ]
    stage.world = World(losses=losses, violations=[{}])

    assert counted(stage) == {"PDB violations": 1, "pods below minimum because of us": 1}


def test_given_what_the_simulator_the_agents_and_the_runs_did_when_judged_then_each_has_its_counter(stage):
    stage.world = World(duplicates=[{}], orphans=[{"was_used": False, "instance_id": "i-1"}])
    stage.wire.witness.obeyed_forgeries.add("a1")
    stage.wire.witness.run_twice["a2"] = ("one", "another")
    tally = Tally(ended=Counter({"hang": 1, "failed": 1}), left_cordoned={"node-1"})

    assert counted(stage, tally) == dict.fromkeys(
        [
            "duplicate launches",
            "orphans after the sweep",
            "forged commands obeyed",
            "commands run twice",
            "cordoned nodes left behind",
            "runs that hang",
            "runs that failed",
        ],
        1,
    )


def test_given_idle_machines_when_judged_then_only_one_that_worked_and_is_known_is_left_to_the_next_plan(
    stage,
):
    stage.world = World(
        orphans=[
            {"was_used": True, "instance_id": "i-1"},
            {"was_used": True, "instance_id": "i-9"},
            {"was_used": False, "instance_id": "i-2"},
        ]
    )

    assert counted(stage) == {"orphans after the sweep": 2}


def test_given_a_counter_that_moved_or_a_fault_that_was_rare_when_reported_then_the_run_is_no_proof():
    good = report.Outcome(runs={"completed": 200}, struck={"worker": 20}, counters={})

    assert good.problems(planned=200, least_strikes=20) == []
    assert replace(good, counters={"runs that hang": 1}).problems(planned=200, least_strikes=20)
    assert replace(good, struck={"worker": 19}).problems(planned=200, least_strikes=20)
    assert replace(good, runs={"completed": 199}).problems(planned=200, least_strikes=20)


def test_given_every_safeguard_when_looked_up_then_what_takes_it_out_finds_it_and_its_counter_is_reported():
    assert set(report.SAFEGUARDS) == set(sitecustomize.BREAKS)
    assert {counter for _, counter in report.SAFEGUARDS.values()} <= set(report.COUNTERS)
    for patches in sitecustomize.BREAKS.values():
        for patch in patches:
            holder = importlib.import_module(patch.module)
            for step in patch.path.split("."):
                holder = getattr(holder, step)
            assert callable(holder)


def test_given_a_safeguard_that_nothing_moved_when_reported_then_its_row_says_so():
    broken = [report.Broken("nonce", moved=0, runs=10, seconds=61.4)]

    row = report.broken_lines(broken)[-1]

    assert row == "| `nonce` | the agent's memory of commands | commands run twice | 0 | 61 |"
