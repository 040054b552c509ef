"""AWS's events about spot instances, as the queue in a customer's account holds them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clusters.aws.errors import translated
from clusters.aws.session import RegionSession
from clusters.domain.interruptions import Kind, Notice

QUEUE = "spotopt-interruptions"
BATCH = 10
_KINDS = {
    "EC2 Spot Instance Interruption Warning": Kind.INTERRUPTION,
    "EC2 Instance Rebalance Recommendation": Kind.REBALANCE,
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the queue; ``notice`` is None when it is no event of that account and region."""

    receipt: str
    notice: Notice | None


def receive(session: RegionSession, *, aws_account_id: str) -> tuple[Message, ...]:
    """Return up to ten messages, hidden from others for 30 s; raise ResourceMissing without a queue."""
    with translated(action="sqs:ReceiveMessage", region=session.region):
        url = session.sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
        answer = session.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=BATCH, VisibilityTimeout=30)
    return tuple(
        Message(row["ReceiptHandle"], _notice(row["Body"], aws_account_id, session.region))
        for row in answer.get("Messages", [])
    )


def delete(session: RegionSession, *, receipts: Sequence[str]) -> None:
    """Take messages off the queue; one that is gone already does no harm."""
    entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(receipts)]
    with translated(action="sqs:DeleteMessage", region=session.region):
        url = session.sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
        session.sqs.delete_message_batch(QueueUrl=url, Entries=entries)


def _notice(body: str, aws_account_id: str, region: str) -> Notice | None:
    """Return what an EventBridge event says; None for what is none, or is another account's or region's."""
    try:
        event: Any = json.loads(body)
        kind = _KINDS[event["detail-type"]]
        at, instance_id = datetime.fromisoformat(event["time"]), str(event["detail"]["instance-id"])
        origin = (event["source"], event["account"], event["region"])
    except (ValueError, KeyError, TypeError):
        return None
    is_theirs = origin == ("aws.ec2", aws_account_id, region)
    return Notice(kind, instance_id, at) if is_theirs and at.tzinfo else None
