"""Shapes of clusters and what is in them (S05, S06, S08, S15–S17)."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from rest_framework import serializers

from clusters.domain.contact import contact
from clusters.domain.efficiency import efficiency
from clusters.domain.health import health
from clusters.models import Action, Cluster, Instance, Interruption, NodeGroup, Workload
from clusters.selectors.measures import efficiency_of
from clusters.selectors.metrics import Scope
from spotopt.core.clock import utcnow
from spotopt.core.fields import HourlyUsd, Instant, MonthlyUsd, RowSerializer, per_month

LONGEST_PERIOD = timedelta(days=400)


class AgentSerializer(serializers.Serializer[Any]):
    """The agent of a cluster."""

    status = serializers.CharField(help_text="connected, lost or never")
    version = serializers.CharField()
    last_seen = Instant(allow_null=True)


class ClusterSerializer(RowSerializer):
    """A cluster in the list (S05)."""

    node_count = serializers.IntegerField(source="node_total", read_only=True)
    spot_count = serializers.IntegerField(source="spot_total", read_only=True)
    usd_per_hour = HourlyUsd()
    monthly_cost = serializers.SerializerMethodField()
    is_cost_estimated = serializers.SerializerMethodField()
    booked_savings = MonthlyUsd(source="usd_booked", help_text="USD in the ledger, all time.")
    is_booked_estimated = serializers.BooleanField(read_only=True)
    efficiency_score = serializers.SerializerMethodField(help_text="A to F; null when unmeasured.")
    status = serializers.SerializerMethodField(help_text="healthy, degraded or offline.")
    lifecycle = serializers.CharField(source="status", read_only=True)
    agent = serializers.SerializerMethodField()
    account_id = serializers.UUIDField(read_only=True)
    as_of = Instant(source="seen_at", read_only=True, allow_null=True)

    class Meta:
        model = Cluster
        fields = [
            "id", "name", "account_id", "region", "environment", "k8s_version", "node_count", "spot_count",
            "pod_count", "pending_pods", "usd_per_hour", "monthly_cost", "is_cost_estimated",
            "booked_savings", "is_booked_estimated", "efficiency_score", "status", "lifecycle",
            "maintenance_mode", "agent", "last_synced_at", "as_of",
        ]  # fmt: skip

    def get_monthly_cost(self, cluster: Any) -> str:
        """Return US dollars per month of 730 hours at the prices last observed."""
        return str(per_month(cluster.usd_per_hour))

    def get_is_cost_estimated(self, cluster: Any) -> bool:
        """Tell whether some node's price is an estimate or unknown."""
        return bool(cluster.estimated_total or cluster.unpriced_total)

    def get_efficiency_score(self, cluster: Any) -> str | None:
        """Return the grade."""
        measured = efficiency_of(cluster)
        return measured.grade if measured else None

    def get_status(self, cluster: Any) -> str:
        """Return the cluster's health."""
        return health(
            contact=contact(cluster.last_heartbeat_at, utcnow()),
            has_error=cluster.status == Cluster.Status.ERROR,
            pending_pods=cluster.pending_pods,
            nodes=cluster.node_total,
            unready_nodes=cluster.unready_total,
        )

    def get_agent(self, cluster: Cluster) -> dict[str, Any]:
        """Return whether the agent is in touch."""
        agent = {
            "status": contact(cluster.last_heartbeat_at, utcnow()),
            "version": cluster.agent_version,
            "last_seen": cluster.last_heartbeat_at,
        }
        return dict(AgentSerializer(agent).data)


class NodeGroupSerializer(RowSerializer):
    """A set of nodes that something scales."""

    node_count = serializers.IntegerField(source="node_total", read_only=True)

    class Meta:
        model = NodeGroup
        fields = [
            "id", "name", "kind", "instance_types", "min_size", "desired_capacity", "max_size",
            "original_min_size", "keeps_minimum", "spot_enabled", "labels", "taints", "node_count",
            "last_seen_at",
        ]  # fmt: skip


class ClusterDetailSerializer(ClusterSerializer):
    """One cluster (S06); ``health_metrics`` are null until the agent measured them."""

    node_groups = serializers.SerializerMethodField()
    health_metrics = serializers.SerializerMethodField()
    monthly_budget = MonthlyUsd(allow_null=True)

    class Meta(ClusterSerializer.Meta):
        fields = [
            *ClusterSerializer.Meta.fields, "arn", "vpc_id", "api_endpoint", "tags", "monthly_budget",
            "maintenance_reason", "snapshot_at", "node_groups", "health_metrics",
        ]  # fmt: skip

    def get_node_groups(self, cluster: Cluster) -> list[dict[str, Any]]:
        """Return the groups by name."""
        names = ["name", "instance_types", "desired_capacity", "min_size", "max_size"]
        groups = sorted(cluster.node_groups.all(), key=lambda group: group.name)
        return [{name: getattr(group, name) for name in names} for group in groups]

    def get_health_metrics(self, cluster: Any) -> dict[str, Any]:
        """Return utilisation in percent and pods."""
        return {
            "cpu_utilization": _rounded(cluster.cpu_mean),
            "memory_utilization": _rounded(cluster.memory_mean),
            "pod_count": cluster.pod_count if cluster.snapshot_at else None,
            "pending_pods": cluster.pending_pods if cluster.snapshot_at else None,
            "reason": None if cluster.snapshot_at else "The agent has not reported yet.",
        }


class ClusterChangeSerializer(serializers.Serializer[Any]):
    """What may be changed about a cluster."""

    environment = serializers.ChoiceField(Cluster.Environment.choices, required=False)
    tags = serializers.DictField(
        child=serializers.CharField(max_length=256, allow_blank=True), required=False
    )
    monthly_budget = serializers.DecimalField(
        max_digits=14, decimal_places=2, min_value=0, required=False, allow_null=True
    )


class RemovalSerializer(serializers.Serializer[Any]):
    """The name of the cluster, typed by hand."""

    name = serializers.CharField(max_length=255)


class MaintenanceSerializer(serializers.Serializer[Any]):
    """Pause or resume."""

    enabled = serializers.BooleanField()
    reason = serializers.CharField(max_length=255, required=False, allow_blank=True, default="")


class NodeSerializer(RowSerializer):
    """A node: an EC2 instance and what the agent says about it."""

    node_group = serializers.CharField(source="node_group.name", read_only=True, default=None)
    usd_per_hour = HourlyUsd(source="price", allow_null=True)

    class Meta:
        model = Instance
        fields = [
            "id", "instance_id", "node_name", "instance_type", "lifecycle", "region", "az", "az_id", "state",
            "node_group", "usd_per_hour", "price_is_estimate", "is_ready", "is_cordoned",
            "cpu_allocatable_millis", "memory_allocatable_mib", "pods_allocatable", "cpu_requested_millis",
            "memory_requested_mib", "pod_count", "cpu_util", "memory_util", "labels", "taints", "launched_at",
            "last_seen_at", "node_seen_at",
        ]  # fmt: skip


class WorkloadSerializer(RowSerializer):
    """A controller and the shape of its pods."""

    class Meta:
        model = Workload
        fields = [
            "id", "namespace", "kind", "name", "replicas", "ready_replicas", "pending_replicas",
            "cpu_request_millis", "memory_request_mib", "gpu_request", "cpu_used_millis", "memory_used_mib",
            "budget_count", "budget_allows", "budget_minimum", "reported_at",
        ]  # fmt: skip


class ActionSerializer(RowSerializer):
    """One change to a cluster, and what became of it."""

    class Meta:
        model = Action
        fields = [
            "id", "kind", "route", "target", "params", "reason", "requested_by", "plan_id", "is_voluntary",
            "status", "claimed_by", "claimed_at", "expires_at", "finished_at", "result", "error_code",
            "error_message", "created_at",
        ]  # fmt: skip


class InterruptionSerializer(RowSerializer):
    """AWS's notice about one spot node, and what came of it."""

    cluster_id = serializers.UUIDField(read_only=True)
    instance_id = serializers.CharField(source="instance.instance_id", read_only=True)
    node_name = serializers.CharField(source="instance.node_name", read_only=True)
    received_at = Instant(source="created_at", read_only=True, help_text="When Spotopt learned of it.")

    class Meta:
        model = Interruption
        fields = [
            "id", "cluster_id", "kind", "source", "status", "instance_id", "node_name", "instance_type",
            "region", "zone_id", "noticed_at", "received_at", "deadline", "is_verified", "pods_at_notice",
            "replacement_decided_at", "replacement_action_id", "note", "ended_at",
        ]  # fmt: skip


class ScopeSerializer(serializers.Serializer[Any]):
    """Which part of the organization a number is about; all of it when nothing is named."""

    account = serializers.UUIDField(required=False)
    cluster_id = serializers.UUIDField(required=False)

    @classmethod
    def of(cls, query: Mapping[str, Any]) -> Scope:
        """Return the scope that a query string names."""
        shape = cls(data=query)
        shape.is_valid(raise_exception=True)
        return shape.scope()

    def scope(self) -> Scope:
        """Return the scope that was asked for."""
        given = self.validated_data
        return Scope(account_id=given.get("account"), cluster_id=given.get("cluster_id"))


@dataclass(frozen=True, slots=True)
class Period:
    """From ``start`` up to, not including, ``end``."""

    start: datetime
    end: datetime


class TimeseriesRequestSerializer(ScopeSerializer):
    """A period of at most 400 days; the last day when none is named."""

    start = serializers.DateTimeField(required=False)
    end = serializers.DateTimeField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Fill in the period and refuse one that runs backwards or is too long."""
        end = attrs.setdefault("end", utcnow())
        start = attrs.setdefault("start", end - timedelta(days=1))
        if not timedelta(0) < end - start <= LONGEST_PERIOD:
            raise serializers.ValidationError(
                {"end": f"must follow start by at most {LONGEST_PERIOD.days} days."}
            )
        return attrs

    def period(self) -> Period:
        """Return the period that was asked for."""
        return Period(self.validated_data["start"], self.validated_data["end"])


class CompositionSerializer(serializers.Serializer[Any]):
    """Shares of the running nodes in percent (S17); maps are empty without nodes."""

    by_family = serializers.DictField(child=serializers.FloatField())
    by_lifecycle = serializers.DictField(child=serializers.FloatField())
    by_region = serializers.DictField(child=serializers.FloatField())
    nodes = serializers.IntegerField()
    as_of = Instant(allow_null=True)


class SavingsSerializer(serializers.Serializer[Any]):
    """What the ledger booked: measured node-hours at recorded prices, never a forecast."""

    booked_usd = serializers.DecimalField(max_digits=None, decimal_places=8)
    estimated = serializers.BooleanField(
        source="is_estimated", help_text="Some of it was booked at estimated prices."
    )
    booked_since = Instant(allow_null=True)
    booked_until = Instant(allow_null=True)


class PointSerializer(serializers.Serializer[Any]):
    """A mean over one bin of time."""

    timestamp = Instant(source="at")
    value = HourlyUsd(source="usd_per_hour", help_text="USD per hour")
    nodes = serializers.FloatField()
    cpu_percent = serializers.FloatField(allow_null=True)


class SummarySerializer(serializers.Serializer[Any]):
    """All clusters in a few numbers."""

    clusters = serializers.IntegerField()
    nodes = serializers.IntegerField()
    spot_nodes = serializers.IntegerField()
    vcpu = serializers.FloatField(allow_null=True)
    memory_gib = serializers.FloatField(allow_null=True)
    efficiency_score = serializers.CharField(allow_null=True)
    usd_per_hour = HourlyUsd()
    monthly_cost = MonthlyUsd()
    health = serializers.DictField(child=serializers.IntegerField())
    as_of = Instant(allow_null=True)


class SafeModeSerializer(serializers.Serializer[Any]):
    """The platform's switches."""

    safe_mode = serializers.ChoiceField(["off", "on", "freeze"])


def summary_of(clusters: Iterable[Any]) -> dict[str, Any]:
    """Return the totals of clusters that carry their measures."""
    rows = list(clusters)
    usd = sum((row.usd_per_hour for row in rows), Decimal(0))
    measured = efficiency(
        cpu_useful=_total(rows, "cpu_useful"),
        cpu=_total(rows, "cpu_measured"),
        memory_useful=_total(rows, "memory_useful"),
        memory=_total(rows, "memory_measured"),
    )
    cpu, memory = _total(rows, "cpu_total"), _total(rows, "memory_total")
    status = ClusterSerializer()
    return {
        "clusters": len(rows),
        "nodes": sum(row.node_total for row in rows),
        "spot_nodes": sum(row.spot_total for row in rows),
        "vcpu": None if cpu is None else cpu / 1000,
        "memory_gib": None if memory is None else memory / 1024,
        "efficiency_score": measured.grade if measured else None,
        "usd_per_hour": usd,
        "monthly_cost": per_month(usd),
        "health": Counter(status.get_status(row) for row in rows),
        "as_of": min((row.seen_at for row in rows if row.seen_at), default=None),
    }


def _total(rows: Iterable[Any], name: str) -> Any:
    known = [value for row in rows if (value := getattr(row, name)) is not None]
    return sum(known) if known else None


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 1)
