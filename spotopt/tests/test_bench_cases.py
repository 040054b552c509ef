"""Generated clusters: each law of plans holds for every kind of constraint."""

import numpy as np
import pytest

from policies.domain.eligibility import pods_by_node
from policies.domain.model import DAEMON_KINDS, place_of_node
from policies.domain.replay_rules import Host, barriers
from policies.domain.replay_topology import OtherPods
from policies.domain.scheduling import Board
from spotopt.bench.cases import kinds
from spotopt.bench.cases.__main__ import main
from spotopt.bench.cases.generator import generate
from spotopt.bench.cases.trial import play

ROUNDS = 3
SEED = 20


@pytest.mark.parametrize("position", range(len(kinds.ALL)), ids=[kind.name for kind in kinds.ALL])
def test_given_clusters_under_a_constraint_when_planned_then_every_law_holds(position: int) -> None:
    cases = [generate(SEED, position + len(kinds.ALL) * i) for i in range(ROUNDS)]

    faults = [fault for number, case in enumerate(cases) for fault in play(case, twice=number == 0).faults]

    assert {case.focus.name for case in cases} == {kinds.ALL[position].name}
    assert faults == []


@pytest.mark.parametrize("number", range(0, 3 * len(kinds.ALL), 3))
def test_given_a_cluster_when_planner_and_checker_look_for_places_then_they_agree(number: int) -> None:
    snapshot = generate(SEED, number).inputs().snapshot
    workloads = [workload for workload in snapshot.workloads if workload.kind not in DAEMON_KINDS]
    board = Board(workloads, [place_of_node(node) for node in snapshot.nodes], pods_by_node(snapshot))
    hosts = [Host(node.id, node, ready=True, taints=node.taints) for node in snapshot.nodes]
    others = OtherPods(workloads)
    others.settle(hosts)

    for row, workload in enumerate(workloads):
        planned = board.accepted[row] & board.topology.allowed(row, board.counts, board.present)
        free = (not any(barriers(workload, host, tolerant=workload.spot_tolerant)) for host in hosts)
        checked = np.fromiter(free, bool)
        for _, mask in others.masks(row, board.counts):
            checked &= mask

        assert planned.tolist() == checked.tolist(), workload.name


def test_given_a_seed_and_a_number_when_generated_twice_then_the_cases_are_equal() -> None:
    assert generate(3, 5) == generate(3, 5)
    assert generate(3, 5) != generate(4, 5)


def test_given_a_kind_when_taken_off_then_only_its_traits_are_gone() -> None:
    case = generate(1, [kind.name for kind in kinds.ALL].index("zone_cover"))

    bound, free = case.inputs(), case.inputs(without="zone_cover")

    assert (bound.rules.az_spread, free.rules.az_spread) == (True, False)
    assert bound.snapshot == free.snapshot


def test_given_a_few_cases_when_the_bench_runs_then_it_counts_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["--count", "4", "--seed", "9"])

    assert status == 0
    assert capsys.readouterr().out.startswith("4 cases in ")
