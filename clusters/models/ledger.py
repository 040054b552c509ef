"""Money that was observed: booked savings, and the cost of a cluster over time."""

from django.db import models
from django.db.models import F, Q

from clusters.models.inventory import Cluster, Instance
from spotopt.core.records import Record
from spotopt.core.tenancy import TenantModel


class SavingsEntry(Record, TenantModel):
    """USD booked for one instance and one UTC hour: recorded price × observed hours.

    A ``removed`` entry is positive (a node that Spotopt took away is no longer billed); an ``added`` entry
    is negative (a node that Spotopt launched is). Their sum over a plan is what the plan saved.
    """

    class Kind(models.TextChoices):
        REMOVED = "removed", "Removed node"
        ADDED = "added", "Launched node"
        ASLEEP = "asleep", "Hibernated node"

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="savings")
    plan_id = models.UUIDField(null=True, blank=True)
    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="savings")
    kind = models.CharField(max_length=10, choices=Kind)
    hour = models.DateTimeField()
    """Start of the UTC hour that this entry belongs to."""
    booked_from = models.DateTimeField()
    booked_until = models.DateTimeField()
    usd_per_hour = models.DecimalField(max_digits=12, decimal_places=6)
    usd = models.DecimalField(max_digits=16, decimal_places=8)
    is_estimate = models.BooleanField(default=False)
    """Some of its hours were booked at a price that was estimated, not told by AWS."""
    formula = models.CharField(max_length=255)

    class Meta:
        db_table = "savings_entries"
        indexes = [
            models.Index(fields=["organization", "hour"], name="idx_savings_org_hour"),
            models.Index(fields=["cluster", "hour"], name="idx_savings_cluster_hour"),
            models.Index(fields=["plan_id"], name="idx_savings_plan"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["instance", "kind", "hour"], name="savings_entries_once"),
            models.CheckConstraint(
                condition=Q(booked_until__gte=F("booked_from")), name="savings_entries_period"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.usd} USD"


class ClusterSample(Record, TenantModel):
    """A cluster at one moment: cost, size and load; the raw material of every chart."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="samples")
    taken_at = models.DateTimeField()
    usd_per_hour = models.DecimalField(max_digits=14, decimal_places=6)
    nodes = models.PositiveIntegerField()
    spot_nodes = models.PositiveIntegerField()
    pods = models.PositiveIntegerField()
    pending_pods = models.PositiveIntegerField()
    cpu_capacity_millis = models.PositiveBigIntegerField(null=True, blank=True)
    cpu_requested_millis = models.PositiveBigIntegerField(null=True, blank=True)
    cpu_used_millis = models.PositiveBigIntegerField(null=True, blank=True)
    memory_capacity_mib = models.PositiveBigIntegerField(null=True, blank=True)
    memory_requested_mib = models.PositiveBigIntegerField(null=True, blank=True)
    memory_used_mib = models.PositiveBigIntegerField(null=True, blank=True)

    class Meta:
        db_table = "cluster_samples"
        constraints = [
            models.UniqueConstraint(fields=["cluster", "taken_at"], name="cluster_samples_once"),
        ]

    def __str__(self) -> str:
        return f"{self.usd_per_hour} USD/h at {self.taken_at}"
