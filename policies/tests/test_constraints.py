"""Rules about pods are solved for: dropping forbidden nodes from a plan made without them would not do."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from policies.domain.optimizer import propose
from policies.domain.plan import PlanProposal
from policies.domain.shapes import Offer, PodTerm, SpreadRule
from policies.tests.fleets import NOW, node, rules
from policies.tests.scenes import LEAVING, LENIENT, Scene, insider, pool, roomy, subject, tiny

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
CHEAP, DEAR = Decimal("0.05"), Decimal("0.08")
CHEAP_A, DEAR_B, DEAR_C = (pool(zone=z, usd_per_hour=usd) for z, usd in enumerate((CHEAP, DEAR, DEAR)))
ON_DEMAND = pool("m5.xlarge", capacity_type="on_demand", usd_per_hour=Decimal("0.15"))
FILLED = rules(**LENIENT)


def planned(scene: Scene) -> PlanProposal:
    """A plan under which the leaving node goes, whatever it takes."""
    nodes = tuple(replace(each, protected_reason="kept for the test") for each in scene.nodes)
    cluster = replace(scene, nodes=nodes).cluster

    plan = propose(snapshot=cluster, offers=scene.offers, rules=scene.rules, now=NOW)

    assert [removal.node_id for wave in plan.waves for removal in wave.removals] == [LEAVING]
    return plan


def bought(scene: Scene) -> Counter[tuple[str, str, str]]:
    launches = [launch for wave in planned(scene).waves for launch in wave.launches]
    return Counter((each.instance_type, each.zone, each.capacity_type.value) for each in launches)


def key(offer: Offer) -> tuple[str, str, str]:
    return offer.instance_type, offer.zone, offer.capacity_type.value


def test_given_a_volume_in_a_dear_zone_when_planned_then_only_its_pods_are_bought_for_there() -> None:
    pinned = subject(1, 3000, pinned_zone=DEAR_B.zone)
    free = replace(subject(2, 3000), id="free", name="free")
    scene = Scene(pinned, (CHEAP_A, DEAR_B), others=(free,), on_others={("free", LEAVING): 2})

    assert bought(scene) == {key(CHEAP_A): 2, key(DEAR_B): 1}


def test_given_a_spread_over_zones_when_planned_then_each_zone_gets_its_part() -> None:
    even = subject(3, 3000, spread=(SpreadRule(ZONE, 1, min_domains=3),))

    assert bought(Scene(even, (CHEAP_A, DEAR_B, DEAR_C), pods_leaving=3)) == {
        key(CHEAP_A): 1,
        key(DEAR_B): 1,
        key(DEAR_C): 1,
    }


def test_given_pods_that_must_be_near_a_volume_when_planned_then_they_follow_it_to_the_dear_zone() -> None:
    database = subject(1, 500, pinned_zone=DEAR_B.zone)
    web = replace(subject(2, 3000, pod_affinity=(PodTerm(ZONE, ("subject",)),)), id="web", name="web")
    there = node(LEAVING, "m5.8xlarge", DEAR_B.zone, group="")
    scene = Scene(database, (CHEAP_A, DEAR_B), others=(web,), on_others={("web", LEAVING): 2}, leaving=there)

    assert set(bought(scene)) == {key(DEAR_B)}


def test_given_pods_of_one_workload_that_may_not_share_a_node_when_planned_then_each_has_its_own() -> None:
    large = pool("m5.4xlarge", usd_per_hour=Decimal("0.12"))
    loner = subject(3, 1000, anti_affinity_keys=(HOST,))

    assert bought(Scene(loner, (CHEAP_A, large), pods_leaving=3)) == {key(CHEAP_A): 3}


@pytest.mark.parametrize(("minimum", "on_demand"), [(1, 1), (2, 2), (4, 4)])
def test_given_a_part_on_demand_when_planned_then_only_that_part_is_dear(
    minimum: int, on_demand: int
) -> None:
    partly = subject(4, 3000, on_demand_minimum=minimum)

    plan = bought(Scene(partly, (CHEAP_A, ON_DEMAND), pods_leaving=4))

    assert plan == Counter({key(ON_DEMAND): on_demand, key(CHEAP_A): 4 - on_demand}) + Counter()


def test_given_one_pod_that_needs_a_large_disk_when_planned_then_only_it_gets_one() -> None:
    small = pool(usd_per_hour=CHEAP, allocatable=roomy(disk_mib=9_000))
    hoarder = subject(request=tiny(cpu_millis=3000, ephemeral_mib=20_000))
    others = (replace(subject(6, 3000), id="free", name="free"),)
    scene = Scene(hoarder, (small, DEAR_B), others=others, on_others={("free", LEAVING): 6})

    assert bought(scene) == {key(small): 6, key(DEAR_B): 1}


def test_given_pods_that_a_taint_keeps_out_when_planned_then_free_room_behind_it_is_no_room() -> None:
    scene = Scene(insider("subject"), (CHEAP_A,))

    assert bought(scene) == {}
    assert bought(replace(scene, subject=replace(scene.subject, tolerations=()))) == {key(CHEAP_A): 1}


def test_given_two_that_may_not_share_a_node_when_planned_then_two_small_nodes_beat_one_large() -> None:
    large = pool("m5.2xlarge", usd_per_hour=Decimal("0.06"))
    rival = replace(
        subject(1, 3000, pod_anti_affinity=(PodTerm(HOST, ("subject",)),)), id="rival", name="rival"
    )
    scene = Scene(subject(1, 3000), (CHEAP_A, large), others=(rival,), on_others={("rival", LEAVING): 1})

    assert bought(scene) == {key(CHEAP_A): 2}
