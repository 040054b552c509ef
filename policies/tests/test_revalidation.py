"""The last look before a wave: what changed since the plan stops what it touches, and only that."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from policies.domain.plan import Launch, Removal, Wave
from policies.domain.policy import Rules
from policies.domain.revalidation import recheck_wave
from policies.domain.shapes import ClusterSnapshot, Node, Resources
from policies.tests.fleets import NOW, ZONES, node, offer, rules, snapshot, workload

NODES = [node(f"n-{i}", zone=ZONES[i % 3]) for i in range(10)]
WEB = workload("web", 4, 1000)
CLUSTER = snapshot(NODES, [WEB], {("web", "n-9"): 4})


def removal(of: Node) -> Removal:
    return Removal(of.id, of.instance_id, of.usd_per_hour, "underused", "", 0)


WAVE = Wave((), (removal(NODES[9]),))
POOL = offer("m5.2xlarge")
NEW = Launch("n1", "m5.2xlarge", POOL.zone, POOL.zone_id, POOL.capacity_type, POOL.usd_per_hour, 0.1)


def refused(
    cluster: ClusterSnapshot = CLUSTER,
    wave: Wave = WAVE,
    launched: dict[str, str] | None = None,
    policy: Rules | None = None,
) -> dict[str, str]:
    answer = recheck_wave(
        snapshot=cluster, wave=wave, launched_node_ids=launched or {}, rules=policy or rules(), now=NOW
    )
    return {refusal.subject: refusal.code for refusal in answer}


def changed_node(**changes: Any) -> ClusterSnapshot:
    return replace(CLUSTER, nodes=(*NODES[:9], replace(NODES[9], **changes)))


def test_given_nothing_changed_when_rechecked_then_everything_may_go() -> None:
    assert refused() == {}


def test_given_the_node_is_cordoned_by_a_resumed_wave_when_rechecked_then_it_may_go() -> None:
    assert refused(changed_node(cordoned=True)) == {}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"id": "renamed"}, "node_gone"),
        ({"instance_id": "i-another"}, "node_gone"),
        ({"ready": False}, "not_ready"),
        ({"launched_at": NOW - timedelta(minutes=3)}, "too_young"),
        ({"protected_reason": "marked by hand"}, "protected"),
        ({"labels": {"keep": "yes"}}, "excluded_label"),
    ],
)
def test_given_the_node_changed_when_rechecked_then_it_stays(changes: dict[str, Any], code: str) -> None:
    assert refused(changed_node(**changes), policy=rules(excluded_labels={"keep": "yes"})) == {"n-9": code}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"budget_count": 1, "budget_allows": 0, "minimum_healthy": 3}, "budget_exhausted"),
        ({"budget_count": 1, "budget_allows": 0, "minimum_healthy": 4}, "budget_never_allows"),
        ({"budget_count": 2, "budget_allows": 2}, "several_budgets"),
        ({"do_not_disrupt": True}, "do_not_disrupt"),
        ({"namespace": "kube-system"}, "protected_namespace"),
        ({"node_selector": {"disk": "nvme"}}, "node_selection"),
        ({"request": Resources(7_500, 1024, 1)}, "no_room_elsewhere"),
    ],
)
def test_given_its_pods_changed_when_rechecked_then_the_node_stays(
    changes: dict[str, Any], code: str
) -> None:
    cluster = replace(CLUSTER, workloads=(replace(WEB, replicas=4, **changes),))
    crowded = [replace(n, allocatable=Resources(7_600, 28_000, 58)) for n in NODES]

    assert refused(replace(cluster, nodes=tuple(crowded))) == {"n-9": code}


def test_given_pods_of_a_workload_nobody_described_when_rechecked_then_the_node_stays() -> None:
    assert refused(replace(CLUSTER, workloads=())) == {"n-9": "unknown_pods"}


def test_given_room_only_on_a_node_of_the_same_wave_when_rechecked_then_one_of_them_stays() -> None:
    full = workload("full", 8, 7_000)
    nodes = [node(f"n-{i}", zone=ZONES[i % 3]) for i in range(20)]
    pods = {("full", f"n-{i}"): 1 for i in range(19)}
    cluster = snapshot(nodes, [full], pods)
    wave = Wave((), (removal(nodes[18]), removal(nodes[19])))

    assert refused(cluster, wave) == {"n-18": "no_room_elsewhere"}


def test_given_a_small_cluster_when_rechecked_then_three_ready_nodes_stay() -> None:
    cluster = snapshot(NODES[:4], [], {})
    wave = Wave((), (removal(NODES[0]), removal(NODES[1])))

    assert refused(cluster, wave) == {"n-1": "node_floor"}


def test_given_more_removals_than_a_tenth_when_rechecked_then_the_rest_waits() -> None:
    wave = Wave((), (removal(NODES[0]), removal(NODES[1])))

    assert refused(wave=wave) == {"n-1": "too_many_at_once"}


def test_given_over_a_fifth_of_the_group_is_unready_when_rechecked_then_the_node_stays() -> None:
    sick = tuple(replace(n, ready=index > 2) for index, n in enumerate(NODES))

    assert refused(replace(CLUSTER, nodes=sick)) == {"n-9": "group_unhealthy"}


def test_given_a_fifth_of_the_group_is_unready_when_rechecked_then_the_node_may_go() -> None:
    sick = tuple(replace(n, ready=index > 1) for index, n in enumerate(NODES))

    assert refused(replace(CLUSTER, nodes=sick)) == {}


@pytest.mark.parametrize("launched", [{}, {"n1": "gone"}, {"n1": "n-8"}])
def test_given_a_launch_that_is_not_ready_when_rechecked_then_nothing_goes(launched: dict[str, str]) -> None:
    nodes = (*NODES[:8], replace(NODES[8], ready=False), NODES[9])

    assert refused(replace(CLUSTER, nodes=nodes), replace(WAVE, launches=(NEW,)), launched) == {
        "n-9": "launch_not_ready"
    }


def test_given_every_launch_is_ready_when_rechecked_then_the_wave_goes() -> None:
    assert refused(wave=replace(WAVE, launches=(NEW,)), launched={"n1": "n-8"}) == {}


def test_given_pods_that_wait_for_room_when_rechecked_then_nothing_goes() -> None:
    full = workload("full", 12, 7_000)
    pods = {("full", n.id): 1 for n in NODES}

    assert refused(snapshot(NODES, [full], pods, {"full": 1})) == {"n-9": "pods_pending"}


def test_given_pods_that_the_scheduler_can_place_now_when_rechecked_then_the_wave_goes() -> None:
    assert refused(replace(CLUSTER, pending={"web": 2})) == {}


def test_given_pods_that_no_node_of_the_cluster_could_hold_when_rechecked_then_the_wave_goes() -> None:
    giant = workload("giant", 1, 500_000)

    assert refused(replace(CLUSTER, workloads=(WEB, giant), pending={"giant": 1})) == {}


@pytest.mark.parametrize(("room_elsewhere", "codes"), [(1, {"n-1": "no_room_elsewhere"}), (2, {})])
def test_given_a_node_that_is_being_drained_when_the_rest_is_rechecked_then_its_pods_get_their_room_first(
    room_elsewhere: int, codes: dict[str, str]
) -> None:
    nodes = [node(f"n-{i}", zone=ZONES[0]) for i in range(10)]
    room = nodes[0].allocatable.cpu_millis - nodes[0].daemon_overhead.cpu_millis
    web, full = workload("web", 2, room - 100), workload("full", 8 - room_elsewhere, room - 50)
    places = {("web", "n-0"): 1, ("web", "n-1"): 1}
    places |= {("full", f"n-{i}"): 1 for i in range(2, 10 - room_elsewhere)}
    seen = snapshot([replace(nodes[0], cordoned=True), *nodes[1:]], [web, full], places)

    answer = recheck_wave(
        snapshot=seen, wave=Wave((), (removal(nodes[0]), removal(nodes[1]))), launched_node_ids={},
        rules=rules(max_disrupted_percent=20), now=NOW, begun=frozenset({"n-0"}),
    )  # fmt: skip

    assert {refusal.subject: refusal.code for refusal in answer} == codes
