from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Account
from audit.models import AuditLog
from clusters.aws.errors import AwsThrottled
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
from clusters.models import Cluster, DiscoveryRun, Instance, NodeGroup
from clusters.services import scanning
from clusters.services.region_sync import SETTLING, apply_region
from clusters.tasks.scanning import scan_account as scan_task
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, NotFound, TooManyRequests
from spotopt.core.tenancy import tenant

OLD = utcnow() - timedelta(days=3)


def scan(account, *, trigger="manual"):
    run = scanning.request_scan(
        account_id=account.pk, actor=Actor.system(account.organization_id), trigger=trigger
    )
    assert scanning.scan_account(account_id=account.pk, run_id=run.pk) is True
    run.refresh_from_db()
    account.refresh_from_db()
    return run


def rows():
    """Everything a scan writes, but for the instants of the last look."""
    instances = Instance.objects.order_by("instance_id").values()
    clusters = Cluster.objects.order_by("name").values()
    groups = NodeGroup.objects.order_by("cluster__name", "name").values()
    looked = {"last_seen_at", "last_synced_at", "updated_at"}
    return [
        {key: value for key, value in row.items() if key not in looked}
        for table in (instances, clusters, groups)
        for row in table
    ]


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


def test_given_a_linked_account_when_scanned_then_everything_aws_shows_is_known(aws, linked, catalogue):
    run = scan(linked, trigger="initial")

    alive = {machine.instance_id: machine for machine in aws.room.alive()}
    known = {row.instance_id: row for row in Instance.objects.select_related("cluster", "node_group")}
    assert (run.status, run.progress, run.errors) == ("completed", 100, {})
    assert (run.clusters_found, run.instances_found, run.new_count) == (3, len(alive), len(alive))
    assert (linked.status, linked.auth_failures) == ("active", 0)
    assert linked.last_scan_at is not None
    assert known.keys() == alive.keys()
    for instance_id, machine in alive.items():
        row = known[instance_id]
        assert (row.az, row.az_id, row.instance_type) == (
            machine.zone,
            machine.zone_id,
            machine.instance_type,
        )
        assert row.cluster.name == machine.cluster
        assert row.node_group.asg_name == machine.group
        assert row.price == aws.market.on_demand("us-east-1", machine.instance_type)
        assert abs(row.launched_at - machine.launched_at) < timedelta(seconds=1)


def test_given_the_clusters_of_aws_when_scanned_then_their_groups_can_be_launched_from(
    aws, linked, catalogue
):
    scan(linked)

    environments = dict(Cluster.objects.values_list("name", "environment"))
    assert environments == {
        "acme-production": "prod", "acme-staging": "staging", "acme-development": "dev"
    }  # fmt: skip
    groups = {group.name: group for group in NodeGroup.objects.all()}
    general, managed = groups["production-general"], groups["production-managed"]
    assert (general.kind, managed.kind) == ("asg", "managed_nodegroup")
    assert (general.min_size, general.desired_capacity, general.max_size) == (1, 6, 12)
    assert managed.asg_name == "eks-production-managed-acme-production"
    for group in groups.values():
        assert group.launch_template_id.startswith("lt-")
        assert group.subnet_ids
        assert group.instance_types


def test_given_a_finished_scan_when_scanned_again_then_nothing_changes(aws, linked, catalogue):
    scan(linked)
    before, events = rows(), AuditLog.objects.count()

    run = scan(linked, trigger="schedule")

    assert rows() == before
    assert (run.new_count, run.changed_count, run.terminated_count) == (0, 0, 0)
    assert AuditLog.objects.count() == events


def test_given_a_queued_run_when_its_task_arrives_twice_then_it_runs_once(aws, linked, catalogue):
    run = scanning.request_scan(
        account_id=linked.pk, actor=Actor.system(linked.organization_id), trigger="manual"
    )
    ids = {"organization_id": str(linked.organization_id), "account_id": str(linked.pk)}

    assert scan_task(**ids, run_id=str(run.pk)) is True
    before = rows()
    assert scan_task(**ids, run_id=str(run.pk)) is False

    assert rows() == before


def test_given_a_machine_that_ends_when_scanned_then_it_is_marked_with_its_reason(aws, linked, catalogue):
    scan(linked)
    victim = next(machine for machine in aws.alive() if machine.cluster == "acme-staging")
    aws.room.terminate(victim.instance_id, reason="user", at=utcnow())

    run = scan(linked)

    row = Instance.objects.get(instance_id=victim.instance_id)
    assert (row.state, run.terminated_count, run.new_count) == ("terminated", 1, 0)
    assert row.terminated_at is not None
    assert row.termination_reason
    assert AuditLog.objects.filter(event="clusters.inventory.changed").count() == 2


def test_given_a_region_that_cannot_be_read_when_scanned_then_nothing_in_it_ends(
    aws, linked, catalogue, monkeypatch
):
    scan(linked)
    before = rows()
    read = scanning.read_region

    def broken(session):
        if session.region == "us-east-1":
            raise AwsThrottled("AWS is throttling.", region="us-east-1")
        return read(session)

    monkeypatch.setattr(scanning, "read_region", broken)

    run = scan(linked)

    assert (run.status, run.errors) == ("partial", {"us-east-1": "AWS is throttling."})
    assert rows() == before
    assert linked.status == "active"


def test_given_a_region_disabled_meanwhile_when_scanned_then_it_is_skipped_with_its_message(
    aws, linked, catalogue, monkeypatch
):
    monkeypatch.setattr(scanning.ec2, "enabled_regions", lambda _: ("us-east-1", "eu-south-1"))

    run = scan(linked)

    assert run.status == "partial"
    assert run.errors == {"eu-south-1": "The region eu-south-1 is not enabled for this AWS account."}
    assert run.clusters_found == 3


def test_given_a_denied_call_when_scanned_then_the_run_fails_and_names_it(aws, linked, catalogue):
    aws.allow(
        "SpotOptimizerRole",
        {"Effect": "Allow", "Action": ["ec2:Describe*", "eks:*"], "Resource": "*"},
    )

    run = scan(linked)

    assert run.status == "failed"
    assert "autoscaling:DescribeAutoScalingGroups" in run.errors["us-east-1"]
    assert (linked.status, linked.auth_failures) == ("error", 1)
    assert linked.last_error_code == "access_denied:autoscaling:DescribeAutoScalingGroups"
    assert not Instance.objects.exists()


def test_given_an_active_account_when_its_role_is_gone_then_the_third_failure_is_an_error(
    aws, linked, catalogue
):
    scan(linked)
    aws.remove_roles()
    scanning.session_for.cache_clear()
    statuses = []

    for _ in range(3):
        assert scan(linked).status == "failed"
        statuses.append(linked.status)

    assert statuses == ["active", "active", "error"]
    assert linked.last_error_code == "access_denied:sts:AssumeRole"
    assert Instance.objects.exclude(state="terminated").exists()


def test_given_an_account_in_error_when_a_scan_succeeds_then_it_is_active_again(aws, linked, catalogue):
    Account.objects.filter(pk=linked.pk).update(status="error", auth_failures=3, last_error_code="x")

    scan(linked)

    assert (linked.status, linked.auth_failures, linked.last_error_code) == ("active", 0, "")


def test_given_a_first_run_when_another_is_requested_then_there_is_still_one(linked):
    actor = Actor.system(linked.organization_id)

    first = scanning.request_scan(account_id=linked.pk, actor=actor, trigger="manual")
    second = scanning.request_scan(account_id=linked.pk, actor=actor, trigger="manual")

    assert first.pk == second.pk
    assert DiscoveryRun.objects.count() == 1


def test_given_a_pending_account_when_a_scan_is_requested_then_it_conflicts(pending):
    with pytest.raises(Conflict):
        scanning.request_scan(
            account_id=pending.pk, actor=Actor.system(pending.organization_id), trigger="manual"
        )

    assert not DiscoveryRun.objects.exists()


def test_given_a_run_whose_worker_died_when_the_tick_comes_then_it_is_recovered(linked):
    long_ago = utcnow() - scanning.STALE_AFTER - timedelta(minutes=1)
    dead = DiscoveryRun.objects.create(
        organization_id=linked.organization_id, account=linked, trigger="manual", status="scanning"
    )
    DiscoveryRun.objects.filter(pk=dead.pk).update(updated_at=long_ago)
    Account.objects.filter(pk=linked.pk).update(status="active")

    assert scanning.start_due_scans() == 0
    DiscoveryRun.objects.filter(pk=dead.pk).update(finished_at=long_ago)
    assert scanning.start_due_scans() == 1

    dead.refresh_from_db()
    assert (dead.status, dead.errors) == ("failed", {"": "The scan stopped answering and was given up."})
    assert DiscoveryRun.objects.filter(status="queued", trigger="schedule").count() == 1


def test_given_a_living_run_when_the_tick_comes_then_it_is_left_alone(linked):
    run = DiscoveryRun.objects.create(
        organization_id=linked.organization_id, account=linked, trigger="manual", status="scanning"
    )

    assert scanning.start_due_scans() == 0

    run.refresh_from_db()
    assert run.status == "scanning"


def test_given_a_queued_run_that_the_broker_lost_when_the_tick_comes_then_it_is_sent_again(
    linked, django_capture_on_commit_callbacks
):
    run = DiscoveryRun.objects.create(
        organization_id=linked.organization_id, account=linked, trigger="manual"
    )
    DiscoveryRun.objects.filter(pk=run.pk).update(updated_at=utcnow() - timedelta(minutes=2))

    with django_capture_on_commit_callbacks() as effects:
        assert scanning.start_due_scans() == 1

    assert [effect.args[0] for effect in effects] == ["clusters.scan_account"]
    assert effects[0].args[1]["run_id"] == str(run.pk)


def test_given_a_recent_sync_when_asked_again_then_the_caller_must_wait(linked, owner):
    run, is_new = scanning.resync(account_id=linked.pk, actor=owner)
    same, is_second_new = scanning.resync(account_id=linked.pk, actor=owner)
    scanning.abandon(run_id=run.pk, reason="over")

    assert (is_new, is_second_new, same.pk) == (True, False, run.pk)
    with pytest.raises(TooManyRequests) as refused:
        scanning.resync(account_id=linked.pk, actor=owner)
    assert 0 < refused.value.extra["retry_after_seconds"] <= 301


def test_given_another_organization_when_it_asks_for_a_scan_then_there_is_no_such_account(
    linked, rival, owner
):
    with tenant(rival.pk), pytest.raises(NotFound):
        scanning.resync(account_id=linked.pk, actor=replace(owner, organization_id=rival.pk))


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
