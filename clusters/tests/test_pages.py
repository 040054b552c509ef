from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.urls import reverse

from accounts.models import Account, Membership
from clusters.domain.interruptions import Kind, Notice
from clusters.models import (
    Action,
    Cluster,
    ClusterSample,
    Instance,
    Interruption,
    NodeGroup,
    Placement,
    PoolState,
    SavingsEntry,
    Workload,
)
from clusters.selectors import detail, fleet, inside
from clusters.selectors.interruptions import interruption_page, pools_in_use
from clusters.selectors.listing import ClusterFilter, cluster_page
from clusters.services import interruptions
from spotopt.core.clock import utcnow
from spotopt.core.errors import NotFound
from spotopt.core.tenancy import tenant


@pytest.fixture
def account(in_acme):
    return Account.objects.create(
        organization=in_acme, alias="Main", aws_account_id="123456789012", status="active"
    )


def cluster_in(account, name="shop", **facts):
    return Cluster.objects.create(
        organization=account.organization, account=account, name=name, region="eu-west-1", **facts
    )


def node_in(cluster, **facts):
    defaults = {
        "instance_type": "m5.large",
        "lifecycle": "on_demand",
        "price": Decimal("0.10"),
        "node_name": f"ip-{uuid4().hex[:8]}",
        "cpu_allocatable_millis": 2000,
        "memory_allocatable_mib": 8000,
        "cpu_requested_millis": 1000,
        "memory_requested_mib": 4000,
        "cpu_util": 25.0,
        "memory_util": 75.0,
    }
    return Instance.objects.create(
        organization=cluster.organization,
        account=cluster.account,
        cluster=cluster,
        instance_id=f"i-{uuid4().hex[:17]}",
        region="eu-west-1",
        az="eu-west-1a",
        launched_at=utcnow() - timedelta(days=1),
        **(defaults | facts),
    )


def test_given_nodes_when_the_fleet_is_summed_then_only_living_ones_count(account):
    cluster = cluster_in(account)
    node_in(cluster)
    node_in(cluster, lifecycle="spot", price=Decimal("0.03"), price_is_estimate=True)
    node_in(cluster, price=None)
    node_in(cluster, state="terminated", price=Decimal(9))

    found = fleet.fleet()

    assert (found.usd_per_hour, found.spot_usd_per_hour) == (Decimal("0.13"), Decimal("0.03"))
    assert (found.nodes, found.spot_nodes, found.estimated, found.unpriced) == (3, 1, 1, 1)


def test_given_measured_nodes_when_rated_then_only_what_is_requested_and_used_counts(account):
    node_in(cluster_in(account))

    found = fleet.fleet().efficiency

    assert found is not None
    assert (found.cpu_percent, found.memory_percent) == (25.0, 50.0)
    assert (found.score, found.grade) == (37.5, "F")


def test_given_no_measurement_when_rated_then_there_is_no_grade(account):
    node_in(cluster_in(account), cpu_util=None)

    assert fleet.fleet().efficiency is None


def test_given_many_families_when_composed_then_the_smallest_are_one_and_nothing_is_lost(account):
    cluster = cluster_in(account)
    for number in range(8):
        node_in(cluster, instance_type=f"f{number}.large", price=Decimal(number + 1))

    shares = fleet.composition()

    assert [share.name for share in shares] == ["f7", "f6", "f5", "f4", "f3", "other"]
    assert sum(share.usd_per_hour for share in shares) == fleet.fleet().usd_per_hour


def test_given_samples_of_two_clusters_when_charted_then_each_bin_adds_their_means(account):
    now = utcnow()
    for name, prices in (("a", ("1", "3")), ("b", ("10", "10"))):
        cluster = cluster_in(account, name)
        for minute, usd in enumerate(prices):
            ClusterSample.objects.create(
                organization=account.organization,
                cluster=cluster,
                taken_at=now.replace(minute=minute, second=0, microsecond=0) - timedelta(hours=1),
                usd_per_hour=Decimal(usd),
                nodes=1,
                spot_nodes=0,
                pods=0,
                pending_pods=0,
            )

    points = fleet.cost_history(fleet.History.DAY, now=now)

    assert [point.usd_per_hour for point in points] == [Decimal(12)]


def test_given_the_ledger_when_summed_then_forecasts_have_no_part_in_it(account):
    now = utcnow()
    node = node_in(cluster_in(account))
    for kind, usd in (("removed", "0.50"), ("added", "-0.20")):
        SavingsEntry.objects.create(
            organization=account.organization,
            cluster=node.cluster,
            instance=node,
            kind=kind,
            hour=now.replace(minute=0, second=0, microsecond=0),
            booked_from=now,
            booked_until=now,
            usd_per_hour=abs(Decimal(usd)),
            usd=Decimal(usd),
            formula="price × hours",
        )

    found = fleet.booked(now=now)

    assert (found.total, found.this_month, found.today) == (Decimal("0.30"),) * 3


def test_given_more_rows_than_a_page_when_paged_by_key_then_each_row_comes_once(account):
    cluster = cluster_in(account)
    for number in range(inside.PAGE_SIZE + 7):
        node_in(cluster, price=Decimal("0.10"), node_name=f"n{number:03}")

    first = inside.node_page(cluster.pk, sort="-price", after="")
    second = inside.node_page(cluster.pk, sort="-price", after=first.next_cursor)

    names = [row.name for row in (*first.rows, *second.rows)]
    assert len(names) == len(set(names)) == inside.PAGE_SIZE + 7
    assert second.next_cursor == ""


def test_given_a_cursor_that_is_not_ours_when_paged_then_the_list_starts_over(account):
    cluster = cluster_in(account)
    node_in(cluster, node_name="only")

    page = inside.node_page(cluster.pk, sort="nonsense", after="forged")

    assert [row.name for row in page.rows] == ["only"]
    assert page.sort == "name"


def test_given_a_workload_when_listed_then_its_cost_is_its_share_of_its_nodes(account):
    cluster = cluster_in(account)
    node = node_in(cluster)
    workload = Workload.objects.create(
        organization=account.organization,
        cluster=cluster,
        key="shop/Deployment/web",
        namespace="shop",
        kind="Deployment",
        name="web",
        replicas=2,
        cpu_request_millis=500,
        memory_request_mib=800,
        reported_at=utcnow(),
    )
    Placement.objects.create(organization=account.organization, workload=workload, instance=node, count=2)

    page = inside.workload_page(cluster.pk, sort="-cost", after="")

    assert page.rows[0].usd_per_hour == Decimal("0.035")


@pytest.mark.parametrize("count", [1, 12])
def test_given_few_or_many_clusters_when_listed_then_the_queries_are_as_many(
    account, count, django_assert_num_queries
):
    for number in range(count):
        node_in(cluster_in(account, f"c{number}"))

    with django_assert_num_queries(4):
        page = cluster_page(ClusterFilter(), now=utcnow())

    assert len(page.rows) == count


@pytest.mark.parametrize("count", [1, 12])
def test_given_few_or_many_nodes_when_a_tab_is_read_then_the_queries_are_as_many(
    account, count, django_assert_num_queries
):
    cluster = cluster_in(account)
    for _ in range(count):
        node_in(cluster)

    with django_assert_num_queries(2):
        detail.cluster_head(cluster.pk, now=utcnow())
    with django_assert_num_queries(2):
        inside.node_page(cluster.pk, sort="name", after="")
    with django_assert_num_queries(1):
        grid = detail.node_grid(cluster.pk)

    assert len(grid) == count


def test_given_another_organization_when_a_cluster_is_read_then_there_is_none(account, rival):
    cluster = cluster_in(account)

    with tenant(rival.pk), pytest.raises(NotFound):
        detail.cluster_head(cluster.pk, now=utcnow())


def tabs_of(cluster):
    names = ("detail", "nodes", "workloads", "actions", "agent", "cost")
    return [reverse(f"clusters:{name}", args=[cluster.pk]) for name in names]


def test_given_a_stranger_when_a_clusters_pages_are_asked_for_then_there_are_none(account, stranger, as_user):
    cluster = cluster_in(account)

    answers = [as_user(stranger).get(address).status_code for address in tabs_of(cluster)]

    assert answers == [404] * len(answers)


def test_given_nobody_when_a_page_is_asked_for_then_they_sign_in_first(account, client):
    answer = client.get(reverse("clusters:list"))

    assert answer.status_code == 302
    assert answer["Location"].startswith(reverse("accounts:login"))


def test_given_a_part_is_asked_for_when_answered_then_it_has_no_frame(account, alice, as_user):
    cluster = cluster_in(account)
    node_in(cluster)

    part = as_user(alice).get(reverse("clusters:nodes", args=[cluster.pk]), headers={"HX-Request": "true"})

    assert part.content.lstrip().startswith(b'<section id="nodes"')


@pytest.mark.parametrize("name", ["connect", "skip"])
def test_given_a_viewer_when_they_would_connect_aws_then_they_may_not(account, viewer, as_user, name):
    answer = as_user(viewer).post(reverse(f"clusters:{name}"))

    assert answer.status_code == 403
    assert Account.objects.count() == 1


def test_given_an_account_in_view_when_clusters_are_listed_then_only_its_own_show(account, alice, as_user):
    other = Account.objects.create(
        organization=account.organization, alias="Other", aws_account_id="210987654321", status="active"
    )
    cluster_in(account, "mine")
    cluster_in(other, "theirs")
    Membership.objects.filter(user=alice).update(active_account=other)

    page = as_user(alice).get(reverse("clusters:list")).context["page"]

    assert [row.name for row in page.rows] == ["theirs"]


@pytest.mark.parametrize("tab", ["detail", "nodes", "workloads", "actions", "agent"])
def test_given_a_part_is_fetched_again_when_the_nodes_changed_then_the_head_comes_with_it(
    account, alice, as_user, tab
):
    cluster = cluster_in(account)
    address = reverse(f"clusters:{tab}", args=[cluster.pk])
    page = as_user(alice).get(address).text
    node_in(cluster)

    part = as_user(alice).get(address, headers={"HX-Request": "true"}).text

    assert page.count('id="cluster-head"') == part.count('id="cluster-head"') == 1
    assert "hx-swap-oob" not in page
    assert 'id="cluster-head" hx-swap-oob="morph"' in part
    assert 'Nodes <span class="count">1</span>' in part


def test_given_a_lowered_minimum_when_restored_from_the_page_then_it_shows_that_it_is_under_way(
    account, alice, viewer, as_user
):
    cluster = cluster_in(account)
    group = NodeGroup.objects.create(
        organization=account.organization, cluster=cluster, name="web", kind="asg", asg_name="web",
        desired_capacity=1, max_size=5, original_min_size=3,
    )  # fmt: skip
    page = reverse("clusters:detail", args=[cluster.pk])
    restore = reverse("clusters:restore-minimum", args=[cluster.pk, group.pk])

    offered = as_user(alice).get(page).text
    forbidden = as_user(viewer).post(restore)
    shown = as_user(alice).post(restore, follow=True).text

    assert "Restore 3" in offered
    assert "Restore 3" not in as_user(viewer).get(page).text
    assert forbidden.status_code == 403
    assert "restoring the minimum" in shown


def test_given_a_kept_minimum_when_released_from_the_page_then_plans_may_lower_it_again(
    account, alice, as_user
):
    cluster = cluster_in(account)
    group = NodeGroup.objects.create(
        organization=account.organization, cluster=cluster, name="web", kind="asg", asg_name="web",
        keeps_minimum=True,
    )  # fmt: skip

    release = reverse("clusters:release-minimum", args=[cluster.pk, group.pk])
    shown = as_user(alice).post(release, follow=True).text

    assert "Plans may lower the minimum of web again" in shown
    assert "minimum kept" not in shown


def test_given_notices_when_the_timeline_is_read_then_it_shows_the_reaction_in_few_queries(
    account, client, alice, django_assert_max_num_queries
):
    cluster = cluster_in(account)
    nodes = [node_in(cluster, lifecycle="spot", az_id="euw1-az1") for _ in range(3)]
    told = [Notice(Kind.INTERRUPTION, node.instance_id, utcnow()) for node in nodes]
    interruptions.notices_from_agent(cluster_id=cluster.pk, notices=told)
    Action.objects.filter(kind="cordon_node").update(status="succeeded", finished_at=utcnow())
    Action.objects.filter(kind="drain_node", target=nodes[0].node_name).update(
        status="failed", finished_at=utcnow(), result={"left_count": 2}
    )
    Interruption.objects.update(pods_at_notice=5)
    PoolState.objects.create(
        region="eu-west-1", zone_id="euw1-az1", instance_type="m5.large", capacity_type="spot",
        flagged_until=utcnow() + timedelta(minutes=20),
    )  # fmt: skip

    with django_assert_max_num_queries(10):
        page, (pool,) = interruption_page(cluster.pk), pools_in_use(cluster.pk)

    moved = {row.node_name: row.moved for row in page.rows}
    assert moved == {nodes[0].node_name: 3, nodes[1].node_name: None, nodes[2].node_name: None}
    assert all(row.closed_after < timedelta(minutes=1) for row in page.rows)
    assert (page.under_way, pool.nodes, pool.taken_lately, pool.share_percent) == (3, 3, 3, 100.0)
    assert pool.flagged_until is not None
    client.force_login(alice)
    shown = client.get(reverse("clusters:interruptions", args=[cluster.pk])).content.decode()
    assert "3 of 5" in shown
    assert "Avoided until" in shown


def test_given_a_cluster_when_paused_by_its_typed_name_then_it_is_paused_and_a_wrong_name_changes_nothing(
    account, client, alice
):
    cluster = cluster_in(account)
    client.force_login(alice)

    refused = client.post(reverse("clusters:pause", args=[cluster.pk]), {"name": "another"})
    cluster.refresh_from_db()
    assert (refused.status_code, cluster.maintenance_mode) == (400, False)

    client.post(reverse("clusters:pause", args=[cluster.pk]), {"name": "shop", "reason": "Release"})
    cluster.refresh_from_db()
    assert (cluster.maintenance_mode, cluster.maintenance_reason) == (True, "Release")

    client.post(reverse("clusters:resume", args=[cluster.pk]), {"name": "shop"})
    cluster.refresh_from_db()
    assert cluster.maintenance_mode is False
