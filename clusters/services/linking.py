"""Prove that a customer's role works and is theirs, then begin the first scan."""

from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from accounts import selectors
from accounts.domain import connection, roles, trust_policy
from accounts.models import Account
from accounts.services import limits, mark_failed, mark_verified
from audit.models import AuditLog
from audit.services import Subject, record
from clusters.aws.errors import AwsAccessDenied, AwsError
from clusters.aws.session import AccountSession, RoleGrant
from clusters.domain.permissions import Grant, denied
from clusters.models import DiscoveryRun
from clusters.services import probing, scanning
from clusters.services.probing import Probe
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, SpotOptError

_VERIFICATIONS = limits.Limit("verify", 10, 3600)


class VerificationFailed(SpotOptError):
    """The role cannot be used as it is; ``code`` says why and the customer can repair it."""

    slug, title = "verification-failed", "The AWS role cannot be used"

    def __init__(self, detail: str, *, code: str, **extra: object) -> None:
        super().__init__(detail, code=code, **extra)
        self.code = code


@dataclass(frozen=True, slots=True)
class Verification:
    """A proved link: the account as it is now, each permission's result, and a first count."""

    account: Account
    permissions: tuple[Grant, ...]
    instances_seen: int
    clusters_seen: int
    is_partial: bool
    run: DiscoveryRun | None
    """The scan that was queued; None when only the permissions were looked at again."""


def verify_account(*, account_id: UUID, role_arn: str, actor: Actor) -> Verification:
    """Prove the role and queue the first scan; the external id is the row's own, never the caller's.

    Raises VerificationFailed (account_mismatch, role_not_assumable, external_id_mismatch,
    external_id_not_enforced, access_denied:<action>), Conflict (already_linked), AwsError or
    TooManyRequests. A failure leaves the account as it was, but for the note of what went wrong.
    """
    roles.require_role(actor, roles.MEMBER)
    account = selectors.account_by_id(account_id)
    _refuse_former(account)
    limits.spend(_VERIFICATIONS, str(account.pk))
    probe = _proved(account, role_arn.strip(), actor)
    return _keep(account, role_arn.strip(), probe, actor)


def validate_account(*, account_id: UUID, actor: Actor) -> Verification:
    """Look again at the permissions of a linked account; its status stays what it is."""
    roles.require_role(actor, roles.MEMBER)
    account = selectors.account_by_id(account_id)
    _refuse_former(account)
    if not account.role_arn:
        raise Conflict("No role is known for this account yet. Verify it first.", code="not_verified")
    limits.spend(_VERIFICATIONS, str(account.pk))
    probe = _proved(account, account.role_arn, actor)
    Account.objects.filter(pk=account.pk).update(permissions=[grant.as_json() for grant in probe.grants])
    account.refresh_from_db()
    return _verification(account, probe, None)


def _refuse_former(account: Account) -> None:
    if account.status == Account.Status.DISCONNECTED:
        raise Conflict("This account is disconnected. Link it again first.", code="disconnected")


def _proved(account: Account, role_arn: str, actor: Actor) -> Probe:
    """Ask AWS, outside any transaction; on failure note it on the account's row and raise."""
    try:
        _check_form(account, role_arn)
        session = _assumed(account, role_arn)
        identity = session.identity()
        if identity.account_id != account.aws_account_id:
            raise _mismatch(account, identity.account_id)
        _refuse_open_trust(role_arn)
        region = session.in_region(account.primary_region)
        probe = probing.probe(region, is_read_only=_is_read_only(account))
        _refuse_denied(probe)
    except (VerificationFailed, AwsError) as error:
        _note_failure(account, error.code, error.detail, actor)
        raise
    return probe


def _check_form(account: Account, role_arn: str) -> None:
    owner = connection.account_of_role(role_arn)
    if owner is None:
        raise VerificationFailed(
            "This is not the ARN of a role. It looks like "
            f"arn:aws:iam::{account.aws_account_id or '123456789012'}:role/{trust_policy.ROLE_NAME}; "
            "the stack's Outputs tab shows it.",
            code="invalid_role_arn",
        )
    if owner != account.aws_account_id:
        raise _mismatch(account, owner)


def _assumed(account: Account, role_arn: str) -> AccountSession:
    """Assume the role afresh. AWS refuses a missing role and a wrong external id in the same words."""
    try:
        return AccountSession(RoleGrant(role_arn, account.external_id))
    except AwsAccessDenied as error:
        if _accepts_id_of_another_row(account, role_arn):
            raise VerificationFailed(
                "The role exists, but its stack was created with the external id of another link of your "
                "organization. Update the stack's ExternalId parameter to the one shown here.",
                code="external_id_mismatch",
            ) from error
        name = role_arn.rpartition("/")[2]
        raise VerificationFailed(
            "AWS did not let Spotopt assume the role. AWS does not say which of these it is: the role "
            f"{name} does not exist in the account {account.aws_account_id} (is the stack complete?), or "
            "its trust policy names another external id than the one shown here, or another account than "
            "Spotopt's. Compare the stack's parameters and try again.",
            code="role_not_assumable",
            possible_codes=["role_not_found", "external_id_mismatch"],
            aws_code=error.aws_code,
        ) from error


def _accepts_id_of_another_row(account: Account, role_arn: str) -> bool:
    """Tell whether the stack was made with one of the organization's own other external ids."""
    others = Account.objects.filter(aws_account_id__in=[account.aws_account_id, ""]).exclude(pk=account.pk)
    return any(_is_assumable(role_arn, other) for other in others.values_list("external_id", flat=True)[:3])


def _refuse_open_trust(role_arn: str) -> None:
    """A role that needs no external id could be used by anybody who learns its ARN."""
    if _is_assumable(role_arn, ""):
        raise VerificationFailed(
            "The role can be assumed without the external id, so nothing ties it to your organization. "
            "Use the trust policy of our template, which demands it.",
            code="external_id_not_enforced",
        )


def _is_assumable(role_arn: str, external_id: str) -> bool:
    try:
        AccountSession(RoleGrant(role_arn, external_id))
    except AwsAccessDenied:
        return False
    return True


def _refuse_denied(probe: Probe) -> None:
    refused = denied(probe.grants)
    if refused:
        first, others = refused[0], len(refused) - 1
        more = f" (and {others} more)" if others else ""
        raise VerificationFailed(
            f"The role may not call {first.action}{more}, which Spotopt needs to "
            f"{first.purpose.value[0].lower()}{first.purpose.value[1:]}. Update the stack to the current "
            "template and try again.",
            code=f"access_denied:{first.action}",
            permissions=[grant.as_json() for grant in probe.grants],
        )


def _mismatch(account: Account, owner: str) -> VerificationFailed:
    return VerificationFailed(
        f"The role belongs to the AWS account {owner}, but you are linking "
        f"{account.aws_account_id or 'no account yet'}.",
        code="account_mismatch",
    )


def _keep(account: Account, role_arn: str, probe: Probe, actor: Actor) -> Verification:
    """Claim the AWS account and queue its scan, together or not at all."""
    permissions = [grant.as_json() for grant in probe.grants]
    try:
        with transaction.atomic():
            kept = _marked(account.pk, role_arn, permissions, actor)
            run = scanning.request_scan(
                account_id=account.pk, actor=actor, trigger=DiscoveryRun.Trigger.INITIAL
            )
    except Conflict as conflict:
        if conflict.extra.get("code") == "already_linked":
            _note_failure(account, "already_linked", conflict.detail, actor)
        raise
    return _verification(kept, probe, run)


def _marked(account_id: UUID, role_arn: str, permissions: list[dict[str, object]], actor: Actor) -> Account:
    """Move the account to ``scanning``; one that is being scanned already keeps its scan."""
    present = selectors.locked_account(account_id)
    if present.status != Account.Status.SCANNING:
        return mark_verified(account_id=account_id, role_arn=role_arn, permissions=permissions, actor=actor)
    present.role_arn, present.permissions, present.last_verified_at = role_arn, permissions, utcnow()
    present.save(update_fields=["role_arn", "permissions", "last_verified_at", "updated_at"])
    return present


@transaction.atomic
def _note_failure(account: Account, code: str, message: str, actor: Actor) -> None:
    if account.status != Account.Status.SCANNING:  # what the running scan finds decides then
        mark_failed(account_id=account.pk, code=code, message=message, actor=actor)
    record(
        actor=actor,
        event="accounts.account.verification_failed",
        sentence=f"{actor.label} could not verify the AWS account {account.alias}: {message}",
        subject=Subject("account", str(account.pk), account.alias),
        account_id=account.pk,
        outcome=AuditLog.Outcome.FAILED,
        after={"code": code},
    )


def _is_read_only(account: Account) -> bool:
    return account.permission_mode == Account.PermissionMode.READ_ONLY


def _verification(account: Account, probe: Probe, run: DiscoveryRun | None) -> Verification:
    return Verification(
        account=account,
        permissions=probe.grants,
        instances_seen=probe.instances_seen,
        clusters_seen=probe.clusters_seen,
        is_partial=probe.is_partial,
        run=run,
    )
