"""Read schedules."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db.models import QuerySet, Sum
from django.db.models.functions import Coalesce

from clusters.models import Instance
from clusters.selectors.guard import ALIVE
from clusters.selectors.measures import ZERO_USD
from clusters.selectors.registry import cluster_named
from hibernation.domain.schedule import projected_usd_per_month
from hibernation.models import HibernationSchedule


@dataclass(frozen=True, slots=True)
class Week:
    """A cluster's schedule and its forecast."""

    schedule: HibernationSchedule
    usd_per_month: Decimal
    """Forecast saving if the schedule were carried out at today's cost."""


def schedules() -> QuerySet[HibernationSchedule]:
    """Return the schedules of present clusters, by cluster name."""
    rows = HibernationSchedule.objects.filter(cluster__removed_at=None).select_related("cluster")
    return rows.order_by("cluster__name", "pk")


def week_of(cluster_id: UUID) -> Week:
    """Return the schedule, or an unsaved one that never sleeps; raise NotFound without a cluster."""
    cluster = cluster_named(cluster_id)
    schedule = schedules().filter(cluster=cluster).first()
    return week(schedule or HibernationSchedule(organization_id=cluster.organization_id, cluster=cluster))


def week(schedule: HibernationSchedule) -> Week:
    """Return a schedule with its forecast at today's cost (one query)."""
    nodes = Instance.objects.filter(cluster_id=schedule.cluster_id, state__in=ALIVE)
    usd_per_hour = nodes.aggregate(usd=Coalesce(Sum("price"), ZERO_USD))["usd"]
    return Week(schedule, projected_usd_per_month(schedule.schedule_matrix, usd_per_hour))
