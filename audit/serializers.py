"""Shapes of events (S18, S20, S21)."""

from dataclasses import asdict
from typing import Any

from rest_framework import serializers

from audit.domain.diff import changes
from audit.models import AuditLog
from spotopt.core.fields import HourlyUsd, Instant, RowSerializer


class EventSerializer(RowSerializer):
    """One event (S20)."""

    actor = serializers.CharField(source="actor_label", read_only=True)
    resource = serializers.CharField(source="resource_label", read_only=True)

    class Meta:
        model = AuditLog
        fields = [
            "id", "seq", "timestamp", "actor", "actor_id", "actor_type", "event", "sentence", "resource",
            "resource_id", "resource_type", "outcome", "account_id", "cluster_id", "ip_address", "user_agent",
            "request_id", "usd_per_hour",
        ]  # fmt: skip


class EventDetailSerializer(EventSerializer):
    """One event with what it changed and its place in the chain."""

    class Meta(EventSerializer.Meta):
        fields = [*EventSerializer.Meta.fields, "before", "after", "prev_hash", "row_hash"]


class ChangeSerializer(serializers.Serializer[Any]):
    """One field that differs."""

    field = serializers.CharField()
    old_value = serializers.JSONField(allow_null=True)
    new_value = serializers.JSONField(allow_null=True)
    change_type = serializers.ChoiceField(["added", "modified", "removed"])


class DiffSerializer(serializers.Serializer[Any]):
    """What an event changed (S21)."""

    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)
    diff = ChangeSerializer(many=True)

    @classmethod
    def of(cls, event: AuditLog) -> dict[str, Any]:
        """Return the differences that one event recorded."""
        diff = [asdict(change) for change in changes(event.before, event.after)]
        return dict(cls({"before": event.before, "after": event.after, "diff": diff}).data)


class ActivitySerializer(serializers.ModelSerializer[AuditLog]):
    """One line of the live feed (S18)."""

    timestamp = Instant()
    action = serializers.CharField(source="sentence")
    actor = serializers.CharField(source="actor_label")
    savings = HourlyUsd(source="usd_per_hour", allow_null=True, help_text="USD per hour")
    status = serializers.CharField(source="outcome")

    class Meta:
        model = AuditLog
        fields = [
            "id",
            "timestamp",
            "action",
            "event",
            "actor",
            "savings",
            "status",
            "resource_id",
            "cluster_id",
        ]


class ChainSerializer(serializers.Serializer[Any]):
    """Whether every stored event still is what was written."""

    ok = serializers.BooleanField()
    rows = serializers.IntegerField()
    first_bad_seq = serializers.IntegerField(allow_null=True)


class PeriodSerializer(serializers.Serializer[Any]):
    """A number of days that end now."""

    days = serializers.IntegerField(min_value=1, max_value=3650, default=30)


class RecordSummarySerializer(serializers.Serializer[Any]):
    """The record of a period in a few numbers."""

    events = serializers.IntegerField()
    unique_actors = serializers.IntegerField()
    success_percent = serializers.FloatField(allow_null=True)
    top_actors = serializers.DictField(child=serializers.IntegerField())
    top_events = serializers.DictField(child=serializers.IntegerField())
