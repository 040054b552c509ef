"""Move a linked account through its life: verified, scanned, failed."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db import IntegrityError, transaction

from accounts import selectors
from accounts.domain import connection
from accounts.models import Account, User
from audit.models import AuditLog
from audit.services import Subject, record
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, InvalidInput

_STATE_FIELDS = [
    "status", "role_arn", "permissions", "auth_failures", "last_verified_at", "last_scan_at",
    "last_error_code", "last_error_message", "updated_at",
]  # fmt: skip


@transaction.atomic
def mark_verified(
    *, account_id: UUID, role_arn: str, permissions: Sequence[Mapping[str, object]], actor: Actor
) -> Account:
    """Keep the role that was just assumed and let the first scan begin.

    Raises InvalidInput when the role belongs to another AWS account, and Conflict when another
    organization proved its claim to the account before.
    """
    account = selectors.locked_account(account_id)
    if connection.account_of_role(role_arn) != account.aws_account_id:
        raise InvalidInput(
            f"The role does not belong to the AWS account {account.aws_account_id}.",
            errors={"role_arn": ["This role belongs to another AWS account."]},
        )
    account.role_arn, account.permissions = role_arn, [dict(row) for row in permissions]
    account.last_verified_at = utcnow()
    _clear_error(account)
    present = account.status
    if present != Account.Status.ACTIVE:
        _move(account, Account.Status.SCANNING)
    _save_claim(account)
    if present != account.status:
        _record_move(account, present, actor, f"{actor.label} verified the AWS account {account.alias}.")
    return account


@transaction.atomic
def mark_scanned(*, account_id: UUID, actor: Actor) -> Account:
    """Note a good scan: the account is active, its errors are over, and onboarding is done."""
    account = selectors.locked_account(account_id)
    present = account.status
    _clear_error(account)
    account.last_scan_at = utcnow()
    if present != Account.Status.ACTIVE:
        _move(account, Account.Status.ACTIVE)
    account.save(update_fields=_STATE_FIELDS)
    if present != account.status:
        if account.created_by_id is not None:
            _finish_onboarding(account.created_by_id)
        _record_move(account, present, actor, f"The AWS account {account.alias} is connected.")
    return account


@transaction.atomic
def mark_failed(
    *, account_id: UUID, code: str, message: str, actor: Actor, is_auth_failure: bool = False
) -> Account:
    """Note what went wrong with the account.

    A first scan that fails, or three authentication failures in a row, put it in ``error``; a pending
    account stays pending, because nobody has proved that it is theirs.
    """
    account = selectors.locked_account(account_id)
    present = account.status
    account.last_error_code, account.last_error_message = code[:80], message[:500]
    if is_auth_failure:
        account.auth_failures += 1
    is_over = account.auth_failures >= connection.AUTH_FAILURES_TO_ERROR
    if present == Account.Status.SCANNING or (present == Account.Status.ACTIVE and is_over):
        _move(account, Account.Status.ERROR)
    account.save(update_fields=_STATE_FIELDS)
    if present != account.status:
        sentence = f"The AWS account {account.alias} stopped working: {message}"
        _record_move(account, present, actor, sentence, outcome=AuditLog.Outcome.FAILED)
    return account


def _finish_onboarding(user_id: UUID) -> None:
    unfinished = User.objects.filter(pk=user_id, onboarding_completed_at=None)
    unfinished.update(onboarding_completed_at=utcnow())


def _move(account: Account, following: str) -> None:
    if not connection.may_move(account.status, following):
        raise Conflict(
            f"The account is {account.status}; it cannot become {following}.", status=account.status
        )
    account.status = following


def _clear_error(account: Account) -> None:
    account.auth_failures, account.last_error_code, account.last_error_message = 0, "", ""


def _save_claim(account: Account) -> None:
    try:
        with transaction.atomic():
            account.save(update_fields=_STATE_FIELDS)
    except IntegrityError as error:
        raise Conflict(
            "This AWS account is already linked to an organization.", code="already_linked"
        ) from error


def _record_move(
    account: Account,
    present: str,
    actor: Actor,
    sentence: str,
    outcome: str = AuditLog.Outcome.SUCCESS,
) -> None:
    record(
        actor=actor,
        event=f"accounts.account.{account.status}",
        sentence=sentence,
        subject=Subject("account", str(account.pk), account.alias),
        account_id=account.pk,
        outcome=outcome,
        before={"status": present},
        after={"status": account.status},
    )
