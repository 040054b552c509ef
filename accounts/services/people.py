"""Sign people up and in, and change what they know about themselves."""

from dataclasses import dataclass

from django.contrib.auth.hashers import make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts import selectors
from accounts.domain.names import slug_of
from accounts.domain.origin import NOWHERE, Origin
from accounts.models import Account, Membership, Organization, User
from accounts.services import limits
from accounts.services.tokens import revoke_tokens
from audit.models import AuditLog
from audit.services import Subject, record
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.crypto import random_token
from spotopt.core.errors import Conflict, Forbidden, InvalidInput, NotAuthenticated
from spotopt.core.tenancy import request_scope, tenant

WRONG_CREDENTIALS = "The e-mail address or the password is wrong."
PLACEHOLDER_ALIAS = "First AWS account"


@dataclass(frozen=True, slots=True)
class SignedUp:
    """What one sign-up made."""

    user: User
    organization: Organization
    membership: Membership
    account: Account


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who proved who they are, and where they work (None for staff and for people without a team)."""

    user: User
    membership: Membership | None


def sign_up(
    *, email: str, password: str, organization_name: str, name: str = "", origin: Origin = NOWHERE
) -> SignedUp:
    """Create a person, their organization, its ownership and a placeholder account, all or nothing.

    Raises InvalidInput for a weak password, Conflict for an address that is taken and TooManyRequests.
    """
    if origin.ip_address:
        limits.spend(limits.limit_named("signup"), origin.ip_address)
    email = email.strip().lower()
    _require_strong(password, User(email=email, name=name))
    with transaction.atomic():
        user = _create_user(email, password, name)
        organization = _create_organization(organization_name.strip(), user)
        membership = Membership.objects.create(
            user=user, organization=organization, role=Membership.Role.OWNER
        )
        with tenant(organization.pk):
            account = Account.objects.create(
                organization=organization, created_by=user, alias=PLACEHOLDER_ALIAS, is_default=True
            )
            record(
                actor=_actor(user, membership, origin),
                event="accounts.user.signed_up",
                sentence=f"{email} created the organization {organization.name}.",
                subject=Subject("organization", str(organization.pk), organization.name),
            )
    return SignedUp(user, organization, membership, account)


def sign_in(*, email: str, password: str, origin: Origin) -> SignedIn:
    """Return who has this address and password; record the attempt either way.

    Unknown addresses and wrong passwords fail alike, in words and in time (NotAuthenticated). Raises
    Forbidden for people and organizations that are suspended and TooManyRequests over the limits.
    """
    email = email.strip().lower()
    limit = limits.limit_named("token")
    if origin.ip_address:
        limits.spend(limit, f"ip:{origin.ip_address}")
    limits.spend(limit, f"email:{email}")
    limits.refuse_while_locked(email)
    user = User.objects.filter(email=email).first()
    if user is None:
        make_password(password)  # costs as much time as checking a real one
    if user is None or not user.check_password(password):
        _note_failure(email, user, origin)
        raise NotAuthenticated(WRONG_CREDENTIALS)
    limits.forget_failures(email)
    membership = selectors.membership_of(user)
    _refuse_suspended(user, membership, origin)
    user.last_login, user.last_login_ip = utcnow(), origin.ip_address
    with transaction.atomic():
        user.save(update_fields=["last_login", "last_login_ip", "updated_at"])
        _record_sign_in(user, membership, origin, "signed_in", f"{email} signed in.")
    return SignedIn(user, membership)


@transaction.atomic
def change_password(*, actor: Actor, old_password: str, new_password: str) -> User:
    """Replace the actor's own password and revoke every API token that was issued before.

    Other browser sessions end by themselves: their hash no longer matches.
    """
    user = User.objects.select_for_update().get(pk=actor.id)
    if not user.check_password(old_password):
        raise InvalidInput("The old password is wrong.", errors={"old_password": ["This is not it."]})
    if user.check_password(new_password):
        raise InvalidInput(
            "Choose a password you have not used.", errors={"new_password": ["This is the old password."]}
        )
    _require_strong(new_password, user, field="new_password")
    user.set_password(new_password)
    user.must_change_password = False
    user.save(update_fields=["password", "must_change_password", "updated_at"])
    revoke_tokens(user)
    record(
        actor=actor,
        event="accounts.user.password_changed",
        sentence=f"{user.email} changed their password.",
        subject=Subject("user", str(user.pk), user.email),
    )
    return user


@transaction.atomic
def update_profile(*, actor: Actor, name: str) -> User:
    """Change the actor's own display name."""
    user = User.objects.select_for_update().get(pk=actor.id)
    before, user.name = user.name, name.strip()
    user.save(update_fields=["name", "updated_at"])
    record(
        actor=actor,
        event="accounts.user.profile_changed",
        sentence=f"{user.email} changed their name.",
        subject=Subject("user", str(user.pk), user.email),
        before={"name": before},
        after={"name": user.name},
    )
    return user


def _create_user(email: str, password: str, name: str) -> User:
    try:
        with transaction.atomic():
            return User.objects.create_user(email, password, name=name.strip())
    except IntegrityError as error:
        raise Conflict("Somebody already signed up with this e-mail address.", field="email") from error


def _create_organization(name: str, owner: User) -> Organization:
    """Insert it under its own slug, or under a longer one when that is taken."""
    slug = slug_of(name)
    try:
        with transaction.atomic():
            return Organization.objects.create(name=name, slug=slug, owner=owner)
    except IntegrityError:
        suffix = random_token("")[:8].lower().replace("_", "-").strip("-")
        return Organization.objects.create(name=name, slug=f"{slug}-{suffix}", owner=owner)


def _require_strong(password: str, user: User, field: str = "password") -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise InvalidInput("Choose a stronger password.", errors={field: error.messages}) from error


def _refuse_suspended(user: User, membership: Membership | None, origin: Origin) -> None:
    is_shut_out = membership is None and not user.is_staff and user.memberships.exists()
    if user.is_active and not is_shut_out:
        return
    _record_sign_in(user, membership, origin, "sign_in_denied", f"{user.email} is suspended.", denied=True)
    raise Forbidden(
        "Your organization is suspended. Write to support."
        if is_shut_out
        else "Your sign-in is switched off."
    )


def _note_failure(email: str, user: User | None, origin: Origin) -> None:
    is_locked = limits.count_failure(email)
    sentence = f"A sign-in as {email[:255]} failed" + ("; the address is locked." if is_locked else ".")
    if user is not None:
        membership = selectors.membership_of(user)
        _record_sign_in(user, membership, origin, "sign_in_failed", sentence, denied=True)
        return
    with request_scope():
        record(
            actor=Actor(
                kind="system", organization_id=None, label="Sign-in", ip_address=origin.ip_address,
                user_agent=origin.user_agent, request_id=origin.request_id,
            ),
            event="accounts.user.sign_in_failed",
            sentence=sentence,
            subject=Subject("user", label=email),
            outcome=AuditLog.Outcome.DENIED,
        )  # fmt: skip


def _record_sign_in(
    user: User,
    membership: Membership | None,
    origin: Origin,
    verb: str,
    sentence: str,
    *,
    denied: bool = False,
) -> None:
    """Append to the organization's record, or to the platform's for somebody without one."""
    with tenant(membership.organization_id) if membership else request_scope():
        record(
            actor=_actor(user, membership, origin),
            event=f"accounts.user.{verb}",
            sentence=sentence,
            subject=Subject("user", str(user.pk), user.email),
            outcome=AuditLog.Outcome.DENIED if denied else AuditLog.Outcome.SUCCESS,
        )


def _actor(user: User, membership: Membership | None, origin: Origin) -> Actor:
    return Actor(
        kind="admin" if user.is_staff else "user",
        organization_id=membership.organization_id if membership else None,
        label=user.email,
        id=str(user.pk),
        role=membership.role if membership else "",
        ip_address=origin.ip_address,
        user_agent=origin.user_agent,
        request_id=origin.request_id,
    )
