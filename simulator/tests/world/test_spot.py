from datetime import timedelta
from decimal import Decimal

from simulator.bill import cost
from simulator.machines import MachineRoom
from simulator.spot import SpotLife
from simulator.tests.world.standin import START, build_world, deployment, fleet_of, machine, market

DAY = timedelta(days=1)


def a_room(count=40):
    room = MachineRoom()
    room.launch_many([machine(at + 1, lifecycle="spot") for at in range(count)])
    room.launch(machine(999))
    room.advance(START + timedelta(minutes=2))
    return room


def live(room, rate, *, days):
    life = SpotLife(room=room, market=market(), interruption_rate=rate)
    for hour in range(days * 24):
        now = START + timedelta(hours=hour, minutes=3)
        life.tick(now)
        room.advance(now + timedelta(minutes=30))
    return life


def test_given_time_when_it_passes_then_spot_machines_cost_what_the_market_says():
    room = a_room(3)

    live(room, 0.0, days=9)

    spot = room.all()[0]
    place = (spot.region, spot.zone_id, spot.instance_type)
    assert len(spot.price_changes) > 1
    for at, price in spot.price_changes[1:]:
        assert price == market().spot(*place, at)
    assert cost(spot, START, START + DAY) < Decimal("0.192") * 24
    assert len(room.get(machine(999).instance_id).price_changes) == 1


def test_given_no_interruption_rate_when_a_month_passes_then_nobody_is_interrupted():
    room = a_room()

    live(room, 0.0, days=30)

    assert all(each.interrupted_at is None for each in room.all())


def test_given_a_high_rate_when_a_month_passes_then_the_same_machines_are_lost_in_the_same_order():
    first, second = a_room(), a_room()

    live(first, 20.0, days=30)
    live(second, 20.0, days=30)

    lost = [each for each in first.all() if each.interrupted_at]
    assert len(lost) > 10
    assert {each.termination_reason for each in lost} == {"spot-interruption"}
    assert {each.lifecycle for each in lost} == {"spot"}
    assert all(each.terminated_at - each.interrupted_at == timedelta(seconds=120) for each in lost)
    assert [each.interrupted_at for each in first.all()] == [each.interrupted_at for each in second.all()]


def test_given_losses_when_some_were_announced_then_the_rebalance_signal_came_first():
    room = a_room()

    life = SpotLife(room=room, market=market(), interruption_rate=120.0)
    for number in range(5 * 24 * 20):
        life.tick(START + timedelta(minutes=3 * number))

    warned = [each for each in room.all() if each.rebalance_at and each.interrupted_at]
    lost = [each for each in room.all() if each.interrupted_at]
    assert 0 < len(warned) < len(lost)
    assert all(each.rebalance_at < each.interrupted_at for each in warned)


def test_given_machines_that_started_minutes_apart_when_the_world_is_born_then_pods_use_every_zone():
    starting = fleet_of(deployment("web", 3, spread_zones=True))
    world = build_world(starting, stagger=timedelta(minutes=8))
    cluster = world.clusters["test"].cluster

    zones = {
        cluster.store.get("nodes", "", pod["spec"]["nodeName"])["metadata"]["labels"][
            "topology.kubernetes.io/zone"
        ]
        for pod in cluster.store.bodies("pods")
    }

    assert len(zones) == 3
