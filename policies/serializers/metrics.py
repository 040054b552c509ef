"""Shapes of the dashboard's numbers (S15, S16)."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from rest_framework import serializers

from clusters.serializers import ScopeSerializer
from policies.selectors.metrics import Kpi, Projection
from spotopt.core.fields import Instant, MonthlyUsd, per_month


class KpiSerializer(serializers.Serializer[Any]):
    """The cards above the dashboard (S15); null means that nobody measured it."""

    monthly_spend = MonthlyUsd(help_text="Running nodes at the prices last observed, × 730 h.")
    net_savings = MonthlyUsd(help_text="USD booked in the ledger during the trailing 30 days.")
    fleet_health = serializers.FloatField(allow_null=True)
    active_nodes = serializers.IntegerField()
    spot_nodes = serializers.IntegerField()
    spot_percentage = serializers.FloatField(allow_null=True)
    spot_risk = serializers.FloatField(allow_null=True, help_text="Mean chance of an interruption in 24 h.")
    efficiency_score = serializers.CharField(allow_null=True, help_text="A to F")
    efficiency_percent = serializers.FloatField(allow_null=True)
    estimated = serializers.BooleanField(help_text="Some price is an estimate or unknown.")
    as_of = Instant(allow_null=True)

    @classmethod
    def of(cls, kpi: Kpi) -> dict[str, Any]:
        """Return the cards as the API writes them."""
        spent = kpi.spending
        rate = spent.efficiency
        answer = {
            "monthly_spend": per_month(spent.usd_per_hour),
            "net_savings": spent.booked_usd,
            "fleet_health": None if kpi.fleet_health is None else round(kpi.fleet_health, 1),
            "active_nodes": spent.nodes,
            "spot_nodes": spent.spot_nodes,
            "spot_percentage": round(100 * spent.spot_nodes / spent.nodes, 1) if spent.nodes else None,
            "spot_risk": None if kpi.spot_risk is None else round(kpi.spot_risk, 4),
            "efficiency_score": rate.grade if rate else None,
            "efficiency_percent": round(rate.score, 1) if rate else None,
            "estimated": spent.is_estimated,
            "as_of": spent.as_of,
        }
        return dict(cls(answer).data)


class ProjectionRequestSerializer(ScopeSerializer):
    """How far back the timeline reaches."""

    timeframe = serializers.ChoiceField(["7d", "30d", "90d"], default="30d")

    def reach(self) -> timedelta:
        """Return the timeframe as a duration."""
        return timedelta(days=int(self.validated_data["timeframe"].removesuffix("d")))


class BreakdownSerializer(serializers.Serializer[Any]):
    """The parts of the potential, USD per month; they add up to it."""

    spot_replacement = MonthlyUsd()
    bin_packing = MonthlyUsd()
    hibernation = MonthlyUsd(help_text="Plans hold none; schedules show their own.")
    rightsizing = MonthlyUsd(help_text="Plans hold none.")


class SpentPointSerializer(serializers.Serializer[Any]):
    """What was spent, USD per month of 730 hours."""

    timestamp = Instant()
    value = MonthlyUsd()


class ProjectionSerializer(serializers.Serializer[Any]):
    """A forecast (S16): the newest proposals at the prices of ``as_of``; USD per month."""

    unoptimized_cost = MonthlyUsd()
    optimized_cost = MonthlyUsd()
    potential_savings = MonthlyUsd()
    breakdown = BreakdownSerializer()
    timeline = SpentPointSerializer(many=True)
    clusters_planned = serializers.IntegerField()
    clusters_total = serializers.IntegerField()
    as_of = Instant(allow_null=True)

    @classmethod
    def of(cls, projection: Projection) -> dict[str, Any]:
        """Return the forecast as the API writes it; the parts add up to the cent."""
        potential = projection.potential
        cost, saved = per_month(projection.usd_per_hour), per_month(potential.total)
        by_spot = per_month(potential.spot_replacement)
        answer = {
            "unoptimized_cost": cost,
            "optimized_cost": cost - saved,
            "potential_savings": saved,
            "breakdown": {
                "spot_replacement": by_spot,
                "bin_packing": saved - by_spot,
                "hibernation": Decimal(0),
                "rightsizing": Decimal(0),
            },
            "timeline": [
                {"timestamp": point.at, "value": per_month(point.usd_per_hour)}
                for point in projection.timeline
            ],
            "clusters_planned": potential.clusters_planned,
            "clusters_total": potential.clusters_total,
            "as_of": potential.as_of,
        }
        return dict(cls(answer).data)
