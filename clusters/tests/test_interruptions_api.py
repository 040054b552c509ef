from datetime import datetime, timedelta

import pytest

from clusters.domain.interruptions import Kind, Notice
from clusters.models import Interruption
from clusters.services import interruptions
from clusters.tests.factories import ClusterFactory, InstanceFactory
from spotopt.core.clock import utcnow


@pytest.fixture
def cluster(in_acme):
    return ClusterFactory()


def test_given_notices_when_listed_then_they_are_ours_newest_first_and_narrowed(api_as, viewer, cluster):
    old, new = (InstanceFactory(cluster=cluster, lifecycle="spot") for _ in range(2))
    at = utcnow().replace(microsecond=0)
    interruptions.notices_from_agent(
        cluster_id=cluster.pk,
        notices=[
            Notice(Kind.REBALANCE, old.instance_id, at - timedelta(minutes=1)),
            Notice(Kind.INTERRUPTION, new.instance_id, at),
        ],
    )

    found = api_as(viewer).get("/api/v1/interruptions").json()
    narrowed = api_as(viewer).get(f"/api/v1/interruptions?cluster_id={cluster.pk}&kind=rebalance").json()
    later = api_as(viewer).get("/api/v1/interruptions", {"since": at.isoformat()}).json()

    assert [each["instance_id"] for each in found["interruptions"]] == [new.instance_id, old.instance_id]
    assert [each["kind"] for each in narrowed["interruptions"]] == ["rebalance"]
    assert (found["total"], narrowed["total"], later["total"]) == (2, 1, 1)
    one = api_as(viewer).get(f"/api/v1/interruptions/{found['interruptions'][0]['id']}").json()
    assert (one["node_name"], one["status"], one["source"]) == (new.node_name, "open", "agent")
    assert datetime.fromisoformat(one["deadline"]) == at + timedelta(minutes=2)


def test_given_another_organizations_notice_when_read_then_it_is_not_found(api_as, stranger, cluster):
    node = InstanceFactory(cluster=cluster, lifecycle="spot")
    interruptions.notices_from_agent(
        cluster_id=cluster.pk, notices=[Notice(Kind.INTERRUPTION, node.instance_id, utcnow())]
    )
    row = Interruption.objects.get()

    assert api_as(stranger).get(f"/api/v1/interruptions/{row.pk}").status_code == 404
    assert api_as(stranger).get("/api/v1/interruptions").json()["interruptions"] == []
