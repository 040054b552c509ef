"""Read people, memberships and accounts."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from accounts.domain import connection, plans
from accounts.models import Account, Membership, Organization, OrganizationFlag, User
from spotopt.core.errors import NotFound
from spotopt.core.tenancy import tenant

DASHBOARD, ONBOARDING, NO_TEAM, STAFF = "/dashboard", "/onboarding", "/no-organization", "/admin/"


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where somebody goes after signing in."""

    redirect_path: str
    account_status: str
    """The furthest status of the organization's accounts; empty without an organization."""


@dataclass(frozen=True, slots=True)
class TeamMember:
    """One line of the team list."""

    id: UUID
    email: str
    name: str
    role: str
    last_login: datetime | None
    status: str
    """``active`` or ``inactive``."""


@dataclass(frozen=True, slots=True)
class Person:
    """The signed-in person and where they work; the organization's fields are empty without one."""

    user_id: UUID
    email: str
    name: str
    role: str
    must_change_password: bool
    org_id: UUID | None
    org_name: str
    org_role: str
    active_account_id: UUID | None
    account_status: str
    redirect_path: str


def membership_of(user: User, organization_id: UUID | None = None) -> Membership | None:
    """Return the user's membership in the organization, or their oldest one when none is named."""
    rows = Membership.objects.select_related("organization", "active_account").filter(
        user=user, organization__status__in=[Organization.Status.TRIAL, Organization.Status.ACTIVE]
    )
    if organization_id is not None:
        rows = rows.filter(organization_id=organization_id)
    return rows.order_by("created_at").first()


def account_by_id(account_id: UUID) -> Account:
    """Return one of the organization's accounts, or raise NotFound."""
    account = Account.objects.filter(pk=account_id).first()
    if account is None:
        raise NotFound("There is no such account.")
    return account


def locked_account(account_id: UUID) -> Account:
    """Return the account with its row locked until the transaction ends, or raise NotFound."""
    account = Account.objects.select_for_update().filter(pk=account_id).first()
    if account is None:
        raise NotFound("There is no such account.")
    return account


def linked_accounts() -> QuerySet[Account]:
    """Return the organization's AWS accounts, oldest first: without the placeholder and former ones."""
    return (
        Account.objects.exclude(aws_account_id="")
        .exclude(status=Account.Status.DISCONNECTED)
        .order_by("created_at", "id")
    )


def team_of(organization_id: UUID) -> list[TeamMember]:
    """Return the organization's people, owners first, then by address."""
    rank = {Membership.Role.OWNER: 0, Membership.Role.MEMBER: 1, Membership.Role.VIEWER: 2}
    rows = Membership.objects.select_related("user").filter(organization_id=organization_id)
    return [
        TeamMember(
            id=row.pk,
            email=row.user.email,
            name=row.user.name,
            role=row.role,
            last_login=row.user.last_login,
            status="active" if row.user.is_active else "inactive",
        )
        for row in sorted(rows, key=lambda row: (rank[Membership.Role(row.role)], row.user.email))
    ]


def has_feature(organization: Organization, feature: str) -> bool:
    """Tell whether a feature is on for the organization: its own switch first, then its plan."""
    switch = OrganizationFlag.objects.filter(key=feature).values_list("is_enabled", flat=True).first()
    return plans.includes(organization.plan, feature) if switch is None else switch


def gateway_of(user: User, membership: Membership | None) -> Gateway:
    """Return where to send the person, and how far their organization's connection to AWS has come."""
    if membership is None:
        return Gateway(STAFF if user.is_staff else NO_TEAM, "")
    with tenant(membership.organization_id):
        statuses = set(Account.objects.values_list("status", flat=True))
    furthest = next((status for status in ("active", "scanning", "error") if status in statuses), "pending")
    return Gateway(_path_for(user, membership, furthest), furthest)


def person_of(user: User, membership: Membership | None) -> Person:
    """Return what a client needs to know about the signed-in person."""
    gateway = gateway_of(user, membership)
    return Person(
        user_id=user.pk,
        email=user.email,
        name=user.name,
        role=user.role,
        must_change_password=user.must_change_password,
        org_id=membership.organization_id if membership else None,
        org_name=membership.organization.name if membership else "",
        org_role=membership.role if membership else "",
        active_account_id=membership.active_account_id if membership else None,
        account_status=gateway.account_status,
        redirect_path=gateway.redirect_path,
    )


def _path_for(user: User, membership: Membership, furthest: str) -> str:
    if user.is_staff:
        return STAFF
    if furthest == Account.Status.SCANNING:
        return f"{ONBOARDING}?step=scan"
    is_viewer = membership.role == Membership.Role.VIEWER
    if furthest in connection.CLAIMED or user.onboarding_skipped_at is not None or is_viewer:
        return DASHBOARD
    return ONBOARDING
