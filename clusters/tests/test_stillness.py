"""Groups are kept from evening out their zones while nodes are taken out, over the wire."""

from datetime import timedelta

import pytest

from audit.models import AuditLog
from clusters.aws import autoscaling
from clusters.aws.errors import AwsAccessDenied, AwsTimeout
from clusters.models import Action, NodeGroup
from clusters.services import stillness
from clusters.tests.acting import GROUP, later
from clusters.tests.factories import ClusterFactory, NodeGroupFactory
from spotopt.core.clock import utcnow


@pytest.fixture
def cluster(aws, linked, session):
    row = ClusterFactory(account=linked, name="acme-production")
    NodeGroupFactory(cluster=row, name=GROUP, asg_name=GROUP)
    yield row
    autoscaling.resume(session=session, group_name=GROUP, process="AZRebalance")


def suspended(session):
    return autoscaling.describe_group(session, name=GROUP).suspended


def hold(cluster, session):
    group = autoscaling.describe_group(session, name=GROUP)
    stillness.hold_still(cluster=cluster, session=session, group=group)


def events():
    return [row.event.rpartition("_")[2] for row in AuditLog.objects.order_by("seq")]


def test_given_a_group_when_nodes_are_taken_out_then_it_is_held_still_until_ten_minutes_after(
    cluster, session
):
    hold(cluster, session)
    hold(cluster, session)

    held, too_early = suspended(session), stillness.release_groups()
    with later(timedelta(minutes=11)):
        released = stillness.release_groups(), stillness.release_groups()

    assert (held, too_early) == ({"AZRebalance"}, 0)
    assert (released, suspended(session)) == ((1, 0), frozenset())
    assert events() == ["suspended", "resumed"]


def test_given_work_under_way_when_looked_at_then_the_group_stays_held(cluster, session):
    hold(cluster, session)
    Action.objects.create(
        organization_id=cluster.organization_id, cluster=cluster, kind="drain_node", route="agent",
        target="node", idempotency_key="1", expires_at=utcnow() + timedelta(hours=1), requested_by="test",
    )  # fmt: skip

    with later(timedelta(minutes=11)):
        assert stillness.release_groups() == 0

    assert suspended(session) == {"AZRebalance"}


def test_given_a_group_that_its_owner_holds_when_nodes_are_taken_out_then_it_is_never_let_go(
    cluster, session
):
    autoscaling.suspend(session=session, group_name=GROUP, process="AZRebalance")

    hold(cluster, session)
    with later(timedelta(minutes=11)):
        assert stillness.release_groups() == 0

    assert suspended(session) == {"AZRebalance"}
    assert events() == []


def test_given_a_crash_after_aws_was_asked_when_looked_at_later_then_the_group_is_let_go(
    cluster, session, monkeypatch
):
    real = autoscaling.suspend

    def crash(**asked):
        real(**asked)
        raise AwsTimeout("The answer was lost.")

    monkeypatch.setattr(autoscaling, "suspend", crash)
    with pytest.raises(AwsTimeout):
        hold(cluster, session)

    with later(timedelta(minutes=11)):
        assert stillness.release_groups() == 1

    assert suspended(session) == frozenset()


def test_given_a_stack_that_does_not_allow_it_when_nodes_are_taken_out_then_the_group_is_left_as_it_is(
    cluster, session, monkeypatch
):
    def refuse(**_):
        raise AwsAccessDenied("No.")

    monkeypatch.setattr(autoscaling, "suspend", refuse)

    hold(cluster, session)

    assert NodeGroup.objects.get().stilled_at is None
    assert events() == []
