"""Worked examples of filling nodes, and the law that nothing is lost or overfilled."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.domain.packing import Caps, NodeKinds, PodClasses, buy_nodes, fill_existing
from policies.domain.relaxation import Columns, relax

ROOM = [4000, 16000, 58, 0]


def classes(rows: list[tuple[int, int, int]], accepted: list[list[bool]], limit: int = 1000) -> PodClasses:
    """Rows of (milli-CPU, MiB, count)."""
    return PodClasses(
        np.array([[cpu, memory, 1, 0] for cpu, memory, _ in rows], np.int64).reshape(-1, 4),
        np.array([count for *_, count in rows], np.int64),
        [np.array(mask, bool) for mask in accepted],
        np.full(len(rows), limit, np.int64),
    )


def kinds(prices: list[float], rooms: list[list[int]]) -> NodeKinds:
    size = len(prices)
    room = np.array(rooms, np.int64)
    return NodeKinds(np.array(prices), room, room, np.arange(size), np.zeros(size, np.int64))


def caps(size: int, per_pool: int = 1000) -> Caps:
    return Caps(per_pool, 1000, np.zeros(size, np.int64), np.zeros(1, np.int64))


def test_given_two_kinds_when_buying_then_the_one_with_more_room_for_its_price_is_bought() -> None:
    pods = classes([(1000, 1000, 8)], [[True, True]])
    offered = kinds([1.0, 1.5], [ROOM, [8000, 32000, 58, 0]])

    packing = buy_nodes(pods, pods.counts, np.array([0.2]), offered, caps(2))

    assert [(kind, held.tolist()) for kind, held in packing.nodes] == [(1, [8])]


def test_given_a_pool_cap_when_buying_then_the_next_kind_takes_the_rest() -> None:
    pods = classes([(1000, 1000, 12)], [[True, True]])

    packing = buy_nodes(pods, pods.counts, np.array([0.2]), kinds([1.0, 1.1], [ROOM, ROOM]), caps(2, 2))

    assert sorted(kind for kind, _ in packing.nodes) == [0, 0, 1]


def test_given_a_limit_for_each_node_when_buying_then_no_node_carries_more() -> None:
    pods = classes([(100, 100, 3)], [[True]], limit=1)

    packing = buy_nodes(pods, pods.counts, np.array([0.1]), kinds([1.0], [ROOM]), caps(1))

    assert [held.tolist() for _, held in packing.nodes] == [[1], [1], [1]]


def test_given_pods_that_no_kind_accepts_when_buying_then_they_are_left_over() -> None:
    pods = classes([(100, 100, 3), (100, 100, 2)], [[True], [False]])

    packing = buy_nodes(pods, pods.counts, np.array([0.1, 0.1]), kinds([1.0], [ROOM]), caps(1))

    assert packing.unplaced.tolist() == [0, 2]


def test_given_no_kinds_when_buying_then_all_pods_are_left_over() -> None:
    pods = classes([(100, 100, 3)], [[]])
    none = NodeKinds(
        np.zeros(0), np.zeros((0, 4), np.int64), np.zeros((0, 4), np.int64), *[np.zeros(0, int)] * 2
    )

    assert buy_nodes(pods, pods.counts, np.array([0.1]), none, caps(0)).unplaced.tolist() == [3]


def test_given_free_room_when_filling_then_pods_with_much_choice_take_it_first() -> None:
    pods = classes([(1000, 1000, 4), (1000, 1000, 4)], [[True, False], [True, True]])
    free = np.array([ROOM, [1000, 16000, 58, 0]], np.int64)

    assert fill_existing(pods, free, pods.accepted).tolist() == [4, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(50, 3000), st.integers(50, 9000), st.integers(1, 40)), min_size=1, max_size=8
    )
)
def test_given_any_pods_when_bought_for_then_none_is_lost_nothing_overfilled_and_the_bound_holds(
    rows: list[tuple[int, int, int]],
) -> None:
    pods = classes(rows, [[True, True]] * len(rows))
    offered = kinds([1.0, 1.7], [ROOM, [8000, 24000, 58, 0]])
    relaxed = relax(
        pods.requests, pods.counts, pods.accepted, Columns(offered.prices, offered.rooms, np.full(2, np.inf))
    )

    packing = buy_nodes(pods, pods.counts, relaxed.values + 1e-9, offered, caps(2))

    held = sum((taken for _, taken in packing.nodes), np.zeros(len(rows), np.int64))
    assert (held + packing.unplaced == pods.counts).all()
    assert all((taken @ pods.requests <= offered.rooms[kind]).all() for kind, taken in packing.nodes)
    assert not packing.unplaced.any()
    assert relaxed.cost <= sum(offered.prices[kind] for kind, _ in packing.nodes) + 1e-6
