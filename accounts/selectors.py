"""Read people, memberships and accounts."""

from uuid import UUID

from accounts.models import Membership, Organization, User


def membership_of(user: User, organization_id: UUID | None = None) -> Membership | None:
    """Return the user's membership in the organization, or their oldest one when none is named."""
    rows = Membership.objects.select_related("organization", "active_account").filter(
        user=user, organization__status__in=[Organization.Status.TRIAL, Organization.Status.ACTIVE]
    )
    if organization_id is not None:
        rows = rows.filter(organization_id=organization_id)
    return rows.order_by("created_at").first()
