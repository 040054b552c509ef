"""Worked examples of emptying places in waves on a simulated scheduler."""

from collections.abc import Mapping
from typing import Any

import pytest

from policies.domain.consolidation import Migration, Mover, wave_limit
from policies.domain.model import place_of_node, place_of_offer
from policies.domain.scheduling import Board
from policies.domain.shapes import CapacityType, Node, SpreadRule, Workload
from policies.tests.fleets import ZONES, node, offer, rules, workload

ZONE_KEY = "topology.kubernetes.io/zone"
HOST_KEY = "kubernetes.io/hostname"


def nodes(count: int, zones: int = 3) -> list[Node]:
    return [node(f"n-{i}", zone=ZONES[i % zones]) for i in range(count)]


def move(
    running: list[Node],
    items: list[Workload],
    pods: Mapping[str, Mapping[str, int]],
    doomed: list[int],
    launches: int = 0,
    **changes: Any,
) -> tuple[Board, Migration]:
    new = [place_of_offer(offer("m5.4xlarge", ZONES[i % 3]), f"launch/{i}") for i in range(launches)]
    board = Board(items, [*map(place_of_node, running), *new], pods)
    start = len(running)
    mover = Mover(board, doomed=doomed, launches=range(start, start + launches), rules=rules(**changes))
    return board, mover.run({})


@pytest.mark.parametrize(("count", "limit"), [(1, 1), (9, 1), (19, 1), (20, 2), (58, 5), (500, 50)])
def test_given_a_cluster_size_when_limited_then_a_tenth_but_at_least_one_may_go(
    count: int, limit: int
) -> None:
    assert wave_limit(count, rules()) == limit


def test_given_empty_places_when_emptied_then_each_wave_stays_within_the_limit() -> None:
    _, migration = move(nodes(24), [], {}, list(range(12)))

    assert [len(step.drained) for step in migration.steps] == [2, 2, 2, 1, 1, 1, 1, 1, 1]


def test_given_room_on_nodes_that_stay_when_emptied_then_nothing_is_launched() -> None:
    board, migration = move(nodes(6), [workload("web")], {"n-0": {"web": 2}}, [0], launches=2)

    assert [step.launched for step in migration.steps] == [[]]
    assert board.counts[0, 0] == 0
    assert board.counts.sum() == 2


def test_given_no_room_on_nodes_that_stay_when_emptied_then_a_launch_comes_first() -> None:
    pods = {f"n-{i}": {"big": 1} for i in range(6)}

    _, migration = move(nodes(6), [workload("big", 6, 6_000)], pods, [0], launches=2)

    assert [(len(step.launched), len(step.drained)) for step in migration.steps] == [(1, 1)]


def test_given_no_room_and_no_launch_when_emptied_then_the_place_stays_and_says_why() -> None:
    pods = {f"n-{i}": {"big": 1} for i in range(6)}

    board, migration = move(nodes(6), [workload("big", 6, 6_000)], pods, [0])

    assert migration.steps == []
    assert migration.kept[0][0] == "no_room_elsewhere"
    assert board.counts[0].tolist() == [1] * 6


def test_given_the_last_node_of_a_zone_when_emptied_then_it_stays_under_zone_spread_only() -> None:
    running = [*nodes(4, zones=1), node("lone", zone=ZONES[1])]

    _, spread = move(running, [], {}, [4])
    _, free = move(running, [], {}, [4], az_spread=False)

    assert spread.kept[4][0] == "last_in_zone"
    assert free.kept == {}


def test_given_the_floor_when_emptied_then_three_ready_nodes_stay() -> None:
    _, migration = move(nodes(4), [], {}, [3, 2], az_spread=False)

    assert [drained.place for step in migration.steps for drained in step.drained] == [3]
    assert migration.kept[2][0] == "node_floor"


def test_given_too_little_headroom_when_emptied_then_the_place_stays() -> None:
    pods = {f"n-{i}": {"web": 10} for i in range(5)}

    _, migration = move(nodes(5), [workload("web", 50, 500)], pods, [0], headroom_cpu_percent=30)

    assert migration.kept[0][0] == "headroom"


def test_given_an_on_demand_base_when_emptied_then_that_many_on_demand_nodes_stay() -> None:
    spot = [node(f"s-{i}", zone=ZONES[i % 3], capacity_type=CapacityType.SPOT) for i in range(4)]

    _, migration = move([*nodes(2), *spot], [], {}, [0, 1], on_demand_base=1)

    assert [drained.place for step in migration.steps for drained in step.drained] == [0]
    assert migration.kept[1][0] == "on_demand_base"


def test_given_anti_affinity_when_emptied_then_no_two_pods_share_a_node() -> None:
    item = workload("db", 4, 100, anti_affinity_keys=(HOST_KEY,))
    pods = {f"n-{i}": {"db": 1} for i in range(4)}

    board, migration = move(nodes(6), [item], pods, [0, 1])

    assert len(migration.steps) == 2
    assert board.counts[0].tolist() == [0, 0, 1, 1, 1, 1]


def test_given_zone_spread_when_emptied_then_the_pod_returns_to_its_zone() -> None:
    item = workload("db", 3, 100, spread=(SpreadRule(ZONE_KEY, 1),))
    pods = {f"n-{i}": {"db": 1} for i in range(3)}

    board, _ = move(nodes(6), [item], pods, [0])

    assert board.counts[0].tolist() == [0, 1, 1, 1, 0, 0]


def test_given_a_node_limit_when_room_is_missing_then_nothing_is_launched_above_it() -> None:
    pods = {f"n-{i}": {"big": 1} for i in range(6)}

    _, migration = move(nodes(6), [workload("big", 6, 6_000)], pods, [0], launches=2, max_nodes=6)

    assert migration.steps == []
    assert migration.kept[0][0] == "no_room_elsewhere"
