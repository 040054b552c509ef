from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotopt.bench.replay.buyers import PlainBuyer
from spotopt.bench.replay.buying import Buyer, reduced
from spotopt.bench.replay.facts import CAPACITY_CELL, Move, Order, Pool, Workload
from spotopt.bench.replay.ledger import Result, result_of
from spotopt.bench.replay.market import deal
from spotopt.bench.replay.risk_aware import Oracle, RiskAware, Stance
from spotopt.bench.replay.traces import Trace
from spotopt.bench.replay.world import START_SECONDS, Broken, Terms, World

HOUR = 3600.0
UP = [(0.0, 1.0)]


def pool(number: int, *, usd: str, cell: int, zone: int = 0, cpu: int = 4000) -> Pool:
    return Pool(
        number, f"m{number}.large", zone, cell != CAPACITY_CELL, Decimal(usd), (cpu, 16_000, 20), 0, cell
    )


CHEAP, DEAR, SAFE = (
    pool(0, usd="0.10", cell=0),
    pool(1, usd="0.20", cell=1),
    pool(2, usd="0.40", cell=CAPACITY_CELL),
)
POOLS = (CHEAP, DEAR, SAFE)
WEB = Workload("web", 4, 2, (1000, 1000, 1), is_spread=False)


class Script:
    """Orders one node for all pods, from the given pools, and moves what it is told to."""

    def __init__(self, *pools: int, moves: dict[int, Order] | None = None) -> None:
        self.pools, self.planned, self.heard = pools, moves or {}, []

    def orders(self, pods, _nodes, _second):
        return [Order(self.pools, pods)]

    def moves(self, nodes, _second):
        return [Move(n.number, self.planned.pop(n.number)) for n in nodes if n.number in self.planned]

    def lost(self, number, second):
        self.heard.append(("lost", number, second))

    def short(self, number, second):
        self.heard.append(("short", number, second))


def world(
    policy,
    outages: Sequence[Sequence[tuple[float, float]]] = (UP, UP),
    *,
    lead: float = 0.0,
    workloads=(WEB,),
) -> World:
    return World(
        pools=POOLS,
        workloads=workloads,
        outages=outages,
        trace_of_cell=(0, 1),
        policy=policy,
        terms=Terms(1, lead),
    )


def test_given_no_outage_when_a_day_passes_then_the_bill_is_price_times_hours_and_nothing_else():
    result = result_of(world(Script(0)).run(24 * HOUR))

    assert result == Result(Decimal("2.4"), Decimal(0), 0.0, 0, 0, 0.0, 0, 0.0, 0)


def test_given_a_pool_that_falls_when_replaced_at_the_loss_then_pods_are_down_for_boot_and_start():
    lived = world(policy := Script(0, 2), [[(0.0, 1.0), (HOUR, 0.0)], UP])

    result = result_of(lived.run(3 * HOUR))

    new = lived._machines[1]
    boot = new.ready - new.launched
    assert policy.heard == [("lost", 0, HOUR), ("short", 0, HOUR + 120)]
    assert (new.launched, new.pool) == (HOUR + 120, SAFE)
    assert 26 <= boot <= 71  # one attempt failed before
    assert result.pods_interrupted == 4
    assert result.interrupted_pod_hours == pytest.approx(4 * (boot + START_SECONDS) / HOUR)
    assert result.below_minimum_pod_hours == pytest.approx(2 * (boot + START_SECONDS) / HOUR)
    assert result.breaches == 1
    assert result.usd - result.on_demand_usd == Decimal("0.10") * Decimal(3720) / 3600
    assert result.on_demand_usd == Decimal("0.40") * Decimal(3 * 3600 - 3720) / 3600


def test_given_a_pool_that_falls_when_replaced_at_the_notice_then_pods_are_down_for_their_start_only():
    lived = world(Script(0, 2), [[(0.0, 1.0), (HOUR, 0.0)], UP], lead=120.0)

    result = result_of(lived.run(3 * HOUR))

    assert result.interrupted_pod_hours == pytest.approx(4 * START_SECONDS / HOUR)
    assert lived._machines[1].launched == HOUR
    assert result.usd == Decimal("0.10") * 3720 / 3600 + Decimal("0.40") * 7200 / 3600


def test_given_a_replacement_that_is_lost_too_when_it_boots_then_its_pods_have_been_down_all_the_time():
    notice = HOUR + 120 + 5
    outages = [[(0.0, 1.0), (HOUR, 0.0)], [(0.0, 1.0), (notice, 0.0)]]
    lived = world(policy := Script(0, 1), outages)

    result = result_of(lived.run(3 * HOUR))

    assert [kind for kind, *_ in policy.heard][:3] == ["lost", "short", "lost"]
    assert result.pods_interrupted == 8  # up again on the second node before it went
    assert result.nodes_lost == 2
    second = lived._machines[1]
    first_gap = second.ready + START_SECONDS - (HOUR + 120)
    assert result.interrupted_pod_hours == pytest.approx(4 * (first_gap + 3 * HOUR - notice - 120) / HOUR)


def test_given_a_pool_that_falls_to_a_half_when_three_nodes_run_then_two_are_lost():
    small = Workload("db", 3, 1, (3000, 1000, 1), is_spread=False)

    class OneEach(Script):
        def orders(self, pods, nodes, second):
            return [Order(self.pools, np.array([1])) for _ in range(int(pods[0]))]

    lived = world(OneEach(0, 2), [[(0.0, 1.0), (HOUR, 0.5)], UP], workloads=(small,))

    result = result_of(lived.run(2 * HOUR))

    assert (result.nodes_lost, result.pods_interrupted, result.breaches) == (2, 2, 0)


def test_given_free_room_when_a_node_is_lost_then_its_pods_start_there_at_once():
    pair = Workload("web", 2, 1, (1000, 1000, 1), is_spread=False)

    class Apart(Script):
        def orders(self, pods, nodes, second):
            return [Order((0,), np.array([1])), Order((1,), np.array([1]))]

    lived = world(Apart(), [[(0.0, 1.0), (HOUR, 0.0)], UP], workloads=(pair,))

    result = result_of(lived.run(2 * HOUR))

    assert len(lived._machines) == 2
    assert result.interrupted_pod_hours == pytest.approx(START_SECONDS / HOUR)
    assert result.breaches == 0


def test_given_a_planned_move_when_done_then_the_old_node_ends_after_its_waves_and_no_minimum_is_missed():
    lived = world(Script(2, moves={0: Order((0,), np.array([4]))}))

    result = result_of(lived.run(HOUR))

    old, new = lived._machines
    assert old.lost_at == new.ready + 2 * START_SECONDS  # four pods, two to spare
    assert (result.pods_moved, result.pods_interrupted, result.breaches) == (4, 0, 0)
    assert result.moved_pod_hours == pytest.approx(4 * START_SECONDS / HOUR)
    assert result.on_demand_usd == Decimal("0.40") * Decimal(str(old.lost_at)) / 3600


def test_given_pods_that_do_not_fit_when_ordered_then_the_world_refuses():
    large = Workload("web", 5, 2, (1000, 1000, 1), is_spread=False)

    with pytest.raises(Broken, match="do not fit"):
        world(Script(0), workloads=(large,)).run(HOUR)


def test_given_spread_pods_in_one_zone_when_ordered_then_the_world_refuses():
    spread = Workload("web", 4, 2, (1000, 1000, 1), is_spread=True)
    pools = (CHEAP, pool(1, usd="0.2", cell=1, zone=1))
    lived = World(pools=pools, workloads=(spread,), outages=(UP, UP), trace_of_cell=(0, 1), policy=Script(0))

    with pytest.raises(Broken, match="unevenly"):
        lived.run(HOUR)


def test_given_a_recording_when_a_window_opens_late_then_it_begins_again_at_its_end():
    trace = Trace("t", "b", 60.0, (2, 2, 1, 0))

    assert trace.window(0.5, 240.0) == [(0.0, 0.5), (60.0, 0.0), (120.0, 1.0), (240.0, 0.5)]
    assert trace.availability == 5 / 8


@given(cells=st.integers(1, 200), seed=st.integers(0, 1000))
def test_given_any_mapping_when_dealt_then_shares_are_even_and_side_by_side_recordings_start_together(
    cells, seed
):
    traces = [Trace(str(n), "ab"[n % 2], 60.0, (1,)) for n in range(5)]
    mapping = deal(cells, traces, seed)

    shares = np.bincount(mapping.trace_of_cell, minlength=5)
    assert shares.max() - shares.min() <= 1
    assert len(set(mapping.starts[::2])) == 1
    assert mapping == deal(cells, traces, seed)


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=2, max_size=4),
    cpus=st.lists(st.integers(100, 4000), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_given_any_pods_when_bought_for_then_all_have_room_and_the_spread_ones_their_zone(counts, cpus, seed):
    chance = np.random.default_rng(seed)
    pools = [
        pool(
            n,
            usd=f"{chance.uniform(0.05, 0.5):.4f}",
            cell=n,
            zone=n % 3,
            cpu=int(chance.integers(4000, 16_000)),
        )
        for n in range(9)
    ]
    workloads = [
        Workload(str(n), count, 0, (cpus[n], 500 + cpus[n] // 2, 1), is_spread=n == 0)
        for n, count in enumerate(counts)
    ]
    buyer = Buyer(pools, workloads)
    prices = np.array([float(p.usd_per_hour) for p in pools])
    left = buyer.portions(np.array(counts), [])
    nodes = []

    while bought := buyer.best(left, prices, np.ones(9, bool), None):
        nodes.append(bought)
        left = reduced(left, bought, int(buyer.zones[bought.pool]))

    assert left == []
    assert all(buyer.holds(node.pods)[node.pool] for node in nodes)
    assert sum((node.pods for node in nodes), np.zeros(len(counts), np.int64)).tolist() == counts
    zones = np.bincount([n.pool % 3 for n in nodes], [n.pods[0] for n in nodes], 3) if nodes else np.zeros(3)
    assert zones.max() - zones.min() <= 1


def test_given_both_pools_up_when_each_policy_buys_then_plain_takes_the_cheapest_and_ours_spreads():
    plain, ours = PlainBuyer(POOLS, (WEB,), spot=True), RiskAware(POOLS, (WEB,), Stance(share=1.0))

    assert [(o.pools[0], o.pods.tolist()) for o in plain.orders(np.array([4]), [], 0.0)] == [(0, [4])]
    assert sorted((o.pools[0], o.pods.tolist()) for o in ours.orders(np.array([4]), [], 0.0)) == [
        (0, [2]),
        (1, [2]),
    ]


def test_given_a_pool_short_of_capacity_when_ours_buys_then_it_backs_off_and_on_demand_is_the_last_resort():
    ours = RiskAware(POOLS, (WEB,), Stance(share=1.0))
    ours.short(0, 0.0)

    early = ours.orders(np.array([2]), [], 179.0)
    late = ours.orders(np.array([2]), [], 180.0)

    assert [order.pools for order in early] == [(1, 2)]
    assert [order.pools for order in late] == [(0, 1, 2)]


def test_given_volatile_pools_when_each_policy_lives_through_them_then_ours_falls_below_its_minimum_less():
    flicker = [(0.0, 1.0)] + [(i * HOUR, float(i % 2 == 0)) for i in range(1, 48)]
    steady = [(0.0, 1.0), (30 * HOUR, 0.0), (31 * HOUR, 1.0)]

    def lived(policy):
        return result_of(world(policy, [flicker, steady]).run(48 * HOUR))

    plain, ours = lived(PlainBuyer(POOLS, (WEB,), spot=True)), lived(RiskAware(POOLS, (WEB,), Stance()))

    assert ours.breaches < plain.breaches
    assert ours.pods_interrupted < plain.pods_interrupted
    assert ours == lived(RiskAware(POOLS, (WEB,), Stance()))


def test_given_a_pool_that_will_fall_soon_when_bought_with_look_ahead_then_it_is_passed_over():
    def first_choice(falls):
        oracle = Oracle(POOLS, (WEB,), Stance(share=1.0), falls)
        return oracle.orders(np.array([2]), [], 0.0)[0].pools[0]

    assert first_choice([[], []]) == CHEAP.number
    assert first_choice([[600.0], []]) == DEAR.number
