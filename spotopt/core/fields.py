"""How the API writes instants and money: UTC with milliseconds and Z, US dollars as decimal strings."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import models
from rest_framework import serializers

HOURS_PER_MONTH = 730


class Instant(serializers.DateTimeField):
    """An instant such as ``2025-03-01T08:30:00.250Z``."""

    def to_representation(self, value: Any) -> Any:
        """Return the instant in UTC with milliseconds."""
        return instant(value) if isinstance(value, datetime) else value


class HourlyUsd(serializers.DecimalField):
    """US dollars per hour, six decimals."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"max_digits": None, "decimal_places": 6, "read_only": True} | options)


class MonthlyUsd(serializers.DecimalField):
    """US dollars, or US dollars per month of 730 hours; two decimals."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"max_digits": None, "decimal_places": 2, "read_only": True} | options)


class RowSerializer(serializers.ModelSerializer[Any]):
    """Reads a row with this project's instants and money."""

    serializer_field_mapping = serializers.ModelSerializer.serializer_field_mapping | {
        models.DateTimeField: Instant,
        models.DecimalField: HourlyUsd,
    }


def instant(moment: datetime) -> str:
    """Return the moment as the API writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def per_month(usd_per_hour: Decimal) -> Decimal:
    """Return US dollars per month of 730 hours, in cents."""
    return (usd_per_hour * HOURS_PER_MONTH).quantize(Decimal("0.01"))
