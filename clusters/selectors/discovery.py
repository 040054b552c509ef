"""What the last scan of an AWS account found, without asking AWS again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from accounts.selectors import account_by_id
from clusters.models import Cluster, DiscoveryRun
from spotopt.core.errors import NotFound


@dataclass(frozen=True, slots=True)
class Discovery:
    """The EKS clusters of an account as of its last scan."""

    clusters: Sequence[Cluster]
    refreshed_at: datetime | None
    """None before the first scan has ended."""
    skipped: Mapping[str, str]
    """Why a region could not be read, by region."""


def latest_run(account_id: UUID) -> DiscoveryRun:
    """Return the newest run of one of the organization's accounts, or raise NotFound."""
    account = account_by_id(account_id)
    runs = DiscoveryRun.objects.select_related("account").filter(account=account)
    run = runs.order_by("-created_at").first()
    if run is None:
        raise NotFound("This account was never scanned.")
    return run


def discovered(account_id: UUID, regions: Sequence[str] = ()) -> Discovery:
    """Return an account's clusters, in some regions or all, by name (three queries)."""
    account = account_by_id(account_id)
    clusters = Cluster.objects.filter(account=account, removed_at=None)
    if regions:
        clusters = clusters.filter(region__in=regions)
    ended = DiscoveryRun.objects.filter(account=account, finished_at__isnull=False)
    last = ended.order_by("-finished_at").first()
    return Discovery(
        clusters=list(clusters.order_by("name", "region")),
        refreshed_at=account.last_scan_at,
        skipped=last.errors if last else {},
    )
