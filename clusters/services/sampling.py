"""Take the samples that charts are drawn from: cost, size and load of each cluster."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Count, F, Q, Sum

from clusters.models import Cluster, ClusterSample, Instance
from clusters.selectors.guard import ALIVE
from spotopt.core.clock import utcnow


def sample_clusters() -> int:
    """Store one sample for each cluster of the organization that has priced nodes; return how many."""
    now = utcnow().replace(second=0, microsecond=0)
    totals = (
        Instance.objects.filter(cluster__isnull=False, state__in=ALIVE)
        .values("cluster_id")
        .annotate(
            usd=Sum("price"),
            nodes=Count("pk"),
            spot=Count("pk", filter=Q(lifecycle=Instance.Lifecycle.SPOT)),
            cpu=Sum("cpu_allocatable_millis"),
            cpu_requested=Sum("cpu_requested_millis"),
            cpu_used=Sum(F("cpu_allocatable_millis") * F("cpu_util") / 100.0),
            memory=Sum("memory_allocatable_mib"),
            memory_requested=Sum("memory_requested_mib"),
            memory_used=Sum(F("memory_allocatable_mib") * F("memory_util") / 100.0),
        )
        .filter(usd__isnull=False)
    )
    clusters = {row.pk: row for row in Cluster.objects.filter(removed_at__isnull=True)}
    samples = [
        _sample(clusters[row["cluster_id"]], row, now) for row in totals if row["cluster_id"] in clusters
    ]
    ClusterSample.objects.bulk_create(samples, ignore_conflicts=True)
    return len(samples)


def _sample(cluster: Cluster, row: Mapping[str, Any], now: datetime) -> ClusterSample:
    return ClusterSample(
        organization_id=cluster.organization_id,
        cluster=cluster,
        taken_at=now,
        usd_per_hour=row["usd"],
        nodes=row["nodes"],
        spot_nodes=row["spot"],
        pods=cluster.pod_count,
        pending_pods=cluster.pending_pods,
        cpu_capacity_millis=row["cpu"],
        cpu_requested_millis=row["cpu_requested"],
        cpu_used_millis=_whole(row["cpu_used"]),
        memory_capacity_mib=row["memory"],
        memory_requested_mib=row["memory_requested"],
        memory_used_mib=_whole(row["memory_used"]),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
