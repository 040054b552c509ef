"""What the record can be narrowed to."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

from django import forms
from django.db.models import Q, QuerySet
from django.utils.dateparse import parse_date, parse_datetime
from django_filters import rest_framework as filters

from audit.models import AuditLog


class MomentField(forms.CharField):
    """An instant, or a date that stands for its UTC day."""

    def __init__(self, *args: Any, is_end: bool = False, **options: Any) -> None:
        self.is_end = is_end
        super().__init__(*args, **options)

    def clean(self, value: Any) -> datetime | None:
        """Return the instant: a day begins at its midnight, and as an end it ends at the next."""
        text = super().clean(value)
        if not text:
            return None
        try:
            if (day := parse_date(text)) is not None:
                begin = datetime.combine(day, time(), UTC)
                return begin + timedelta(days=1) if self.is_end else begin
            moment = parse_datetime(text.replace(" ", "+"))
        except ValueError:
            moment = None
        if moment is None:
            raise forms.ValidationError("Send a date such as 2025-03-01, or an instant with its offset.")
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class MomentFilter(filters.Filter):
    """Compares an instant."""

    field_class = MomentField


class EventFilter(filters.FilterSet):
    """Events by time, actor, kind, outcome, cluster and words."""

    start_date = MomentFilter(field_name="timestamp", lookup_expr="gte")
    end_date = MomentFilter(field_name="timestamp", lookup_expr="lt", is_end=True)
    actor = filters.CharFilter(method="by_actor", help_text="Part of a name, or an exact id.")
    event = filters.CharFilter(lookup_expr="startswith", help_text="A code or its beginning: policies.plan")
    cluster_id = filters.UUIDFilter()
    outcome = filters.MultipleChoiceFilter(choices=AuditLog.Outcome.choices)
    q = filters.CharFilter(method="by_words", help_text="Part of a sentence or of a resource's name.")

    class Meta:
        model = AuditLog
        fields = ["resource_type", "resource_id", "actor_type"]

    def get_form_class(self) -> type[forms.Form]:
        """Return a form that refuses a period that runs backwards."""
        return type("EventForm", (_PeriodForm, super().get_form_class()), {})

    def by_actor(self, rows: QuerySet[AuditLog], _name: str, text: str) -> QuerySet[AuditLog]:
        """Narrow to one actor."""
        return rows.filter(Q(actor_label__icontains=text) | Q(actor_id=text))

    def by_words(self, rows: QuerySet[AuditLog], _name: str, text: str) -> QuerySet[AuditLog]:
        """Narrow to events that the text is found in."""
        found = Q(sentence__icontains=text) | Q(resource_label__icontains=text)
        return rows.filter(found | Q(event__icontains=text))


class _PeriodForm(forms.Form):
    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        start, end = given.get("start_date"), given.get("end_date")
        if start and end and end < start:
            raise forms.ValidationError({"end_date": "The end is before the start."})
        return given
