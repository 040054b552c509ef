"""Machines of ours that no record knows are found and reported, once."""

from datetime import timedelta
from uuid import uuid4

import pytest

from audit.models import AuditLog
from clusters.models import Action, Instance
from clusters.services.sweeping import report_strays
from clusters.tests.factories import ClusterFactory, InstanceFactory
from spotopt.core.clock import utcnow


@pytest.fixture
def cluster(in_acme):
    return ClusterFactory()


def launched(cluster, status=None, age=timedelta(hours=1)):
    """A living instance with the tag of an action in this status; without one, of an unknown action."""
    action_id = uuid4()
    if status is not None:
        Action.objects.create(
            pk=action_id, organization=cluster.organization, cluster=cluster, kind="launch_node", route="aws",
            target="n1", requested_by="test", idempotency_key=str(action_id), status=status,
            expires_at=utcnow() + timedelta(minutes=5),
        )  # fmt: skip
    return InstanceFactory(cluster=cluster, launch_action_id=action_id, launched_at=utcnow() - age)


def test_given_machines_of_ours_that_no_launch_accounts_for_when_swept_twice_then_each_is_told_once(
    cluster,
):
    unknown, failed = launched(cluster), launched(cluster, "failed")
    for status in ("succeeded", "pending", "running"):
        launched(cluster, status)
    launched(cluster, age=timedelta(minutes=9))
    InstanceFactory(cluster=cluster)
    gone = launched(cluster)
    Instance.objects.filter(pk=gone.pk).update(state="terminated", terminated_at=utcnow())

    assert [report_strays(), report_strays()] == [2, 0]

    told = AuditLog.objects.filter(event="clusters.stray.found").values_list("resource_id", flat=True)
    assert set(told) == {unknown.instance_id, failed.instance_id}


def test_given_a_launched_machine_that_never_joined_when_the_agent_has_reported_since_then_it_is_told(
    cluster,
):
    stuck = launched(cluster, "succeeded")
    Instance.objects.filter(pk=stuck.pk).update(node_name="", is_ready=False)
    reported = type(cluster).objects.filter(pk=cluster.pk)
    reported.update(snapshot_at=stuck.launched_at)
    assert report_strays() == 0

    reported.update(snapshot_at=utcnow())

    assert report_strays() == 1


def test_given_a_stray_when_its_cluster_is_opened_then_the_page_names_it(cluster, client, alice):
    stray = launched(cluster)
    client.force_login(alice)

    page = client.get(f"/clusters/{cluster.pk}").content.decode()

    assert stray.instance_id in page
    assert "no record of launching" in page
