from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.bill import cost
from simulator.fleet import Budget
from simulator.tests.world.standin import START, build_world, deployment, fleet_of, live, machine

PODS = "/api/v1/namespaces/default/pods"
HOUR = timedelta(hours=1)


def a_world(replicas=4, minimum=3, **more):
    budget = Budget(min_available=minimum) if minimum else None
    world = build_world(fleet_of(deployment("web", replicas, budget=budget), **more))
    return world, world.clusters["test"].cluster, world.clusters["test"].availability


def web_pods(cluster):
    return [name for (_, name), _ in cluster.store.page("pods", namespace="default")]


def test_given_an_untouched_fleet_when_billed_then_twin_and_actual_are_equal_to_the_last_digit():
    world, _, _ = a_world()

    bill = world.bill.statement(now=START + timedelta(hours=7, seconds=13), since=None, until=None)

    assert bill["actual_usd"] == bill["twin_usd"]
    assert Decimal(bill["actual_usd"]) == (3 * Decimal("0.192") * (7 * 3600 + 13) / 3600).quantize(
        Decimal("0.000001")
    )
    assert bill["actual_usd_per_hour"] == bill["twin_usd_per_hour"] == "0.576000"


def test_given_a_machine_ends_when_billed_then_only_the_actual_bill_stops():
    world, _, _ = a_world()
    world.room.terminate(world.room.all()[0].instance_id, reason="user", at=START + HOUR)

    bill = world.bill.statement(now=START + 3 * HOUR, since=None, until=None)

    assert Decimal(bill["twin_usd"]) == Decimal("0.192") * 9
    assert Decimal(bill["actual_usd"]) == Decimal("0.192") * 7
    assert bill["clusters"]["test"]["nodes"] == 2


def test_given_a_new_price_when_billed_then_each_hour_costs_what_it_cost_then():
    world, _, _ = a_world()
    spot = machine(70, at=START, lifecycle="spot", usd_per_hour=Decimal("0.08"))
    world.room.launch(spot)
    world.room.reprice(spot.instance_id, usd_per_hour=Decimal("0.06"), at=START + HOUR)

    assert cost(spot, START, START + 3 * HOUR) == Decimal("0.08") + 2 * Decimal("0.06")
    assert cost(spot, START + 2 * HOUR, START + 3 * HOUR) == Decimal("0.06")


def test_given_a_machine_of_ten_seconds_when_billed_then_it_costs_a_minute():
    brief = machine(71, at=START, usd_per_hour=Decimal("0.36"))
    brief.price_changes = [(START, brief.usd_per_hour)]
    brief.terminated_at = START + timedelta(seconds=10)

    assert cost(brief, START, START + HOUR) == Decimal("0.006")


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=6))
def test_given_any_cuts_when_billed_piecewise_then_the_parts_add_up_to_the_whole(cuts):
    spot = machine(72, at=START, usd_per_hour=Decimal("0.07"))
    spot.price_changes = [(START, Decimal("0.07")), (START + HOUR, Decimal("0.05"))]
    instants = sorted(START + timedelta(seconds=cut) for cut in cuts)

    parts = sum(cost(spot, begin, end) for begin, end in pairwise(instants))

    assert abs(parts - cost(spot, instants[0], instants[-1])) < Decimal("1e-20")


def test_given_evictions_within_the_budget_when_recorded_then_they_are_counted_and_harmless():
    _, cluster, record = a_world()

    cluster.delete_pod("default", web_pods(cluster)[0], cause="eviction")
    live(cluster, 60)

    report = record.report(cluster.now)
    assert report["evictions"] == 1
    assert (report["pdb_violations"], report["below_minimum"]) == ([], [])
    assert (report["pods_desired"], report["pods_running"], report["pods_pending"]) == (4, 4, 0)
    assert 5 <= report["longest_pending_seconds"] <= 20


def test_given_budgets_are_not_enforced_when_too_many_are_evicted_then_the_violation_is_recorded(
    served, admin, control
):
    control.post("/faults", json={"pdb_enforcement": False}).raise_for_status()
    query = {"labelSelector": "app.kubernetes.io/name=web"}
    names = [item["metadata"]["name"] for item in admin.get(PODS, params=query).json()["items"]]

    for name in names[:2]:
        body = {"metadata": {"name": name}}
        assert admin.post(f"{PODS}/{name}/eviction", json=body).status_code == 201

    report = control.get("/availability").json()["clusters"]["test"]
    (violation,) = report["pdb_violations"]
    assert violation | {"at": None} == {
        "at": None,
        "namespace": "default",
        "budget": "web",
        "pod": names[1],
        "healthy": 2,
        "required": 3,
        "cause": "eviction",
        "voluntary": True,
    }
    assert report["evictions"] == 2


@pytest.mark.parametrize(
    ("reason", "is_violation"), [("user", True), ("spot-interruption", False), ("hardware-failure", False)]
)
def test_given_a_machine_full_of_pods_when_it_ends_then_only_a_voluntary_end_violates(reason, is_violation):
    world, cluster, record = a_world(replicas=6, minimum=6)

    world.room.terminate(world.room.all()[0].instance_id, reason=reason, at=cluster.now)
    live(cluster, 5)

    report = record.report(cluster.now)
    assert bool(report["pdb_violations"]) is is_violation
    assert report["below_minimum"][0]["voluntary"] is is_violation
    assert {each["cause"] for each in report["below_minimum"]} == {reason}


def test_given_a_node_object_deleted_when_its_pods_die_then_it_is_a_violation():
    world, cluster, record = a_world(replicas=6, minimum=6)

    cluster.store.remove("nodes", "", world.room.all()[0].private_dns)
    live(cluster, 5)

    assert {each["cause"] for each in record.report(cluster.now)["pdb_violations"]} == {"node-deleted"}


def test_given_a_scale_down_when_pods_end_then_it_is_no_disruption():
    _, cluster, record = a_world(replicas=6, minimum="90%")
    body = cluster.store.get("deployments", "default", "web")
    cluster.store.put("deployments", body | {"spec": body["spec"] | {"replicas": 1}})

    live(cluster, 60)

    report = record.report(cluster.now)
    assert (report["pdb_violations"], report["below_minimum"], report["pods_running"]) == ([], [], 1)


def test_given_replicas_without_a_budget_when_the_last_healthy_one_goes_then_it_is_below_minimum():
    _, cluster, record = a_world(replicas=2, minimum=None)

    for name in web_pods(cluster):
        cluster.delete_pod("default", name, cause="eviction")

    report = record.report(cluster.now)
    assert [each["healthy"] for each in report["below_minimum"]] == [0]
    assert report["pdb_violations"] == []
