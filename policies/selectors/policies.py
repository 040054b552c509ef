"""Read the history of policies."""

from uuid import UUID

from django.db.models import QuerySet

from policies.models import PolicyRevision


def revisions(cluster_id: UUID) -> QuerySet[PolicyRevision]:
    """Return every saved version of a cluster's policy, newest first."""
    return PolicyRevision.objects.filter(policy__cluster_id=cluster_id).order_by("-version")
