from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from audit.models import AuditLog
from clusters.models import Action, Cluster, ClusterSample, SavingsEntry
from clusters.tests.factories import ClusterFactory, InstanceFactory, NodeGroupFactory, WorkloadFactory
from spotopt.core.clock import utcnow


@pytest.fixture
def cluster(in_acme):
    """Two nodes, one of them spot, and a terminated one that must not count."""
    cluster = ClusterFactory(name="prod-1", environment="prod", pod_count=30, agent_version="1.2.0")
    group = NodeGroupFactory(cluster=cluster, name="web")
    seen = utcnow()
    InstanceFactory(cluster=cluster, node_group=group, price=Decimal("0.192000"), last_seen_at=seen)
    InstanceFactory(
        cluster=cluster, node_group=group, price=Decimal("0.060000"), lifecycle="spot", last_seen_at=seen
    )
    InstanceFactory(cluster=cluster, node_group=group, state="terminated", terminated_at=seen)
    return cluster


def book(instance, usd, kind="removed", at=None):
    hour = (at or utcnow()).replace(minute=0, second=0, microsecond=0)
    return SavingsEntry.objects.create(
        organization_id=instance.organization_id,
        cluster=instance.cluster,
        instance=instance,
        kind=kind,
        hour=hour,
        booked_from=hour,
        booked_until=hour + timedelta(minutes=30),
        usd_per_hour=abs(Decimal(usd)) * 2,
        usd=Decimal(usd),
        formula="price × hours",
    )


def sample(cluster, at, usd, cpu_used=None):
    ClusterSample.objects.create(
        organization_id=cluster.organization_id,
        cluster=cluster,
        taken_at=at,
        usd_per_hour=Decimal(usd),
        nodes=2,
        spot_nodes=1,
        pods=30,
        pending_pods=0,
        cpu_capacity_millis=8000,
        cpu_used_millis=cpu_used,
    )


def test_given_a_cluster_when_listed_then_every_documented_field_is_exact(api_as, viewer, cluster):
    book(cluster.instances.first(), "1.50")

    body = api_as(viewer).get("/api/v1/clusters").json()

    assert list(body) == ["clusters", "total", "page", "page_size"]
    row = body["clusters"][0]
    assert row["agent"].pop("last_seen").endswith("Z")
    assert row.pop("as_of").endswith("Z")
    assert row == {
        "id": str(cluster.pk), "name": "prod-1", "account_id": str(cluster.account_id), "region": "us-east-1",
        "environment": "prod", "k8s_version": "1.33", "node_count": 2, "spot_count": 1, "pod_count": 30,
        "pending_pods": 0, "usd_per_hour": "0.252000", "monthly_cost": "183.96", "is_cost_estimated": False,
        "booked_savings": "1.50", "is_booked_estimated": False, "efficiency_score": "F", "status": "healthy",
        "lifecycle": "active", "maintenance_mode": False,
        "agent": {"status": "connected", "version": "1.2.0"},
        "last_synced_at": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, "healthy"),
        ({"pending_pods": 1}, "degraded"),
        ({"last_heartbeat_at": None}, "offline"),
        ({"status": "error"}, "offline"),
    ],
)
def test_given_facts_when_listed_then_the_health_follows(api_as, viewer, in_acme, facts, status):
    ClusterFactory(**facts)

    assert api_as(viewer).get("/api/v1/clusters").json()["clusters"][0]["status"] == status


def test_given_a_heartbeat_a_minute_old_when_listed_then_the_cluster_is_offline(
    api_as, viewer, in_acme, time_machine
):
    now = utcnow()
    time_machine.move_to(now, tick=False)
    ClusterFactory(name="fresh", last_heartbeat_at=now - timedelta(seconds=59))
    ClusterFactory(name="silent", last_heartbeat_at=now - timedelta(seconds=60))

    rows = api_as(viewer).get("/api/v1/clusters").json()["clusters"]

    assert [(row["name"], row["status"]) for row in rows] == [("fresh", "healthy"), ("silent", "offline")]


def test_given_an_unready_node_when_over_a_tenth_are_then_the_cluster_is_degraded(api_as, viewer, cluster):
    cluster.instances.filter(lifecycle="spot").update(is_ready=False)

    assert api_as(viewer).get("/api/v1/clusters").json()["clusters"][0]["status"] == "degraded"


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["dev-1", "prod-1"]),
        ({"sort": "-cost"}, ["prod-1", "dev-1"]),
        ({"sort": "nodes"}, ["dev-1", "prod-1"]),
        ({"environment": "prod"}, ["prod-1"]),
        ({"region": "eu-west-1"}, ["dev-1"]),
        ({"agent": "never"}, ["dev-1"]),
        ({"agent": "connected"}, ["prod-1"]),
        ({"agent": "lost"}, []),
        ({"search": "data"}, ["dev-1"]),
        ({"search": "PROD"}, ["prod-1"]),
        ({"page_size": 1, "page": 2}, ["prod-1"]),
    ],
)
def test_given_a_query_when_clusters_are_listed_then_it_is_obeyed(api_as, viewer, cluster, query, names):
    ClusterFactory(name="dev-1", region="eu-west-1", tags={"team": "data"}, last_heartbeat_at=None)
    ClusterFactory(name="gone", removed_at=utcnow())

    answer = api_as(viewer).get("/api/v1/clusters", query).json()

    assert [row["name"] for row in answer["clusters"]] == names


def test_given_more_clusters_and_nodes_when_listed_then_the_queries_do_not_grow(
    api_as, viewer, cluster, django_assert_num_queries
):
    speak = api_as(viewer)
    with django_assert_num_queries(4):
        speak.get("/api/v1/clusters")
    for _ in range(3):
        InstanceFactory()

    with django_assert_num_queries(4):
        assert speak.get("/api/v1/clusters").json()["total"] == 4


def test_given_a_cluster_when_opened_then_groups_and_load_are_shown(api_as, viewer, cluster):
    body = api_as(viewer).get(f"/api/v1/clusters/{cluster.pk}").json()

    assert body["node_groups"] == [
        {"name": "web", "instance_types": [], "desired_capacity": 10, "min_size": 3, "max_size": 20}
    ]
    assert body["health_metrics"] == {
        "cpu_utilization": 12.0, "memory_utilization": 30.0, "pod_count": 30, "pending_pods": 0,
        "reason": None,
    }  # fmt: skip
    assert body["arn"] == cluster.arn


def test_given_no_agent_when_opened_then_the_load_is_unknown_not_zero(api_as, viewer, in_acme):
    bare = ClusterFactory(snapshot_at=None, last_heartbeat_at=None)

    body = api_as(viewer).get(f"/api/v1/clusters/{bare.pk}").json()

    assert body["health_metrics"] == {
        "cpu_utilization": None, "memory_utilization": None, "pod_count": None, "pending_pods": None,
        "reason": "The agent has not reported yet.",
    }  # fmt: skip
    assert (body["efficiency_score"], body["as_of"], body["monthly_budget"]) == (None, None, None)


def test_given_a_member_when_they_change_a_cluster_then_both_values_are_recorded(api_as, member, cluster):
    answer = api_as(member).patch(
        f"/api/v1/clusters/{cluster.pk}",
        {"environment": "staging", "monthly_budget": "500.00", "name": "renamed"},
        format="json",
    )

    body = answer.json()
    assert (body["environment"], body["monthly_budget"], body["name"]) == ("staging", "500.00", "prod-1")
    event = AuditLog.objects.get()
    assert (event.sentence, event.before, event.after) == (
        "Changed environment, monthly_budget of prod-1",
        {"environment": "prod", "monthly_budget": None},
        {"environment": "staging", "monthly_budget": "500.00"},
    )


def test_given_a_pause_when_set_and_lifted_then_both_are_recorded_once(api_as, member, cluster):
    speak, path = api_as(member), f"/api/v1/clusters/{cluster.pk}/maintenance"

    paused = speak.patch(path, {"enabled": True, "reason": "upgrade"}, format="json").json()
    speak.patch(path, {"enabled": True, "reason": "upgrade"}, format="json")
    resumed = speak.patch(path, {"enabled": False}, format="json").json()

    assert (paused["maintenance_mode"], paused["maintenance_reason"]) == (True, "upgrade")
    assert (resumed["maintenance_mode"], resumed["maintenance_reason"]) == (False, "")
    assert list(AuditLog.objects.order_by("seq").values_list("event", flat=True)) == [
        "clusters.cluster.paused", "clusters.cluster.resumed",
    ]  # fmt: skip


def test_given_an_owner_when_they_type_the_name_then_the_cluster_is_gone(api_as, alice, cluster):
    speak, path = api_as(alice), f"/api/v1/clusters/{cluster.pk}"

    mistyped = speak.delete(path, {"name": "prod"}, format="json")
    removed = speak.delete(path, {"name": "prod-1"}, format="json")

    assert (mistyped.status_code, mistyped.json()["errors"]) == (400, {"name": ["must be exactly prod-1."]})
    assert removed.status_code == 204
    assert speak.get(path).status_code == 410
    assert speak.get(f"{path}/nodes").status_code == 410
    assert speak.delete(path, {"name": "prod-1"}, format="json").status_code == 410
    assert AuditLog.objects.get().event == "clusters.cluster.removed"


def test_given_work_under_way_when_removed_then_it_is_refused(api_as, alice, cluster):
    Action.objects.create(
        organization_id=cluster.organization_id,
        cluster=cluster,
        kind="drain_node",
        route="agent",
        target="n1",
        requested_by="x",
        idempotency_key="k",
        expires_at=utcnow() + timedelta(hours=1),
    )

    answer = api_as(alice).delete(f"/api/v1/clusters/{cluster.pk}", {"name": "prod-1"}, format="json")

    assert (answer.status_code, answer.json()["code"]) == (409, "busy")
    assert Cluster.objects.get().removed_at is None


def test_given_a_member_when_they_remove_a_cluster_then_only_owners_may(api_as, member, cluster):
    answer = api_as(member).delete(f"/api/v1/clusters/{cluster.pk}", {"name": "prod-1"}, format="json")

    assert (answer.status_code, Cluster.objects.get().removed_at) == (403, None)


@pytest.mark.parametrize("collection", ["nodes", "node-groups", "workloads", "actions"])
def test_given_what_is_inside_a_cluster_when_listed_then_the_queries_do_not_grow(
    api_as, viewer, cluster, collection, django_assert_max_num_queries
):
    WorkloadFactory(cluster=cluster, name="web")
    speak = api_as(viewer)
    for _ in range(3):
        InstanceFactory(cluster=cluster)

    with django_assert_max_num_queries(5):
        body = speak.get(f"/api/v1/clusters/{cluster.pk}/{collection}").json()

    totals = {"nodes": 5, "node_groups": 4, "workloads": 1, "actions": 0}
    name = collection.replace("-", "_")
    assert (next(iter(body)), body["total"]) == (name, totals[name])


def test_given_nodes_when_filtered_and_sorted_then_money_is_text_with_six_decimals(api_as, viewer, cluster):
    nodes = api_as(viewer).get(f"/api/v1/clusters/{cluster.pk}/nodes", {"sort": "-price"}).json()["nodes"]
    spot = api_as(viewer).get(f"/api/v1/clusters/{cluster.pk}/nodes", {"lifecycle": "spot"}).json()["nodes"]

    assert [node["usd_per_hour"] for node in nodes] == ["0.192000", "0.060000"]
    assert [(node["usd_per_hour"], node["node_group"]) for node in spot] == [("0.060000", "web")]


def test_given_clusters_when_summed_up_then_the_totals_are_exact(api_as, viewer, cluster):
    ClusterFactory(last_heartbeat_at=None)

    body = api_as(viewer).get("/api/v1/clusters/summary").json()

    assert body.pop("as_of").endswith("Z")
    assert body == {
        "clusters": 2, "nodes": 2, "spot_nodes": 1, "vcpu": 7.84, "memory_gib": pytest.approx(28.90625),
        "efficiency_score": "F", "usd_per_hour": "0.252000", "monthly_cost": "183.96",
        "health": {"healthy": 1, "offline": 1},
    }  # fmt: skip


def test_given_nodes_when_the_composition_is_read_then_each_map_sums_to_a_hundred(api_as, viewer, cluster):
    for instance_type in (
        "c5.large",
        "r5.large",
        "t3.large",
        "c6i.large",
        "m6i.large",
        "m7i.large",
        "r6i.large",
        "r7i.large",
    ):
        InstanceFactory(cluster=cluster, instance_type=instance_type, region="eu-west-1")

    body = api_as(viewer).get("/api/v1/metrics/composition").json()

    assert [round(sum(body[part].values()), 6) for part in ("by_family", "by_lifecycle", "by_region")] == [
        100.0
    ] * 3
    assert body["by_lifecycle"] == {"on_demand": 90.0, "spot": 10.0}
    assert body["by_region"] == {"eu-west-1": 80.0, "us-east-1": 20.0}
    assert (len(body["by_family"]), body["by_family"]["m5"], body["by_family"]["other"]) == (9, 20.0, 10.0)


def test_given_nothing_when_the_numbers_are_read_then_they_are_unknown_not_invented(api_as, viewer, acme):
    speak = api_as(viewer)

    assert speak.get("/api/v1/metrics/composition").json() == {
        "by_family": {}, "by_lifecycle": {}, "by_region": {}, "nodes": 0, "as_of": None,
    }  # fmt: skip
    assert speak.get("/api/v1/metrics/timeseries").json() == {"points": [], "total": 0}
    assert speak.get("/api/v1/metrics/savings").json() == {
        "booked_usd": "0.00000000", "estimated": False, "booked_since": None, "booked_until": None,
    }  # fmt: skip


def test_given_samples_when_the_series_is_read_then_bins_are_means_summed_over_clusters(
    api_as, viewer, cluster, time_machine
):
    now = utcnow().replace(minute=0, second=0, microsecond=0)
    time_machine.move_to(now, tick=False)
    at = now - timedelta(hours=2)
    sample(cluster, at, "1.0", cpu_used=4000)
    sample(cluster, at + timedelta(minutes=5), "3.0")
    sample(ClusterFactory(), at, "0.5")
    speak = api_as(viewer)

    body = speak.get("/api/v1/metrics/timeseries").json()
    alone = speak.get("/api/v1/metrics/timeseries", {"cluster_id": str(cluster.pk)}).json()

    assert body["points"] == [
        {
            "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "value": "2.500000",
            "nodes": 4.0,
            "cpu_percent": 50.0,
        }
    ]
    assert alone["points"][0]["value"] == "2.000000"


@pytest.mark.parametrize(
    "query",
    [
        {"start": "2025-02-01T00:00:00Z", "end": "2025-01-01T00:00:00Z"},
        {"start": "2020-01-01T00:00:00Z"},
        {"start": "x"},
        {"account": "x"},
    ],
)
def test_given_a_bad_period_when_the_series_is_read_then_it_is_refused(api_as, viewer, acme, query):
    assert api_as(viewer).get("/api/v1/metrics/timeseries", query).status_code == 400


def test_given_the_ledger_when_read_then_it_is_exact_to_the_last_decimal(api_as, viewer, cluster):
    first, second = cluster.instances.all()[:2]
    entry = book(first, "0.09600001")
    book(second, "-0.03000000", kind="added")

    body = api_as(viewer).get("/api/v1/metrics/savings").json()

    assert body["booked_usd"] == "0.06600001"
    assert body["booked_until"] == entry.booked_until.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_given_another_organizations_cluster_when_touched_then_it_is_not_found(api_as, stranger, cluster):
    speak, path = api_as(stranger), f"/api/v1/clusters/{cluster.pk}"
    InstanceFactory(cluster=cluster)

    answers = [
        speak.get(path),
        speak.patch(path, {"environment": "dev"}, format="json"),
        speak.delete(path, {"name": "prod-1"}, format="json"),
        speak.patch(f"{path}/maintenance", {"enabled": True}, format="json"),
        *(speak.get(f"{path}/{rest}") for rest in ("nodes", "node-groups", "workloads", "actions", "jobs")),
        speak.post(f"{path}/optimize"),
        speak.get(f"/api/v1/clusters/{uuid4()}"),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert speak.get("/api/v1/clusters").json()["clusters"] == []
    assert speak.get("/api/v1/clusters/summary").json()["nodes"] == 0
    assert speak.get("/api/v1/metrics/composition", {"cluster_id": str(cluster.pk)}).json()["nodes"] == 0
    assert speak.get("/api/v1/metrics/kpi", {"account": str(cluster.account_id)}).json()["active_nodes"] == 0
    cluster.refresh_from_db()
    assert (cluster.environment, cluster.maintenance_mode, cluster.removed_at) == ("prod", False, None)


def test_given_a_lowered_minimum_when_its_restoring_is_asked_for_then_an_action_waits(cluster, api_as, alice):
    group = cluster.node_groups.get(name="web")
    group.asg_name, group.original_min_size = "web", 2
    group.save()
    url = f"/api/v1/clusters/{cluster.pk}/node-groups/{group.pk}/minimum"

    asked = api_as(alice).put(url)
    page = api_as(alice).get(f"/api/v1/clusters/{cluster.pk}/node-groups").json()

    assert asked.status_code == 202, asked.content
    assert (asked.json()["kind"], asked.json()["params"]["minimum"]) == ("restore_minimum", 2)
    assert page["node_groups"][0]["original_min_size"] == 2
    assert api_as(alice).delete(url).status_code == 204


def test_given_a_viewer_when_a_minimum_is_to_be_restored_then_it_is_forbidden(cluster, api_as, viewer):
    group = cluster.node_groups.get(name="web")

    answer = api_as(viewer).put(f"/api/v1/clusters/{cluster.pk}/node-groups/{group.pk}/minimum")

    assert answer.status_code == 403
