"""The tamper-evident record: append-only rows, chained by hash for each organization."""

from typing import ClassVar, Self

import pgtrigger
from django.db import models

from spotopt.core.records import Record
from spotopt.core.tenancy import TenantModel


class AuditChain(models.Model):
    """The last link of each organization's chain; locked while a row is appended."""

    key = models.CharField(max_length=36, primary_key=True)
    """Organization id, or ``platform``."""
    seq = models.BigIntegerField(default=0)
    row_hash = models.CharField(max_length=64, default="0" * 64)

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "audit_chains"

    def __str__(self) -> str:
        return f"{self.key}#{self.seq}"


class AuditLog(Record, TenantModel):
    """One event that happened; never changed, never deleted by the application."""

    class Outcome(models.TextChoices):
        SUCCESS = "success", "Success"
        FAILED = "failed", "Failed"
        DENIED = "denied", "Denied"

    class ActorType(models.TextChoices):
        USER = "user", "User"
        SYSTEM = "system", "System"
        AGENT = "agent", "Agent"
        ADMIN = "admin", "Admin"

    organization = models.ForeignKey(  # type: ignore[assignment]  # null only for platform events
        "accounts.Organization", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    timestamp = models.DateTimeField()
    seq = models.BigIntegerField()
    prev_hash = models.CharField(max_length=64)
    row_hash = models.CharField(max_length=64)
    event = models.CharField(max_length=255)
    sentence = models.CharField(max_length=500)
    """The event in plain English, as the activity feed shows it."""
    actor_type = models.CharField(max_length=10, choices=ActorType)
    actor_id = models.CharField(max_length=64, blank=True)
    actor_label = models.CharField(max_length=255)
    resource_type = models.CharField(max_length=30)
    resource_id = models.CharField(max_length=255, blank=True)
    resource_label = models.CharField(max_length=255, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome, default=Outcome.SUCCESS)
    account_id = models.UUIDField(null=True, blank=True)
    cluster_id = models.UUIDField(null=True, blank=True)
    ip_address = models.GenericIPAddressField(null=True, blank=True)
    user_agent = models.CharField(max_length=512, blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    usd_per_hour = models.DecimalField(max_digits=14, decimal_places=6, null=True, blank=True)
    """Saving (positive) or cost (negative) that the event brought, where it brought one."""
    announced_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "audit_logs"
        indexes = [
            models.Index(fields=["-timestamp"], name="idx_audit_timestamp_desc"),
            models.Index(fields=["organization", "-timestamp"], name="idx_audit_organization_time"),
            models.Index(fields=["actor_id", "-timestamp"], name="idx_audit_actor_timestamp"),
            models.Index(fields=["resource_type", "-timestamp"], name="idx_audit_resource_timestamp"),
            models.Index(fields=["cluster_id", "-timestamp"], name="idx_audit_cluster_timestamp"),
            models.Index(
                fields=["timestamp"],
                condition=models.Q(announced_at__isnull=True),
                name="idx_audit_unannounced",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["organization", "seq"], name="audit_logs_seq_once"),
        ]
        triggers = [
            pgtrigger.Protect(name="no_delete", operation=pgtrigger.Delete),
            pgtrigger.Protect(
                name="no_rewrite",
                operation=pgtrigger.Update,
                condition=pgtrigger.AnyChange(exclude=["announced_at"]),
            ),
        ]

    def __str__(self) -> str:
        return self.sentence
