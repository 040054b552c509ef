"""The simulated scheduler: what keeps a pod from every place is named, and pods that belong together move."""

from dataclasses import replace
from typing import Any

import pytest

from policies.domain.model import place_of_node
from policies.domain.refusals import Code
from policies.domain.scheduling import Board
from policies.domain.shapes import (
    CapacityType,
    Node,
    PodTerm,
    Requirement,
    Resources,
    SpreadRule,
    Taint,
    Workload,
)
from policies.tests.fleets import ZONES, node, workload

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
HERE, THERE = node("here"), node("there", zone=ZONES[1])


def board(workloads: list[Workload], pods: dict[str, dict[str, int]], *nodes: Node) -> Board:
    return Board(workloads, [place_of_node(each) for each in nodes or (HERE, THERE)], pods)


@pytest.mark.parametrize(
    ("changes", "there", "code"),
    [
        ({"node_selector": {"disk": "nvme"}}, {}, Code.NODE_SELECTION),
        ({"requirements": (Requirement(ZONE, "In", ZONES[:1]),)}, {}, Code.NODE_SELECTION),
        ({"alternatives": ((Requirement(ZONE, "In", ZONES[:1]),), ())}, {}, Code.NODE_SELECTION),
        ({}, {"taints": (Taint("gpu", "", "NoSchedule"),)}, Code.TAINTS),
        ({"pinned_zone": ZONES[0]}, {}, Code.VOLUME_ZONE),
        ({"spot_tolerant": False}, {"capacity_type": CapacityType.SPOT}, Code.CAPACITY_TYPE),
        ({"on_demand_minimum": 2}, {"capacity_type": CapacityType.SPOT}, Code.ON_DEMAND_MINIMUM),
        ({}, {"allocatable": Resources(700, 9_000, 20)}, Code.NO_ROOM_ELSEWHERE),
        ({"request": Resources(1, 1, 1, 0, 1)}, {}, Code.NO_ROOM_ELSEWHERE),
        ({"anti_affinity_keys": (ZONE,)}, {}, Code.ANTI_AFFINITY),
        ({"pod_anti_affinity": (PodTerm(ZONE, ("friend",)),)}, {}, Code.ANTI_AFFINITY),
        ({"pod_affinity": (PodTerm(HOST, ("stranger",)),)}, {}, Code.POD_AFFINITY),
        ({"spread": (SpreadRule(ZONE, 1),)}, {}, Code.SPREAD),
    ],
)
def test_given_a_pod_without_another_place_when_emptied_then_the_rule_is_named_and_nothing_moved(
    changes: dict[str, Any], there: dict[str, Any], code: Code
) -> None:
    mover, friend = workload("web", 2, **changes), workload("friend", 1, 10, 10)
    pods = {"here": {"web": 1}, "there": {"web": 1, "friend": 1}}
    played = board([mover, friend], pods, HERE, replace(THERE, **there))
    before = played.counts.copy()

    moves, stuck = played.empty(0)

    assert (moves, stuck) == ([], 0)
    assert played.obstacle[0] is code
    assert played.obstacle[1].startswith("A pod of shop/web would find no other place: ")
    assert (played.counts == before).all()
    assert played.open.all()


def test_given_a_pod_that_follows_another_of_its_node_when_emptied_then_both_move_together() -> None:
    follower = workload("a-follower", 1, pod_affinity=(PodTerm(HOST, ("leader",)),))
    played = board([follower, workload("leader", 1)], {"here": {"a-follower": 1, "leader": 1}})

    moves, stuck = played.empty(0)

    assert stuck == -1
    assert {(source, target) for _, source, target in moves} == {(0, 1)}


def test_given_a_pod_whose_neighbour_would_be_left_alone_when_emptied_then_it_stays() -> None:
    follower = workload("follower", 1, pod_affinity=(PodTerm(ZONE, ("leader",)),))
    beside = node("beside", zone=HERE.zone, cordoned=True)
    pods = {"here": {"leader": 1}, "beside": {"follower": 1}}
    played = board([workload("leader", 1), follower], pods, HERE, THERE, beside)

    assert played.empty(0) == ([], 1)
    assert played.obstacle == (
        Code.NEIGHBOUR_NEEDED,
        "shop/follower would be left without the pods that it must be near.",
    )


def test_given_the_first_pod_that_must_be_near_its_own_kind_when_placed_then_it_may_go_anywhere() -> None:
    flock = workload("flock", 3, pod_affinity=(PodTerm(ZONE, ("flock",)),))
    played = board([flock], {})

    assert played.admit(0, 3) == 0
    assert sorted(played.counts[0].tolist()) == [0, 3]
