"""Inventory, market, actions and ledger under the staff's microscope."""

from django.contrib import admin

from clusters.models import (
    Action,
    AgentConfig,
    Cluster,
    ClusterEvent,
    ClusterSample,
    DiscoveryRun,
    Instance,
    InstanceType,
    Interruption,
    InterruptionRate,
    NodeGroup,
    NodePool,
    Placement,
    PoolState,
    Price,
    SavingsEntry,
    Workload,
)
from spotopt.core.admin import MicroscopeAdmin


class TenantAdmin(MicroscopeAdmin):
    """Rows of tenants: newest first, without counting a large table twice."""

    ordering = ["-created_at"]
    list_select_related = ["organization"]
    show_full_result_count = False


@admin.register(Cluster)
class ClusterAdmin(TenantAdmin):
    """EKS clusters."""

    list_display = ["name", "organization", "region", "status", "last_heartbeat_at", "pod_count"]
    list_filter = ["status", "environment", "region"]
    search_fields = ["name", "arn"]


@admin.register(NodeGroup)
class NodeGroupAdmin(TenantAdmin):
    """Sets of nodes that something scales."""

    list_display = ["name", "organization", "cluster", "kind", "min_size", "desired_capacity", "max_size"]
    list_filter = ["kind"]
    list_select_related = ["organization", "cluster"]
    search_fields = ["name"]


@admin.register(NodePool)
class NodePoolAdmin(TenantAdmin):
    """Karpenter's node pools, as agents reported them."""

    list_display = ["name", "organization", "cluster", "is_ours", "reported_at"]
    list_filter = ["is_ours"]
    list_select_related = ["organization", "cluster"]
    search_fields = ["name"]


@admin.register(Instance)
class InstanceAdmin(TenantAdmin):
    """EC2 instances."""

    list_display = ["instance_id", "organization", "cluster", "instance_type", "lifecycle", "state", "price"]
    list_filter = ["state", "lifecycle", "region"]
    list_select_related = ["organization", "cluster"]
    search_fields = ["instance_id", "node_name"]


@admin.register(Workload)
class WorkloadAdmin(TenantAdmin):
    """Controllers and the shape of their pods."""

    list_display = ["key", "organization", "cluster", "replicas", "pending_replicas", "reported_at"]
    list_select_related = ["organization", "cluster"]
    search_fields = ["key"]


@admin.register(Placement)
class PlacementAdmin(TenantAdmin):
    """How many pods of a workload run on an instance."""

    list_display = ["workload", "instance", "count"]
    list_select_related = ["workload", "instance"]
    ordering = ["-pk"]


@admin.register(DiscoveryRun)
class DiscoveryRunAdmin(TenantAdmin):
    """Scans."""

    list_display = ["created_at", "organization", "account", "trigger", "status", "progress"]
    list_filter = ["status", "trigger"]
    list_select_related = ["organization", "account"]


@admin.register(Action)
class ActionAdmin(TenantAdmin):
    """Changes to clusters, and how they ended."""

    list_display = ["created_at", "organization", "cluster", "kind", "target", "status", "error_code"]
    list_filter = ["status", "kind", "route"]
    list_select_related = ["organization", "cluster"]
    search_fields = ["target", "idempotency_key"]


@admin.register(Interruption)
class InterruptionAdmin(TenantAdmin):
    """Notices that AWS takes nodes back, and how they ended."""

    list_display = ["noticed_at", "organization", "cluster", "instance", "kind", "source", "status"]
    list_filter = ["kind", "source", "status"]
    list_select_related = ["organization", "cluster", "instance"]


@admin.register(AgentConfig)
class AgentConfigAdmin(TenantAdmin):
    """What agents are told."""

    list_display = ["cluster", "organization", "version", "acknowledged_version", "updated_at"]
    list_select_related = ["organization", "cluster"]


@admin.register(ClusterEvent)
class ClusterEventAdmin(TenantAdmin):
    """What happened in clusters."""

    list_display = ["occurred_at", "organization", "cluster", "event_type", "severity", "source"]
    list_filter = ["severity", "source"]
    list_select_related = ["organization", "cluster"]


@admin.register(SavingsEntry)
class SavingsEntryAdmin(TenantAdmin):
    """The ledger."""

    list_display = ["hour", "organization", "cluster", "instance", "kind", "usd", "formula"]
    list_filter = ["kind"]
    list_select_related = ["organization", "cluster", "instance"]


@admin.register(ClusterSample)
class ClusterSampleAdmin(TenantAdmin):
    """Clusters over time."""

    list_display = ["taken_at", "organization", "cluster", "usd_per_hour", "nodes", "pods"]
    list_select_related = ["organization", "cluster"]


@admin.register(InstanceType)
class InstanceTypeAdmin(MicroscopeAdmin):
    """What a node of each type gives."""

    list_display = ["name", "arch", "vcpu", "memory_mib", "max_pods"]
    list_filter = ["arch", "category"]
    search_fields = ["name"]
    ordering = ["name"]


@admin.register(Price)
class PriceAdmin(MicroscopeAdmin):
    """The newest known price of each pool."""

    list_display = ["region", "zone_id", "instance_type", "capacity_type", "usd_per_hour", "observed_at"]
    list_filter = ["capacity_type", "source", "region"]
    search_fields = ["instance_type"]
    ordering = ["-observed_at"]


@admin.register(PoolState)
class PoolStateAdmin(MicroscopeAdmin):
    """Pools that are out of capacity."""

    list_display = ["zone_id", "instance_type", "capacity_type", "back_off_until", "last_error"]
    ordering = ["-updated_at"]


@admin.register(InterruptionRate)
class InterruptionRateAdmin(MicroscopeAdmin):
    """Spot Advisor's buckets."""

    list_display = ["region", "instance_type", "os", "bucket", "savings_percent", "fetched_at"]
    list_filter = ["bucket", "region"]
    search_fields = ["instance_type"]
    ordering = ["region", "instance_type"]
