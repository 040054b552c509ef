"""Laws of the migration frontier on small fleets: its bound, its plays and what it finds."""

from itertools import combinations

import numpy as np
import pytest

from policies.domain.model import place_of_node
from policies.domain.scheduling import Board
from policies.domain.shapes import Node, Resources, Workload
from policies.domain.solver.migration import Fleet, FrontierProgram, fill
from policies.domain.solver.migration_play import Candidate, Player
from policies.domain.solver.migration_search import Search, frontier
from policies.tests.fleets import DAEMONS, node, offer, workload

SIZES = ((2000, 8000), (1100, 900), (700, 3000), (300, 500), (100, 100))
KINDS = ("m5.xlarge", "c5.xlarge", "r5.2xlarge")


def fleet(seed: int, nodes: int = 7, **changes: object) -> Fleet:
    """Return a fleet of m5.2xlarge with a random load, from which all nodes may go."""
    chance = np.random.default_rng(seed)
    requests = np.array([(cpu, memory, 1) for cpu, memory in SIZES], np.int64)
    running = node("n")
    size = amounts(running.allocatable)
    room = size - amounts(DAEMONS)
    pods = np.asarray(changes.get("pods", chance.integers(0, (2, 3, 3, 4, 6), (nodes, len(SIZES)))))
    offers = [offer(name) for name in KINDS]
    sizes = np.array([amounts(bought.allocatable) for bought in offers])
    values: dict[str, object] = {
        "requests": requests,
        "pods": pods,
        "free": room - pods @ requests,
        "paid": np.full(nodes, float(running.usd_per_hour)),
        "movable": np.ones(nodes, bool),
        "allocatable": np.tile(size, (nodes, 1)),
        "stays_accepted": np.ones((len(SIZES), nodes), bool),
        "rooms": sizes - amounts(DAEMONS),
        "prices": np.array([float(bought.usd_per_hour) for bought in offers]),
        "kind_allocatable": sizes,
        "accepted": np.ones((len(SIZES), len(KINDS)), bool),
        "supply": np.tile(size[:2].astype(float), (nodes, 1)),
        "kind_supply": sizes[:, :2].astype(float),
        "needed": np.zeros(2),
        "balance": np.zeros(len(KINDS)),
    }
    return Fleet(**(values | changes))  # type: ignore[arg-type]  # checked by the dataclass's readers


def amounts(resources: Resources) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array((resources.cpu_millis, resources.memory_mib, resources.pods), np.int64)


def board_of(running: Fleet) -> Board:
    """Return the same cluster on the simulated scheduler of the engine."""
    items: list[Workload] = [
        workload(f"w{shape}", cpu=cpu, memory=memory) for shape, (cpu, memory) in enumerate(SIZES)
    ]
    nodes: list[Node] = [node(f"n{index}") for index in range(len(running.pods))]
    pods = {
        f"n{index}": {f"w{shape}": int(count) for shape, count in enumerate(row)}
        for index, row in enumerate(running.pods)
    }
    return Board(items, [place_of_node(each) for each in nodes], pods)


@pytest.mark.parametrize("seed", range(12))
def test_given_any_fleet_when_bounded_then_no_reachable_migration_is_cheaper(seed: int) -> None:
    running = fleet(seed, nodes=5)
    program, player = FrontierProgram(running), Player(running)
    candidates = [
        Candidate(removed, bought)
        for count in range(5)
        for removed in combinations(range(5), count)
        for bought in ((), (0,), (2,), (0, 1))
    ]
    reached = [
        (running.moved_by[list(c.removed)].sum(), cost_of(running, c))
        for c, outcome in zip(candidates, player.play(candidates), strict=True)
        if outcome.stuck < 0
    ]

    for share in (0.2, 0.5, 1.0):
        relaxed = program.solve(share)
        allowed = [cost for moved, cost in reached if moved <= share * running.moved_by.sum()]

        assert 0 < relaxed.bound <= relaxed.cost + 1e-9
        assert relaxed.bound <= min(allowed) + 1e-9


def cost_of(running: Fleet, candidate: Candidate) -> float:
    gone, new = list(candidate.removed), list(candidate.bought)
    return float(running.paid.sum() - running.paid[gone].sum() + running.prices[new].sum())


@pytest.mark.parametrize("seed", range(20))
def test_given_a_candidate_when_played_then_the_engine_s_scheduler_agrees(seed: int) -> None:
    running = fleet(seed)
    removed = tuple(np.random.default_rng(seed).permutation(7)[:3].tolist())
    (outcome,) = Player(running).play([Candidate(removed)])
    board = board_of(running)
    board.open[list(removed)] = False

    stuck = next((place for place in removed if board.empty(place)[1] >= 0), -1)

    assert outcome.stuck == stuck


def test_given_no_room_when_played_then_the_purchase_comes_before_the_node_that_needs_it() -> None:
    pods = np.tile([0, 6, 0, 0, 0], (3, 1))
    running = fleet(0, nodes=3, pods=pods)

    (short, enough) = Player(running).play([Candidate((0, 1)), Candidate((0, 1), (2, 2, 2))])

    assert (short.stuck, short.launches) == (0, [])
    assert (enough.stuck, enough.launches) == (-1, [0, 1])


def test_given_headroom_when_played_then_what_would_miss_it_is_stuck_or_launched_for() -> None:
    running = fleet(0, nodes=4, pods=np.zeros((4, len(SIZES)), np.int64) + 1)
    needed = running.supply[:3].sum(axis=0)
    guarded = fleet(0, nodes=4, pods=running.pods, needed=needed)

    outcomes = Player(guarded).play([Candidate((0,)), Candidate((0, 1)), Candidate((0, 1), (2,))])

    assert [(outcome.stuck, outcome.launches) for outcome in outcomes] == [(-1, []), (1, []), (-1, [1])]


def test_given_pods_that_refuse_nodes_when_played_then_they_never_land_there() -> None:
    pods = np.zeros((3, len(SIZES)), np.int64)
    pods[0, 3] = 1
    refused = np.ones((len(SIZES), 3), bool)
    refused[3, 1:] = False
    kinds = np.ones((len(SIZES), len(KINDS)), bool)
    kinds[3, 0] = False
    running = fleet(0, nodes=3, pods=pods, stays_accepted=refused, accepted=kinds)

    outcomes = Player(running).play([Candidate((0,)), Candidate((0,), (0,)), Candidate((0,), (0, 1))])

    assert [outcome.stuck for outcome in outcomes] == [0, 0, -1]


@pytest.mark.parametrize("seed", range(6))
def test_given_any_fleet_when_searched_then_the_frontier_falls_and_each_point_is_reachable(seed: int) -> None:
    running = fleet(seed, nodes=12)

    targets = frontier(running, (0.2, 0.5, 1.0), effort=3_000, seed=seed)

    costs = [target.cost for target in targets]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < running.paid.sum()
    for share, target in zip((0.2, 0.5, 1.0), targets, strict=True):
        (outcome,) = Player(running).play([target.candidate])
        assert (outcome.stuck, tuple(outcome.launches)) == (-1, target.launches)
        assert target.moved == running.moved_by[list(target.candidate.removed)].sum()
        assert target.moved <= share * running.moved_by.sum()
        assert target.cost == pytest.approx(cost_of(running, target.candidate))
    assert targets == frontier(running, (0.2, 0.5, 1.0), effort=3_000, seed=seed)


def test_given_rules_of_the_caller_when_searched_then_no_refused_candidate_is_returned() -> None:
    running = fleet(3, nodes=12)
    search = Search(Player(running), fitted=lambda each: None if each.bought else each)
    relaxed = FrontierProgram(running).solve(1.0)

    target = search.improve(search.start(relaxed, 10_000), 10_000, relaxed, effort=3_000)

    assert target.candidate.bought == ()
    assert target.candidate.removed


def test_given_nodes_that_must_stay_when_searched_then_they_are_never_removed() -> None:
    pods = fleet(4, nodes=12).pods.copy()
    pods[:6] = 0
    movable = np.arange(12) >= 6
    running = fleet(4, nodes=12, pods=pods, movable=movable)

    (target,) = frontier(running, (1.0,), effort=3_000)

    assert target.candidate.removed
    assert min(target.candidate.removed) >= 6


def test_given_rooms_when_filled_then_patterns_fit_and_keep_their_limits() -> None:
    chance = np.random.default_rng(5)
    requests = np.array([(cpu, memory, 1) for cpu, memory in SIZES], np.int64)
    rooms = chance.integers(500, 9_000, (30, 3))
    most = chance.integers(0, 4, (30, len(SIZES)))
    orders = [chance.permutation(len(SIZES)) for _ in range(4)]

    patterns = fill(rooms, requests, most, orders, chance.random(len(SIZES)))

    assert (patterns @ requests <= rooms).all()
    assert (patterns <= most).all()
    assert patterns.any()
