"""Read node templates."""

from django.db.models import Prefetch, Q, QuerySet

from policies.models import ClusterPolicy, NodeTemplate


def templates(*, search: str = "") -> QuerySet[NodeTemplate]:
    """Return the live templates with the policies that use them, the default first, then by name."""
    users = Prefetch("policies", queryset=ClusterPolicy.objects.select_related("cluster"))
    rows = NodeTemplate.objects.filter(deleted_at=None).prefetch_related(users)
    if search:
        rows = rows.filter(Q(name__icontains=search) | Q(families__contains=[search.lower()]))
    return rows.order_by("-is_default", "name", "pk")
