"""Where a person works: past the wizard, and in which AWS account."""

from uuid import UUID

from django.db import transaction

from accounts import selectors
from accounts.domain import roles
from accounts.models import Account, Membership, User
from audit.services import Subject, record
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import NotFound


@transaction.atomic
def skip_onboarding(*, actor: Actor) -> None:
    """Send the person to the dashboard from now on; a second call changes nothing."""
    roles.require_role(actor, roles.MEMBER)
    skipped = User.objects.filter(pk=actor.id, onboarding_skipped_at=None).update(
        onboarding_skipped_at=utcnow(), updated_at=utcnow()
    )
    if skipped:
        record(
            actor=actor,
            event="accounts.user.onboarding_skipped",
            sentence=f"{actor.label} skipped the onboarding.",
            subject=Subject("user", actor.id, actor.label),
        )


@transaction.atomic
def switch_context(*, actor: Actor, account_id: UUID | None) -> Account | None:
    """Look at one AWS account, or at all of them with None; raise NotFound for one that is not linked."""
    account = selectors.account_by_id(account_id) if account_id else None
    if account is not None and account.status == Account.Status.DISCONNECTED:
        raise NotFound("There is no such account.")
    Membership.objects.filter(user_id=actor.id, organization_id=roles.organization_of(actor)).update(
        active_account=account, updated_at=utcnow()
    )
    return account
