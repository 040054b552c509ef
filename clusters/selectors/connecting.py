"""How far the connection to AWS and to the clusters' agents has come."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from accounts.models import Account
from accounts.selectors import linked_accounts
from clusters.domain.contact import Contact, contact
from clusters.models import Cluster, DiscoveryRun
from clusters.selectors.guard import ALIVE
from clusters.selectors.measures import ZERO_USD


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """One linked AWS account in the settings."""

    account: Account
    clusters: int
    run: DiscoveryRun | None


@dataclass(frozen=True, slots=True)
class ClusterToConnect:
    """One cluster that a scan found, and whether its agent is in contact."""

    id: UUID
    name: str
    region: str
    contact: Contact
    last_heartbeat_at: datetime | None
    nodes: int
    usd_per_hour: Decimal


def newest_run(account_id: UUID) -> DiscoveryRun | None:
    """Return the account's last scan."""
    return DiscoveryRun.objects.filter(account_id=account_id).order_by("-created_at").first()


def account_summaries() -> tuple[AccountSummary, ...]:
    """Return the linked accounts, oldest first (two queries)."""
    newest = DiscoveryRun.objects.filter(account=OuterRef("pk")).order_by("-created_at").values("pk")[:1]
    rows: QuerySet[Account] = linked_accounts().annotate(
        cluster_total=Count("clusters", filter=Q(clusters__removed_at__isnull=True)),
        run_id=Subquery(newest),
    )
    accounts = list(rows)
    runs = DiscoveryRun.objects.in_bulk([account.run_id for account in accounts if account.run_id])  # type: ignore[attr-defined]  # annotated
    return tuple(
        AccountSummary(account=account, clusters=account.cluster_total, run=runs.get(account.run_id))  # type: ignore[attr-defined]  # annotated
        for account in accounts
    )


def clusters_to_connect(account_id: UUID, *, now: datetime) -> tuple[ClusterToConnect, ...]:
    """Return the account's clusters, dearest first (one query)."""
    alive = Q(instances__state__in=ALIVE)
    rows = (
        Cluster.objects.filter(account_id=account_id, removed_at__isnull=True)
        .annotate(
            node_total=Count("instances", filter=alive),
            usd=Coalesce(Sum("instances__price", filter=alive), ZERO_USD),
        )
        .order_by("-usd", "name")
    )
    return tuple(
        ClusterToConnect(
            id=row.pk,
            name=row.name,
            region=row.region,
            contact=contact(row.last_heartbeat_at, now),
            last_heartbeat_at=row.last_heartbeat_at,
            nodes=row.node_total,
            usd_per_hour=row.usd,
        )
        for row in rows
    )
