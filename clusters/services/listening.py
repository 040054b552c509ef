"""Listen to AWS's events about the spot instances of an account."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.core.cache import cache

from accounts.models import Account
from clusters.aws import events
from clusters.aws.errors import AwsAccessDenied, AwsError, ResourceMissing
from clusters.aws.session import RoleGrant, session_for
from clusters.domain.interruptions import Reception
from clusters.services.interruptions import notices_from_queue

MOST_BATCHES = 20
LOOK_AGAIN_AFTER = timedelta(minutes=10)
"""An account without the queue (an older stack) is asked again only after this long."""


def read_queue(*, account_id: UUID) -> int:
    """Take in what waits in the account's queue; return how many notices were new.

    A notice about a node that no scan has found yet goes back to the queue, until it is five minutes old.
    """
    if cache.get(_key(account_id)):
        return 0
    account = Account.objects.get(pk=account_id)
    try:
        return _read(account)
    except (ResourceMissing, AwsAccessDenied):
        cache.set(_key(account_id), "no queue", LOOK_AGAIN_AFTER.total_seconds())
    except AwsError:
        return 0  # AWS throttles or is away: the messages wait
    return 0


def _read(account: Account) -> int:
    session = session_for(RoleGrant(account.role_arn, account.external_id)).in_region(account.primary_region)
    recorded = 0
    for _ in range(MOST_BATCHES):
        messages = events.receive(session, aws_account_id=account.aws_account_id)
        if not messages:
            break
        receptions = notices_from_queue(
            account_id=account.pk, notices=[each.notice for each in messages if each.notice]
        )
        recorded += receptions.count(Reception.RECORDED)
        done = _done(messages, receptions)
        if done:
            events.delete(session, receipts=done)
    return recorded


def _done(messages: Sequence[events.Message], receptions: Sequence[Reception]) -> list[str]:
    """Return the receipts of the messages that are of no more use."""
    answers = iter(receptions)
    return [
        message.receipt
        for message in messages
        if message.notice is None or next(answers) is not Reception.UNKNOWN_NODE
    ]


def _key(account_id: UUID) -> str:
    return f"clusters.listening.without_queue.{account_id}"
