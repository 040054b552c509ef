"""Rows brought in line with what AWS shows of a region."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Account
from clusters.domain.capacity import (
    FoundCluster,
    FoundInstance,
    LaunchTemplate,
    ManagedNodeGroup,
    RegionInventory,
    ScalingGroup,
    environment_of,
    node_groups_of,
)
from clusters.models import Cluster, Instance
from clusters.services.region_sync import SETTLING, apply_region
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant

OLD = utcnow() - timedelta(days=3)


def found(number, **facts):
    defaults = {
        "instance_id": f"i-{number:017x}", "instance_type": "m5.large", "lifecycle": "on_demand",
        "state": "running", "az": "us-east-1a", "az_id": "use1-az6", "launched_at": OLD,
    }  # fmt: skip
    return FoundInstance(**(defaults | facts))


def inventory(*instances, read_at=None):
    return RegionInventory("us-east-1", read_at or utcnow(), tuple(instances), (), ())


def apply(account, *instances, read_at=None):
    return apply_region(account=account, inventory=inventory(*instances, read_at=read_at))


def test_given_a_thousand_instances_when_written_then_the_queries_do_not_grow(linked):
    apply(linked)
    with CaptureQueriesContext(connection) as few:
        apply(linked, found(1))
    with CaptureQueriesContext(connection) as many:
        apply(linked, *(found(number) for number in range(1000)))

    assert len(many) == len(few) <= 10
    assert Instance.objects.count() == 1000


def test_given_an_instance_that_changed_then_only_it_is_counted(linked):
    apply(linked, found(1), found(2), found(3))

    diff = apply(linked, found(1), found(2, state="stopped"), found(4))

    assert (diff.new, diff.changed, diff.terminated) == (1, 1, 1)
    states = dict(Instance.objects.values_list("instance_id", "state"))
    assert [states[f"i-{number:017x}"] for number in (1, 2, 3, 4)] == [
        "running", "stopped", "terminated", "running"
    ]  # fmt: skip


def test_given_a_machine_launched_while_reading_when_the_region_is_written_then_it_does_not_end(linked):
    now = utcnow()
    apply(linked, found(1, launched_at=now - SETTLING / 2))

    diff = apply(linked, read_at=utcnow())

    assert diff.terminated == 0
    assert Instance.objects.get().state == "running"


def test_given_an_instance_we_ended_when_an_older_reading_shows_it_then_it_stays_ended(linked):
    apply(linked, found(1))
    ended_at = utcnow()
    Instance.objects.update(state="terminated", terminated_at=ended_at, termination_reason="plan")

    diff = apply(linked, found(1))

    row = Instance.objects.get()
    assert (row.state, row.terminated_at, row.termination_reason) == ("terminated", ended_at, "plan")
    assert diff.is_empty


def test_given_a_machine_of_ours_when_read_then_it_joins_the_group_of_its_cluster(linked):
    action_id = uuid4()
    cluster = Cluster.objects.create(
        organization_id=linked.organization_id, account=linked, name="shop", region="us-east-1"
    )
    tags = {"spotopt:action-id": str(action_id), "kubernetes.io/cluster/shop": "owned"}
    machine = found(1, lifecycle="spot", tags=tags)
    reading = replace(
        inventory(machine), node_groups=node_groups_of((), (), (machine,)), clusters=(_shop(cluster),)
    )

    apply_region(account=linked, inventory=reading)

    row = Instance.objects.select_related("node_group", "cluster").get()
    assert (row.cluster.pk, row.launch_action_id) == (cluster.pk, action_id)
    assert (row.node_group.kind, row.node_group.name) == ("spotopt", "spotopt")


def _shop(cluster):
    return FoundCluster(cluster.name, "arn:aws:eks:us-east-1:111122223333:cluster/shop", "1.33", "", "", {})


def test_given_a_cluster_that_is_gone_when_read_then_it_is_removed_and_can_come_back(linked):
    cluster = Cluster.objects.create(
        organization_id=linked.organization_id, account=linked, name="shop", region="us-east-1"
    )

    apply(linked)
    cluster.refresh_from_db()
    assert (cluster.status, cluster.removed_at is None) == ("inactive", False)

    apply_region(account=linked, inventory=replace(inventory(), clusters=(_shop(cluster),)))
    cluster.refresh_from_db()
    assert (cluster.status, cluster.removed_at) == ("discovered", None)


def test_given_two_organizations_with_one_aws_account_in_turn_then_each_has_its_own_rows(linked, rival):
    apply(linked, found(1))
    Account.objects.filter(pk=linked.pk).update(status="disconnected")
    with tenant(rival.pk):
        theirs = Account.objects.create(
            organization=rival, alias="Next", aws_account_id=linked.aws_account_id, status="active"
        )
        assert apply(theirs, found(1), found(2)).new == 2

    assert Instance.objects.get().organization_id == linked.organization_id
    assert Instance.unscoped.count() == 3


@pytest.mark.parametrize(
    ("name", "tags", "environment"),
    [
        ("acme-production", {}, "prod"),
        ("prd_main", {}, "prod"),
        ("preprod-eu", {}, "staging"),
        ("team-qa-2", {}, "staging"),
        ("sandbox", {}, "dev"),
        ("reproduction", {}, "other"),
        ("devotion", {}, "other"),
        ("anything", {"Environment": "Production"}, "prod"),
        ("acme-production", {"env": "dev"}, "dev"),
    ],
)
def test_given_a_name_and_tags_when_guessed_then_the_environment_is(name, tags, environment):
    assert environment_of(name, tags) == environment


def test_given_groups_of_all_kinds_when_joined_then_each_appears_once():
    template = LaunchTemplate("lt-1", "3")
    carrier = ScalingGroup(
        "eks-a",
        1,
        2,
        5,
        template,
        ("subnet-1",),
        ("m5.large",),
        False,
        frozenset(),
        (),
        {"eks:cluster-name": "shop"},
    )
    own = replace(
        carrier,
        name="workers",
        tags={
            "kubernetes.io/cluster/shop": "owned",
            "k8s.io/cluster-autoscaler/node-template/label/pool": "general",
            "k8s.io/cluster-autoscaler/node-template/taint/dedicated": "gpu:NoSchedule",
        },
    )
    unrelated = replace(carrier, name="web", tags={})
    managed = ManagedNodeGroup("shop", "a", ("eks-a",), (), (), 0, 0, 0, False, {}, ())
    karpenter = found(1, tags={"karpenter.sh/nodepool": "default", "kubernetes.io/cluster/shop": "owned"})

    groups = {
        group.name: group for group in node_groups_of((carrier, own, unrelated), (managed,), (karpenter,))
    }

    assert {name: group.kind for name, group in groups.items()} == {
        "a": "managed_nodegroup", "workers": "asg", "default": "karpenter_nodepool"
    }  # fmt: skip
    assert (groups["a"].launch_template, groups["a"].desired) == (template, 2)
    assert groups["workers"].labels == {"pool": "general"}
    assert groups["workers"].taints == ({"key": "dedicated", "value": "gpu", "effect": "NoSchedule"},)


def test_given_a_price_that_moves_when_read_then_it_does_not_count_as_a_change(linked, catalogue):
    apply(linked, found(1))
    Instance.objects.update(price=Decimal("0.5"))

    diff = apply(linked, found(1))

    assert diff.is_empty
    assert Instance.objects.get().price == Decimal("0.096000")
