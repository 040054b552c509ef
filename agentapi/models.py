"""Agents: their keys, their presence, and the delivery of actions to them."""

from django.db import models
from django.db.models import F, Q

from clusters.models import Action, Cluster
from spotopt.core.records import Record
from spotopt.core.tenancy import TenantModel


class APIKey(Record, TenantModel):
    """A cluster's credential; only its SHA-256 is kept."""

    class Kind(models.TextChoices):
        BOOTSTRAP = "bootstrap", "Bootstrap"
        AGENT = "agent", "Agent"

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="api_keys")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.AGENT)
    key_hash = models.CharField(max_length=64, unique=True)
    key_prefix = models.CharField(max_length=8, db_index=True)
    description = models.CharField(max_length=255, blank=True)
    created_by = models.CharField(max_length=255, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, blank=True)
    """When a bootstrap key was exchanged; it works once."""
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_reason = models.CharField(max_length=255, blank=True)

    class Meta:
        db_table = "api_keys"

    def __str__(self) -> str:
        return f"{self.kind} {self.key_prefix}…"


class AgentInstance(Record, TenantModel):
    """A running agent; at most one leads a cluster."""

    class Status(models.TextChoices):
        ONLINE = "online", "Online"
        OFFLINE = "offline", "Offline"
        SUPERSEDED = "superseded", "Superseded"

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="agents")
    agent_id = models.CharField(max_length=64)
    version = models.CharField(max_length=40)
    k8s_version = models.CharField(max_length=40, blank=True)
    node_count = models.PositiveIntegerField(default=0)
    capabilities = models.JSONField(default=list, blank=True)
    registered_at = models.DateTimeField()
    last_heartbeat_at = models.DateTimeField(null=True, blank=True)
    health = models.JSONField(default=dict, blank=True)
    status = models.CharField(max_length=12, choices=Status, default=Status.ONLINE)

    class Meta:
        db_table = "agent_instances"
        constraints = [
            models.UniqueConstraint(fields=["cluster", "agent_id"], name="agent_instances_once"),
        ]

    def __str__(self) -> str:
        return self.agent_id


class AgentAction(Record, TenantModel):
    """The delivery of one Action to one agent: payload, signature, lease."""

    class Status(models.TextChoices):
        PENDING = "pending", "Pending"
        PICKED_UP = "picked_up", "Picked up"
        COMPLETED = "completed", "Completed"
        FAILED = "failed", "Failed"
        EXPIRED = "expired", "Expired"

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="agent_actions")
    action = models.OneToOneField(Action, on_delete=models.PROTECT, related_name="delivery")
    action_type = models.CharField(max_length=30)
    payload = models.JSONField(default=dict)
    nonce = models.CharField(max_length=64, unique=True)
    signature = models.CharField(max_length=128)
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    picked_up_by = models.CharField(max_length=64, blank=True)
    picked_up_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True, blank=True)
    result = models.JSONField(null=True, blank=True)
    error_message = models.CharField(max_length=1024, blank=True)
    is_late = models.BooleanField(default=False)

    class Meta:
        db_table = "agent_actions"
        indexes = [
            models.Index(fields=["cluster", "status"], name="idx_agent_action_cluster"),
            models.Index(fields=["expires_at"], name="idx_agent_action_expires"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(expires_at__gt=F("created_at")), name="agent_actions_expire_later"
            )
        ]

    def __str__(self) -> str:
        return f"{self.action_type} {self.status}"
