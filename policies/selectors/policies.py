"""Read policies and their history."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from clusters.models import Cluster
from clusters.selectors.paging import Page, page_by_key
from policies.models import ClusterPolicy, NodeTemplate, PolicyRevision

PAGE_SIZE = 50
_AUTOMATIC = ClusterPolicy.Mode.AUTOMATIC


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One cluster and how it may be treated; without a policy of its own the defaults hold."""

    cluster_id: UUID
    cluster_name: str
    region: str
    template: NodeTemplate | None
    """None while the defaults hold."""
    is_automatic: bool
    version: int
    changed_by: str
    changed_at: datetime | None
    agent: str
    """``told`` when the agent has confirmed the newest version, ``waiting``, or ``none`` without an agent;
    empty while there is no policy to tell."""


def revisions(cluster_id: UUID) -> QuerySet[PolicyRevision]:
    """Return every saved version of a cluster's policy, newest first."""
    return PolicyRevision.objects.filter(policy__cluster_id=cluster_id).order_by("-version")


def policy_page_of(*, search: str = "", after: str = "", account_id: UUID | None = None) -> Page[PolicyRow]:
    """Return one page of clusters with their policies, by name (two queries)."""
    rows = Cluster.objects.filter(removed_at=None).select_related(
        "cluster_policy__template", "cluster_policy__updated_by", "agent_config"
    )
    if search:
        rows = rows.filter(name__icontains=search)
    if account_id is not None:
        rows = rows.filter(account_id=account_id)
    total = rows.count()
    found, sort, cursor = page_by_key(
        rows, sort="name", columns={"name": "name"}, after=after, size=PAGE_SIZE
    )
    return Page(rows=tuple(_row(cluster) for cluster in found), sort=sort, next_cursor=cursor, total=total)


def template_choices(*, keep: NodeTemplate) -> list[tuple[str, str]]:
    """Return the live templates as (id, name), ``keep`` among them even when it was deleted (one query)."""
    live = NodeTemplate.objects.filter(deleted_at=None).order_by("name").values_list("pk", "name")
    return list({**{str(pk): name for pk, name in live}, str(keep.pk): keep.name}.items())


def _row(cluster: Cluster) -> PolicyRow:
    policy: ClusterPolicy | None = getattr(cluster, "cluster_policy", None)
    return PolicyRow(
        cluster_id=cluster.pk,
        cluster_name=cluster.name,
        region=cluster.region,
        template=policy.template if policy else None,
        is_automatic=policy is not None and policy.is_active and policy.mode == _AUTOMATIC,
        version=policy.version if policy else 0,
        changed_by=str(policy.updated_by) if policy and policy.updated_by else "",
        changed_at=policy.updated_at if policy else None,
        agent=_agent(cluster) if policy else "",
    )


def _agent(cluster: Cluster) -> str:
    if not cluster.agent_installed:
        return "none"
    told = getattr(cluster, "agent_config", None)
    return "told" if told is not None and told.acknowledged_version >= told.version else "waiting"
