from uuid import uuid4

import pytest

from clusters.models import InstanceType
from clusters.tests.factories import ClusterFactory
from policies.models import WhatIf
from policies.tests.factories import WhatIfFactory

OUTCOME = {
    "name": "x", "usd_per_hour_before": "2.000000", "usd_per_hour_after": "1.000000",
    "lower_bound_usd_per_hour": "0.900000", "fee_usd_per_hour": "0", "nodes_before": 8, "nodes_after": 5,
    "nodes_launched": 2, "nodes_removed": 5, "spot_nodes_after": 2, "pods_moved": 31, "risk": 0.05,
    "refusals": {"headroom": 2},
}  # fmt: skip


@pytest.fixture
def cluster(in_acme):
    return ClusterFactory(name="prod-1")


@pytest.fixture
def what_if(cluster):
    return WhatIfFactory(
        cluster=cluster,
        status="running",
        scenarios=[{"name": "As it is"}, {"name": "On-demand only"}, {"name": "Later"}],
        outcomes=[OUTCOME, OUTCOME | {"usd_per_hour_after": "1.250000"}],
    )


def test_given_scenarios_when_posted_then_a_what_if_is_queued_with_the_cluster_as_it_is_first(
    api_as, member, cluster
):
    InstanceType.objects.create(
        name="m5.xlarge", family="m5", size="xlarge", category="m", generation=5, arch="x86_64", vcpu=4,
        memory_mib=16384, max_pods=58, cpu_allocatable_millis=3920, memory_allocatable_mib=14800,
    )  # fmt: skip
    asked = [
        {"on_demand_only": True},
        {"name": "Bought", "commitments": [{"instance_type": "m5.xlarge", "nodes": 3}]},
    ]

    answer = api_as(member).post(
        f"/api/v1/clusters/{cluster.pk}/what-if", {"scenarios": asked}, format="json"
    )

    stored = WhatIf.objects.get()
    assert (answer.status_code, answer.json()["id"]) == (202, str(stored.pk))
    assert [scenario["name"] for scenario in answer.json()["scenarios"]] == [
        "As it is", "On-demand only", "Bought",
    ]  # fmt: skip
    assert stored.scenarios[2]["commitments"] == [
        {"instance_type": "m5.xlarge", "nodes": 3, "usd_per_hour": "0"}
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scenarios": []},
        {"scenarios": [{}] * 7},
        {"scenarios": [{"spot_price_percent": -95}]},
        {"scenarios": [{"commitments": [{"instance_type": "m5.xlarge", "nodes": 0}]}]},
        {"scenarios": [{"config": {"constraints": {"min_nodes": 1}}}]},
    ],
)
def test_given_scenarios_of_a_wrong_shape_when_posted_then_nothing_is_queued(api_as, member, cluster, body):
    answer = api_as(member).post(f"/api/v1/clusters/{cluster.pk}/what-if", body, format="json")

    assert answer.status_code == 400
    assert not WhatIf.objects.exists()


def test_given_a_what_if_when_read_then_each_scenario_is_set_against_the_first(api_as, viewer, what_if):
    body = api_as(viewer).get(f"/api/v1/what-ifs/{what_if.pk}").json()

    more = [(s["usd_per_hour_more"], s["forecast_monthly_more"]) for s in body["scenarios"]]
    assert more == [("0.000000", "0.00"), ("0.250000", "182.50"), (None, None)]
    assert body["scenarios"][0]["outcome"]["refusals"] == {"headroom": 2}
    assert [s["is_baseline"] for s in body["scenarios"]] == [True, False, False]
    assert body["scenarios"][2]["outcome"] is None


def test_given_what_ifs_when_listed_then_the_newest_is_first_and_the_queries_do_not_grow(
    api_as, viewer, cluster, what_if, django_assert_num_queries
):
    for _ in range(3):
        WhatIfFactory(cluster=cluster, status="completed")

    speak = api_as(viewer)

    with django_assert_num_queries(5):
        body = speak.get(f"/api/v1/clusters/{cluster.pk}/what-if").json()

    assert (list(body), body["total"]) == (["what_ifs", "total", "page", "page_size"], 4)
    assert body["what_ifs"][-1]["id"] == str(what_if.pk)


def test_given_a_what_if_under_way_when_deleted_then_it_is_cancelled_once(api_as, member, what_if):
    speak, path = api_as(member), f"/api/v1/what-ifs/{what_if.pk}"

    first, second = speak.delete(path), speak.delete(path)

    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert len(first.json()["scenarios"]) == 3
    assert (second.status_code, second.json()["job_status"]) == (409, "cancelled")


def test_given_another_organization_s_what_if_when_touched_then_it_is_not_found(api_as, stranger, what_if):
    speak = api_as(stranger)
    collection = f"/api/v1/clusters/{what_if.cluster_id}/what-if"

    answers = [
        speak.get(f"/api/v1/what-ifs/{what_if.pk}"),
        speak.delete(f"/api/v1/what-ifs/{what_if.pk}"),
        speak.get(collection),
        speak.post(collection, {"scenarios": [{"on_demand_only": True}]}, format="json"),
        speak.get(f"/api/v1/what-ifs/{uuid4()}"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 5
    what_if.refresh_from_db()
    assert what_if.status == "running"
