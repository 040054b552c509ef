"""Accounts scanned over the wire."""

from dataclasses import replace
from datetime import timedelta

import pytest

from accounts.models import Account
from audit.models import AuditLog
from clusters.aws.errors import AwsThrottled
from clusters.models import Cluster, DiscoveryRun, Instance, NodeGroup
from clusters.services import scanning
from clusters.tasks.scanning import scan_account as scan_task
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, NotFound, TooManyRequests
from spotopt.core.tenancy import tenant


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
