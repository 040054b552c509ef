"""Shapes of schedules (S19)."""

from typing import Any

from rest_framework import serializers

from hibernation.models import HibernationSchedule
from hibernation.selectors import Week
from hibernation.services import ScheduleChange
from spotopt.core.fields import MonthlyUsd, RowSerializer


class ScheduleSerializer(RowSerializer):
    """A cluster's week: 168 hours, Monday 00:00 first, 1 awake and 0 asleep, in the zone's wall time."""

    cluster = serializers.CharField(source="cluster.name", read_only=True)

    class Meta:
        model = HibernationSchedule
        fields = [
            "cluster_id", "cluster", "schedule_matrix", "timezone", "prewarm_enabled", "prewarm_minutes",
            "is_active", "updated_at",
        ]  # fmt: skip


class WeekSerializer(serializers.Serializer[Any]):
    """A schedule with its forecast; ``is_active`` is false: schedules are kept but not carried out yet."""

    schedule = ScheduleSerializer()
    projected_savings = MonthlyUsd(help_text="Forecast, USD per month at today's cost.")

    @classmethod
    def of(cls, week: Week) -> dict[str, Any]:
        """Return a week as the API writes it."""
        return dict(cls({"schedule": week.schedule, "projected_savings": week.usd_per_month}).data)


class ScheduleChangeSerializer(serializers.Serializer[Any]):
    """Parts of a schedule."""

    schedule_matrix = serializers.ListField(child=serializers.IntegerField(), max_length=1000, required=False)
    timezone = serializers.CharField(max_length=50, required=False)
    prewarm_enabled = serializers.BooleanField(required=False)
    prewarm_minutes = serializers.IntegerField(min_value=0, max_value=120, required=False)

    def change(self) -> ScheduleChange:
        """Return the change that was asked for."""
        given = dict(self.validated_data)
        given.pop("cluster_id", None)
        return ScheduleChange(**given)


class ScheduleRequestSerializer(ScheduleChangeSerializer):
    """A schedule for a cluster (E057)."""

    cluster_id = serializers.UUIDField()
    schedule_matrix = serializers.ListField(child=serializers.IntegerField(), max_length=1000)


class TimezoneSerializer(ScheduleChangeSerializer):
    """A cluster's time zone (E060)."""

    cluster_id = serializers.UUIDField()
    timezone = serializers.CharField(max_length=50)


class PrewarmSerializer(serializers.Serializer[Any]):
    """How long before waking nodes start (E061)."""

    cluster_id = serializers.UUIDField()
    enabled = serializers.BooleanField()
    minutes = serializers.IntegerField(min_value=0, max_value=120, required=False)

    def change(self) -> ScheduleChange:
        """Return the change that was asked for."""
        given = self.validated_data
        return ScheduleChange(prewarm_enabled=given["enabled"], prewarm_minutes=given.get("minutes"))
