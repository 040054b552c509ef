"""The only things that are ever executed, and what agents are told."""

from django.db import models
from django.db.models import F, Q

from clusters.models.inventory import Cluster
from spotopt.core.records import Record
from spotopt.core.tenancy import TenantModel


class Action(Record, TenantModel):
    """One change to a cluster. Its status moves only along ``clusters.domain.actions``."""

    class Kind(models.TextChoices):
        LAUNCH_NODE = "launch_node", "Launch node"
        TERMINATE_INSTANCE = "terminate_instance", "Terminate instance"
        SOFT_CORDON_NODE = "soft_cordon_node", "Steer new pods away"
        CORDON_NODE = "cordon_node", "Cordon node"
        UNCORDON_NODE = "uncordon_node", "Uncordon node"
        DRAIN_NODE = "drain_node", "Drain node"
        EVICT_POD = "evict_pod", "Evict pod"
        LABEL_NODE = "label_node", "Label node"
        UPDATE_DEPLOYMENT = "update_deployment", "Change a workload's resources"
        APPLY_KARPENTER = "apply_karpenter", "Apply a Karpenter object"
        DETACH_INSTANCE = "detach_instance", "Take out of its group"
        RESTORE_MINIMUM = "restore_minimum", "Restore a group's minimum size"

    class Route(models.TextChoices):
        AWS = "aws", "AWS"
        AGENT = "agent", "Agent"

    class Status(models.TextChoices):
        PENDING = "pending", "Pending"
        RUNNING = "running", "Running"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"
        REFUSED = "refused", "Refused"
        EXPIRED = "expired", "Expired"
        CANCELLED = "cancelled", "Cancelled"

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="actions")
    kind = models.CharField(max_length=30, choices=Kind)
    route = models.CharField(max_length=10, choices=Route)
    target = models.CharField(max_length=255)
    """Node name, instance id, group name, or the launch's name in its plan."""
    params = models.JSONField(default=dict, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    requested_by = models.CharField(max_length=255)
    plan_id = models.UUIDField(null=True, blank=True)
    idempotency_key = models.CharField(max_length=120)
    is_voluntary = models.BooleanField(default=True)
    """False for reactions to an interruption and for clean-up, which safe mode and pause let pass."""
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    claimed_by = models.CharField(max_length=100, blank=True)
    claimed_at = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField()
    asked = models.JSONField(default=dict, blank=True)
    """What AWS was asked for, written down before it hears of it: trying again asks the same."""
    finished_at = models.DateTimeField(null=True, blank=True)
    result = models.JSONField(default=dict, blank=True)
    error_code = models.CharField(max_length=100, blank=True)
    error_message = models.CharField(max_length=1024, blank=True)

    class Meta:
        db_table = "actions"
        indexes = [
            models.Index(fields=["cluster", "status"], name="idx_action_cluster_status"),
            models.Index(fields=["route", "status", "created_at"], name="idx_action_route_status"),
            models.Index(fields=["plan_id"], name="idx_action_plan"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["organization", "idempotency_key"], name="actions_key_once"),
            models.CheckConstraint(condition=Q(expires_at__gt=F("created_at")), name="actions_expire_later"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


class AgentConfig(Record, TenantModel):
    """The slice of policy that the agent of a cluster needs."""

    cluster = models.OneToOneField(Cluster, on_delete=models.PROTECT, related_name="agent_config")
    version = models.PositiveIntegerField(default=1)
    config = models.JSONField(default=dict)
    acknowledged_version = models.PositiveIntegerField(default=0)

    class Meta:
        db_table = "agent_configs"

    def __str__(self) -> str:
        return f"version {self.version} of {self.cluster_id}"


class ClusterEvent(Record, TenantModel):
    """Something that happened in a cluster, reported by its agent, AWS or a scan."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="events")
    event_id = models.CharField(max_length=80)
    event_type = models.CharField(max_length=60)
    severity = models.CharField(max_length=10, default="info")
    source = models.CharField(max_length=10, default="agent")
    payload = models.JSONField(default=dict, blank=True)
    occurred_at = models.DateTimeField()
    processed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "cluster_events"
        indexes = [models.Index(fields=["cluster", "-occurred_at"])]
        constraints = [
            models.UniqueConstraint(fields=["cluster", "event_id"], name="cluster_events_once"),
        ]

    def __str__(self) -> str:
        return self.event_type
