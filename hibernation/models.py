"""The weekly schedule of a cluster's sleep."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from clusters.models import Cluster
from spotopt.core.records import Record
from spotopt.core.tenancy import TenantModel

HOURS_PER_WEEK = 168


def always_awake() -> list[int]:
    """Return a week in which every hour is active."""
    return [1] * HOURS_PER_WEEK


class HibernationSchedule(Record, TenantModel):
    """168 hours, Monday 00:00 first, in the wall time of ``timezone``; 1 is awake, 0 asleep."""

    cluster = models.OneToOneField(Cluster, on_delete=models.PROTECT, related_name="hibernation_schedule")
    schedule_matrix = ArrayField(models.PositiveSmallIntegerField(), default=always_awake)
    timezone = models.CharField(max_length=50, default="UTC")
    prewarm_enabled = models.BooleanField(default=False)
    prewarm_minutes = models.PositiveSmallIntegerField(default=30)
    is_active = models.BooleanField(default=False)

    class Meta:
        db_table = "hibernation_schedules"
        constraints = [
            models.CheckConstraint(
                condition=Q(schedule_matrix__len=HOURS_PER_WEEK), name="hibernation_schedules_168_hours"
            ),
            models.CheckConstraint(
                condition=Q(prewarm_minutes__lte=120), name="hibernation_schedules_prewarm_120"
            ),
        ]

    def __str__(self) -> str:
        return f"schedule of {self.cluster_id}"
