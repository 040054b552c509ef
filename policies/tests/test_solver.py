"""Laws of the packing solver, against exhaustive search where it is possible."""

import functools
import itertools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.domain.model import IntArray
from policies.domain.solver.certificate import exact_ceiling, relaxed_ceilings
from policies.domain.solver.first_fit import first_fit
from policies.domain.solver.problem import (
    UNLIMITED,
    Answer,
    Binding,
    Infeasible,
    NodeRule,
    Problem,
    share_caps,
)
from policies.domain.solver.reduction import reduce
from policies.domain.solver.solve import Effort, solve

QUICK = Effort(seconds=30, rounds=15, searches=3, proof_seconds=1.0)


def stopped() -> float:
    return 0.0


def problem(
    requests: list[tuple[int, int]],
    counts: list[int],
    kinds: list[tuple[int, int, float]],
    **changes: Any,
) -> Problem:
    """Shapes of (CPU, memory) onto kinds of (CPU, memory, price), all in zone 0 unless changed."""
    shapes, size = len(requests), len(kinds)
    values: dict[str, Any] = {
        "requests": np.array([(cpu, memory, 1) for cpu, memory in requests], np.int64),
        "counts": np.array(counts, np.int64),
        "accepted": np.ones((shapes, size), bool),
        "rooms": np.array([(cpu, memory, 20) for cpu, memory, _ in kinds], np.int64),
        "prices": np.array([price for *_, price in kinds]),
        "zones": np.zeros(size, np.int64),
        "pools": np.arange(size),
        "families": np.arange(size),
        "limits": np.full(size, UNLIMITED),
        "skews": np.zeros(shapes, np.int64),
        "per_node": np.full(shapes, UNLIMITED),
    }
    return Problem(**values | changes)


def placed(answer: Answer, shapes: int) -> list[int]:
    total = np.zeros(shapes, np.int64)
    for column in answer.columns:
        total += column.copies * column.pods
    return [int(count) for count in total]


def assert_holds(subject: Problem, answer: Answer) -> None:
    """Every node holds its pods, and every pod that is not named as unplaced has one."""
    for column in answer.columns:
        carried = column.pods > 0
        assert (column.pods @ subject.requests <= subject.rooms[column.kind]).all()
        assert subject.accepted[carried, column.kind].all()
        assert (column.pods <= subject.per_node).all()
    missing = np.zeros(len(subject.counts), np.int64)
    for unplaced in answer.unplaced:
        missing[unplaced.shape] += unplaced.count
    assert placed(answer, len(subject.counts)) == (subject.counts - missing).tolist()


def patterns(subject: Problem, kind: int) -> list[tuple[int, ...]]:
    ranges = [range(int(count) + 1) for count in subject.counts]
    return [
        pods
        for pods in itertools.product(*ranges)
        if any(pods) and (np.array(pods) @ subject.requests <= subject.rooms[kind]).all()
    ]


def cheapest(subject: Problem) -> float:
    """The optimum by exhaustive search."""
    options = [
        (float(subject.prices[k]), pods) for k in range(len(subject.prices)) for pods in patterns(subject, k)
    ]

    @functools.cache
    def best(left: tuple[int, ...]) -> float:
        if not any(left):
            return 0.0
        first = next(index for index, count in enumerate(left) if count)
        return min(
            (
                price + best(tuple(max(0, a - b) for a, b in zip(left, pods, strict=True)))
                for price, pods in options
                if pods[first]
            ),
            default=float("inf"),
        )

    return best(tuple(int(count) for count in subject.counts))


shape_amounts = st.tuples(st.integers(1, 9), st.integers(1, 9))
tiny = st.builds(
    lambda shapes, kinds: problem(
        [s for s, _ in shapes], [n for _, n in shapes], [(*k, p / 8) for k, p in kinds]
    ),
    st.lists(st.tuples(shape_amounts, st.integers(1, 3)), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.tuples(st.integers(9, 24), st.integers(9, 24)), st.integers(4, 24)),
        min_size=1,
        max_size=3,
    ),
)


@settings(max_examples=60, deadline=None)
@given(tiny)
def test_given_any_tiny_problem_when_solved_then_bound_optimum_and_cost_are_in_order(
    subject: Problem,
) -> None:
    answer = solve(subject, stopped, QUICK)

    optimum = cheapest(subject)
    assert_holds(subject, answer)
    assert answer.bound <= optimum + 1e-6
    assert optimum <= answer.cost + 1e-9
    assert answer.cost <= optimum * 1.35 + 1e-9


@settings(max_examples=40, deadline=None)
@given(tiny, st.lists(st.floats(0.01, 2.0), min_size=3, max_size=3))
def test_given_prices_of_pods_when_a_node_is_priced_exactly_then_no_filling_is_worth_more(
    subject: Problem, worths: list[float]
) -> None:
    model = reduce(subject)
    worth = np.array(worths)[: len(model.counts)]
    relaxed = relaxed_ceilings(model, np.repeat(worth[None], len(model.kinds), axis=0))

    for kind in range(len(model.kinds)):
        merged = replace(
            subject,
            requests=model.requests.astype(np.int64),
            counts=model.counts,
            rooms=model.rooms.astype(np.int64),
            accepted=np.ones((len(model.counts), len(model.kinds)), bool),
            **{
                name: getattr(subject, name)[model.kinds]
                for name in ("prices", "zones", "pools", "families", "limits")
            },
            **{name: getattr(subject, name)[: len(model.counts)] for name in ("skews", "per_node")},
        )
        true = max((float(np.array(pods) @ worth) for pods in patterns(merged, kind)), default=0.0)
        ceiling, pods = exact_ceiling(model, kind, worth, 0.0)

        assert true <= ceiling + 1e-6
        assert ceiling <= true * 1.001 + 1e-6
        assert true <= relaxed[kind] + 1e-6
        assert pods is None or (pods @ model.requests <= model.rooms[kind]).all()


def mixed(pods: int = 40) -> Problem:
    return problem(
        [(500, 800), (1200, 900), (300, 2500), (2000, 4000)],
        [pods, pods // 2, pods // 2, pods // 4],
        [(3600, 7000, 0.10), (7500, 15000, 0.19), (7500, 30000, 0.24), (15000, 60000, 0.47)],
    )


def test_given_a_seed_when_solved_twice_then_the_answers_are_equal() -> None:
    one, other = (solve(mixed(), stopped, replace(QUICK, proof_seconds=0), seed=7) for _ in range(2))

    assert [(c.kind, c.copies, c.pods.tolist()) for c in one.columns] == [
        (c.kind, c.copies, c.pods.tolist()) for c in other.columns
    ]
    assert one.cost == other.cost
    assert one.bound == other.bound


def test_given_many_pods_when_solved_with_a_proof_then_the_cost_is_near_the_bound() -> None:
    answer = solve(mixed(400), time.process_time, QUICK)

    assert_holds(mixed(400), answer)
    assert answer.gap < 0.02


def test_given_ten_times_the_replicas_when_solved_then_the_cost_is_about_ten_times_as_high() -> None:
    small, large = solve(mixed(200), stopped, QUICK), solve(mixed(2000), stopped, QUICK)

    assert 9.5 * small.cost < large.cost <= 10 * small.cost


def test_given_shares_of_the_cost_when_solved_then_whole_nodes_keep_them() -> None:
    free = mixed(200)
    kinds = [np.tile(getattr(free, name), 3) for name in ("prices", "families", "limits")]
    subject = replace(
        free,
        accepted=np.tile(free.accepted, 3),
        rooms=np.tile(free.rooms, (3, 1)),
        prices=kinds[0] * np.repeat([1.0, 1.03, 1.06], 4),
        families=kinds[1],
        limits=kinds[2],
        zones=np.repeat([0, 1, 2], 4),
        pools=np.arange(12),
    )
    capped = replace(subject, rules=share_caps("pool", subject.pools, 0.25, subject.prices))

    answer = solve(capped, stopped, QUICK)

    assert_holds(capped, answer)
    by_pool = np.zeros(12)
    for column in answer.columns:
        by_pool[column.kind] += column.copies * capped.prices[column.kind]
    assert by_pool.max() <= 0.25 * answer.cost + 1e-9
    assert solve(subject, stopped, QUICK).cost <= answer.cost


def zoned(counts: list[int], settled: IntArray | None = None, skew: int = 1) -> Problem:
    prices = [0.10, 0.12, 0.15]
    return problem(
        [(700, 900), (400, 2000)],
        counts,
        [(4000, 8000, price) for price in prices],
        zones=np.arange(3),
        skews=np.array([skew, 0]),
        settled=settled,
    )


def by_zone(answer: Answer, subject: Problem, shape: int) -> list[int]:
    pods = [0, 0, 0]
    for column in answer.columns:
        pods[int(subject.zones[column.kind])] += column.copies * int(column.pods[shape])
    return pods


@pytest.mark.parametrize("count", [1, 4, 17, 60])
def test_given_zone_spread_when_solved_then_zones_differ_by_the_skew_and_the_rest_is_in_the_cheap_zone(
    count: int,
) -> None:
    subject = zoned([count, 30])

    answer = solve(subject, stopped, QUICK)

    assert_holds(subject, answer)
    zones = by_zone(answer, subject, 0)
    assert max(zones) - min(zones) <= 1
    assert answer.bound <= answer.cost


def test_given_pods_that_stay_when_zones_are_balanced_then_new_ones_go_where_few_are() -> None:
    subject = zoned([6, 0], np.array([[5, 1, 0], [0, 0, 0]]))

    answer = solve(subject, stopped, QUICK)

    assert by_zone(answer, subject, 0) == [0, 3, 3]


def test_given_a_limit_by_node_and_a_conflict_when_solved_then_both_hold() -> None:
    subject = problem(
        [(100, 100), (100, 100), (100, 200)],
        [5, 4, 20],
        [(2000, 4000, 0.1), (4000, 8000, 0.18)],
        per_node=np.array([1, UNLIMITED, UNLIMITED]),
        conflicts=((0, 1),),
    )

    answer = solve(subject, stopped, QUICK)

    assert_holds(subject, answer)
    assert all(not (column.pods[0] and column.pods[1]) for column in answer.columns)
    assert sum(column.copies for column in answer.columns if column.pods[0]) == 5


def test_given_nodes_paid_already_when_solved_then_they_are_used_first_and_not_beyond_their_number() -> None:
    subject = problem(
        [(900, 900)],
        [40],
        [(4000, 4000, 0.0), (4000, 4000, 0.2)],
        limits=np.array([3, UNLIMITED]),
    )

    answer = solve(subject, stopped, QUICK)

    assert sum(column.copies for column in answer.columns if column.kind == 0) == 3
    assert answer.cost == pytest.approx(7 * 0.2)
    assert answer.bound <= 7 * 0.2


@pytest.mark.parametrize(
    ("changes", "binding"),
    [
        ({"accepted": np.array([[True], [False]])}, Binding.NOT_ACCEPTED),
        ({"requests": np.array([(1, 1, 1), (1, 99_999, 1)])}, Binding.TOO_LARGE),
    ],
)
def test_given_a_pod_that_fits_nowhere_when_solved_then_the_obstacle_is_named(
    changes: dict[str, Any], binding: Binding
) -> None:
    subject = replace(problem([(100, 100), (100, 100)], [3, 2], [(1000, 1000, 0.1)]), **changes)

    answer = solve(subject, stopped, QUICK)

    assert [(u.shape, u.count, u.binding) for u in answer.unplaced] == [(1, 2, binding)]
    assert placed(answer, 2) == [3, 0]


@pytest.mark.parametrize("request_", [(0, 0), (5, 0), (0, 5)])
def test_given_pods_that_ask_for_little_but_a_slot_when_solved_then_slots_decide(
    request_: tuple[int, int],
) -> None:
    subject = problem([request_], [30], [(100, 100, 1.0)])

    answer = solve(subject, stopped, QUICK)

    assert_holds(subject, answer)
    assert (answer.cost, answer.unplaced) == (2.0, ())
    assert answer.bound <= 2.0


def test_given_too_few_nodes_when_solved_then_the_pods_left_out_are_counted() -> None:
    subject = problem([(600, 600)], [5], [(1000, 1000, 0.1)], limits=np.array([2]))

    answer = solve(subject, stopped, QUICK)

    assert [(u.shape, u.count, u.binding) for u in answer.unplaced] == [(0, 3, Binding.LIMITS)]
    assert placed(answer, 1) == [2]


def test_given_a_rule_that_no_node_set_keeps_when_solved_then_its_name_is_raised() -> None:
    rule = NodeRule("at most one node", np.ones(1), 1.0)
    subject = problem([(600, 600)], [5], [(1000, 1000, 0.1)], rules=(rule,))

    with pytest.raises(Infeasible, match="at most one node") as raised:
        solve(subject, stopped, QUICK)

    assert raised.value.binding is Binding.RULES


def test_given_arrays_of_different_sizes_when_a_problem_is_stated_then_it_is_refused() -> None:
    with pytest.raises(ValueError, match="disagree in size"):
        problem([(1, 1)], [1, 2], [(10, 10, 1.0)])


def two_parts(seed: int) -> Problem:
    """Pods that may run anywhere, and pods that only the dearer half of the kinds accepts."""
    chance = np.random.default_rng(seed)
    requests = [(int(cpu), int(memory)) for cpu, memory in chance.integers(3, 40, (8, 2))]
    kinds = [(64, 64, 1.0), (100, 70, 1.4), (70, 110, 1.5), (64, 64, 2.0), (100, 70, 2.9), (70, 110, 3.1)]
    parts = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    accepted = np.ones((8, 6), bool)
    accepted[parts == 1, :3] = False
    zones = np.array([0, 1, 0, 1, 0, 1])
    skews = np.array([1, 0, 0, 0, 0, 0, 1, 0])
    counts = chance.integers(1, 30, 8).tolist()
    return problem(requests, counts, kinds, accepted=accepted, parts=parts, zones=zones, skews=skews)


@pytest.mark.parametrize("seed", range(6))
def test_given_pods_of_two_capacity_types_when_solved_together_then_never_dearer_than_apart(
    seed: int,
) -> None:
    subject, effort = two_parts(seed), Effort(rounds=8, searches=2)

    together = solve(subject, stopped, effort, seed)
    apart = [solve(subject.part(number)[0], stopped, effort, seed).cost for number in (0, 1)]

    assert together.cost <= sum(apart) + 1e-9
    assert_holds(subject, together)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_given_any_pods_when_solved_with_little_effort_then_never_dearer_than_first_fit(seed: int) -> None:
    chance = np.random.default_rng(seed)
    requests = [(int(cpu), int(memory)) for cpu, memory in chance.integers(1, 40, (5, 2))]
    subject = problem(requests, chance.integers(1, 20, 5).tolist(), [(64, 64, 1.0), (100, 120, 1.7)])
    model = reduce(subject)

    nodes, missing = first_fit(model, model.counts[model.row_shape])
    answer = solve(subject, stopped, Effort(rounds=0, searches=0, dives=1, packings=1), seed)

    loads = np.array([pods @ model.requests for _, pods in nodes])
    assert not missing.any()
    assert (loads <= model.rooms[[kind for kind, _ in nodes]]).all()
    assert answer.cost <= sum(model.prices[kind] for kind, _ in nodes) + 1e-9


def test_given_rivals_and_a_limit_by_node_when_packed_by_first_fit_then_both_hold() -> None:
    subject = problem(
        [(10, 10), (5, 5)], [4, 6], [(40, 40, 1.0)], conflicts=((0, 1),), per_node=np.array([3, 2])
    )

    nodes, missing = first_fit(reduce(subject), np.array([4, 6]))

    assert [pods.tolist() for _, pods in nodes] == [[3, 0], [1, 0], [0, 2], [0, 2], [0, 2]]
    assert missing.tolist() == [0, 0]
