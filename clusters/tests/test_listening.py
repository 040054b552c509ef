"""AWS's own events about spot machines, from the stack's queue to the reaction."""

import json
from datetime import UTC, datetime

import pytest
from django.core.cache import cache

from accounts.models import Account
from clusters.aws import events
from clusters.aws.session import RoleGrant, session_for
from clusters.models import Action, Interruption
from clusters.services.listening import read_queue
from clusters.tests.factories import ClusterFactory, InstanceFactory
from simulator.fleets import CUSTOMER


@pytest.fixture
def stacked(aws, pending):
    """An account linked by the stack of our template, queue and rule included."""
    cache.clear()
    role_arn = aws.make_stack(str(pending.external_id))
    Account.objects.filter(pk=pending.pk).update(role_arn=role_arn, status=Account.Status.ACTIVE)
    pending.refresh_from_db()
    return pending


@pytest.fixture
def machine(aws):
    return next(each for each in aws.alive() if each.cluster == "acme-production")


@pytest.fixture
def node(stacked, machine):
    cluster = ClusterFactory(account=stacked, name=machine.cluster)
    return InstanceFactory(cluster=cluster, instance_id=machine.instance_id, lifecycle="spot")


def warn(aws, machine, event="interrupting"):
    """What the world does when AWS says something about a machine."""
    for listener in aws.room._listeners:
        listener(event, machine)


def send(aws, **changes):
    event = {
        "detail-type": "EC2 Spot Instance Interruption Warning", "source": "aws.ec2", "account": CUSTOMER,
        "region": "us-east-1", "time": datetime.now(UTC).isoformat(), "detail": {"instance-id": "i-1"},  # noqa: TID251
    } | changes  # fmt: skip
    sqs = aws.client("sqs")
    url = sqs.get_queue_url(QueueName=events.QUEUE)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(event))


def receive(account):
    session = session_for(RoleGrant(account.role_arn, account.external_id)).in_region("us-east-1")
    return events.receive(session, aws_account_id=account.aws_account_id)


def test_given_the_stack_when_aws_warns_of_a_machine_then_its_node_is_closed_and_the_queue_is_empty(
    aws, stacked, node, machine
):
    warn(aws, machine)
    warn(aws, machine, "repriced")

    assert [read_queue(account_id=stacked.pk), read_queue(account_id=stacked.pk)] == [1, 0]

    assert Interruption.objects.get().source == "queue"
    assert set(Action.objects.values_list("kind", flat=True)) == {"cordon_node", "drain_node"}
    assert receive(stacked) == ()


def test_given_a_rebalance_recommendation_when_read_then_it_is_kept_without_a_deadline(
    aws, stacked, node, machine
):
    warn(aws, machine, "rebalance")

    read_queue(account_id=stacked.pk)

    assert (Interruption.objects.get().kind, Action.objects.count()) == ("rebalance", 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"account": "999911112222"},
        {"region": "eu-west-1"},
        {"source": "mallory"},
        {"time": "soon"},
        {"detail": []},
    ],
)
def test_given_a_message_that_is_no_event_of_the_account_when_read_then_it_is_dropped(
    aws, stacked, node, changes
):
    send(aws, **changes)

    assert read_queue(account_id=stacked.pk) == 0

    assert not Interruption.objects.exists()
    assert receive(stacked) == ()


def test_given_a_node_that_no_scan_has_found_when_read_then_the_message_stays_for_later(aws, stacked):
    send(aws)

    read_queue(account_id=stacked.pk)

    sqs = aws.client("sqs")
    url = sqs.get_queue_url(QueueName=events.QUEUE)["QueueUrl"]
    shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessagesNotVisible"])
    sqs.purge_queue(QueueUrl=url)
    assert shown["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "1"


def test_given_a_role_without_the_queue_when_read_then_aws_is_left_alone_for_a_while(linked, monkeypatch):
    cache.clear()
    assert read_queue(account_id=linked.pk) == 0
    monkeypatch.setattr(events, "receive", lambda *_, **__: pytest.fail("asked again"))

    assert read_queue(account_id=linked.pk) == 0
