"""Spot nodes that AWS took back, or said it may take back."""

from django.db import models
from django.db.models import Q

from clusters.models.inventory import Cluster, Instance
from spotopt.core.records import Record
from spotopt.core.tenancy import TenantModel


class Interruption(Record, TenantModel):
    """One notice about one node, however often and by however many ways it was told."""

    class Kind(models.TextChoices):
        INTERRUPTION = "interruption", "Two-minute notice"
        REBALANCE = "rebalance", "Rebalance recommendation"

    class Source(models.TextChoices):
        AGENT = "agent", "Agent"
        QUEUE = "queue", "AWS event"
        SCAN = "scan", "Scan"

    class Status(models.TextChoices):
        OPEN = "open", "Under way"
        TAKEN = "taken", "AWS took the node"
        MOVED = "moved", "Replaced in time"
        WATCHED = "watched", "Noted only"
        FALSE_ALARM = "false_alarm", "False alarm"

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="interruptions")
    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="interruptions")
    kind = models.CharField(max_length=12, choices=Kind)
    source = models.CharField(max_length=10, choices=Source)
    """Who told first."""
    status = models.CharField(max_length=12, choices=Status, default=Status.OPEN)
    region = models.CharField(max_length=50)
    zone_id = models.CharField(max_length=20)
    instance_type = models.CharField(max_length=50)
    noticed_at = models.DateTimeField()
    deadline = models.DateTimeField(null=True, blank=True)
    is_verified = models.BooleanField(default=False)
    """AWS itself gave an interruption as the reason of the instance's end; a notice alone is only hearsay."""
    pods_at_notice = models.PositiveIntegerField(default=0)
    """Pods to move; those of daemon sets do not count."""
    replacement_decided_at = models.DateTimeField(null=True, blank=True)
    replacement_action_id = models.UUIDField(null=True, blank=True)
    """The Action that launches its replacement; null when none is needed or none could be chosen."""
    note = models.CharField(max_length=500, blank=True)
    """Why something was not done."""
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "interruptions"
        indexes = [
            models.Index(fields=["cluster", "-noticed_at"], name="idx_interruption_cluster_at"),
            models.Index(fields=["noticed_at"], name="idx_interruption_at"),
            models.Index(fields=["organization"], condition=Q(status="open"), name="idx_interruption_open"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["instance", "kind"], name="interruptions_once"),
            models.CheckConstraint(
                condition=Q(kind="rebalance") | Q(deadline__isnull=False), name="interruptions_have_deadline"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.instance_id}"
