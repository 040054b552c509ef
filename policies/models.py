"""Templates and policies, the runs of the optimizer, and the plans it proposes."""

from decimal import Decimal

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from accounts.models import User
from clusters.domain.actions import OPEN
from clusters.models import Action, Cluster
from spotopt.core import crypto
from spotopt.core.records import Record
from spotopt.core.tenancy import TenantModel


class NodeTemplate(Record, TenantModel):
    """The boundary around what may be launched: families, sizes, architecture, capacity, disk."""

    class Architecture(models.TextChoices):
        X86_64 = "x86_64", "x86_64"
        ARM64 = "arm64", "arm64"

    class Strategy(models.TextChoices):
        CHEAPEST = "cheapest", "Cheapest"
        BALANCED = "balanced", "Balanced"
        PERFORMANCE = "performance", "Performance"

    class CapacityType(models.TextChoices):
        SPOT = "spot", "Spot"
        ON_DEMAND = "on_demand", "On-demand"
        HYBRID = "hybrid", "Hybrid"

    class DiskType(models.TextChoices):
        GP3 = "gp3", "gp3"
        GP2 = "gp2", "gp2"
        IO1 = "io1", "io1"
        IO2 = "io2", "io2"

    class SpotAllocation(models.TextChoices):
        LOWEST_PRICE = "lowest_price", "Lowest price"
        CAPACITY_OPTIMIZED = "capacity_optimized", "Capacity optimized"

    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    name = models.CharField(max_length=255)
    description = models.TextField(blank=True)
    families = ArrayField(models.CharField(max_length=30))
    excluded_sizes = ArrayField(models.CharField(max_length=30), default=list, blank=True)
    architecture = models.CharField(max_length=10, choices=Architecture, default=Architecture.X86_64)
    strategy = models.CharField(max_length=20, choices=Strategy, default=Strategy.BALANCED)
    capacity_type = models.CharField(max_length=20, choices=CapacityType, default=CapacityType.SPOT)
    hybrid_spot_percentage = models.PositiveSmallIntegerField(default=50)
    disk_type = models.CharField(max_length=10, choices=DiskType, default=DiskType.GP3)
    disk_size = models.PositiveIntegerField(default=100)
    """GiB."""
    iops = models.PositiveIntegerField(null=True, blank=True)
    throughput_mibps = models.PositiveIntegerField(null=True, blank=True)
    needs_instance_store = models.BooleanField(default=False)
    spot_allocation = models.CharField(
        max_length=20, choices=SpotAllocation, default=SpotAllocation.CAPACITY_OPTIMIZED
    )
    version = models.PositiveIntegerField(default=1)
    is_default = models.BooleanField(default=False)
    is_system = models.BooleanField(default=False)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "node_templates"
        constraints = [
            models.UniqueConstraint(
                "organization", Lower("name"), condition=Q(deleted_at=None), name="node_templates_name_once"
            ),
            models.UniqueConstraint(
                fields=["organization"],
                condition=Q(is_default=True, deleted_at=None),
                name="node_templates_one_default",
            ),
            models.CheckConstraint(
                condition=Q(disk_size__gte=10, disk_size__lte=16000), name="node_templates_disk_size"
            ),
            models.CheckConstraint(
                condition=Q(hybrid_spot_percentage__lte=100), name="node_templates_hybrid_percent"
            ),
            models.CheckConstraint(condition=Q(families__len__gt=0), name="node_templates_has_family"),
        ]

    def __str__(self) -> str:
        return self.name


class ClusterPolicy(Record, TenantModel):
    """How Spotopt may treat one cluster: a versioned document within a template's boundary."""

    class Mode(models.TextChoices):
        RECOMMEND = "recommend", "Recommend"
        AUTOMATIC = "automatic", "Automatic"

    cluster = models.OneToOneField(Cluster, on_delete=models.PROTECT, related_name="cluster_policy")
    template = models.ForeignKey(NodeTemplate, on_delete=models.PROTECT, related_name="policies")
    config = models.JSONField(default=dict)
    mode = models.CharField(max_length=20, choices=Mode, default=Mode.RECOMMEND)
    is_active = models.BooleanField(default=True)
    version = models.PositiveIntegerField(default=1)
    updated_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        db_table = "cluster_policies"

    def __str__(self) -> str:
        return f"policy of {self.cluster_id}, version {self.version}"


class PolicyRevision(Record, TenantModel):
    """What a policy said at one version, who made it say so, and what they changed."""

    policy = models.ForeignKey(ClusterPolicy, on_delete=models.PROTECT, related_name="revisions")
    version = models.PositiveIntegerField()
    document = models.JSONField()
    """Mode, switch, template id and config, as ``policies.services.policies`` writes them."""
    diff = models.JSONField(default=list)
    """``[{"field", "old_value", "new_value", "change_type"}]`` against the version before."""
    changed_by = models.CharField(max_length=255)

    class Meta:
        db_table = "policy_revisions"
        constraints = [
            models.UniqueConstraint(fields=["policy", "version"], name="policy_revisions_version_once")
        ]

    def __str__(self) -> str:
        return f"version {self.version} of {self.policy_id}"


class WorkerJob(Record, TenantModel):
    """Something that a worker computes, with progress; whoever asked may cancel it."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        COMPLETED = "completed", "Completed"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    requested_by = models.CharField(max_length=255)
    phase = models.CharField(max_length=60, blank=True)
    progress_percent = models.PositiveSmallIntegerField(default=0)
    error_message = models.CharField(max_length=500, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    completed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True

    @property
    def is_under_way(self) -> bool:
        """Tell whether it waits for a worker or has one."""
        return self.status in UNFINISHED


UNFINISHED = (WorkerJob.Status.QUEUED, WorkerJob.Status.RUNNING)


class OptimizationJob(WorkerJob):
    """One run of the optimizer on one cluster."""

    class Trigger(models.TextChoices):
        MANUAL = "manual", "By hand"
        DISCOVERY = "discovery", "After a scan"
        EVENT = "event", "Event"

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="optimization_jobs")
    trigger = models.CharField(max_length=10, choices=Trigger, default=Trigger.MANUAL)
    results = models.JSONField(default=dict, blank=True)

    class Meta:
        db_table = "optimization_jobs"
        indexes = [
            models.Index(fields=["cluster", "status"], name="idx_job_cluster_status"),
            models.Index(fields=["-created_at"], name="idx_job_created_desc"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["cluster"],
                condition=Q(status__in=["queued", "running"]),
                name="optimization_jobs_one_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.status} job of {self.cluster_id}"


class WhatIf(WorkerJob):
    """One cluster under several sets of rules and prices, side by side; nothing of it is carried out."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="what_ifs")
    scenarios = models.JSONField(default=list)
    """What was asked, as ``policies.services.scenarios`` writes it; the cluster as it is comes first."""
    outcomes = models.JSONField(default=list, blank=True)
    """One for each scenario that is done, as ``policies.domain.whatif`` names the figures."""
    quoted_at = models.DateTimeField(null=True, blank=True)
    snapshot_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "what_ifs"
        indexes = [models.Index(fields=["cluster", "-created_at"], name="idx_what_if_cluster_created")]
        constraints = [
            models.UniqueConstraint(
                fields=["cluster"],
                condition=Q(status__in=["queued", "running"]),
                name="what_ifs_one_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"{self.status} what-if of {self.cluster_id}"


class Plan(Record, TenantModel):
    """What one job proposes, and how far its execution has come."""

    class Status(models.TextChoices):
        PROPOSED = "proposed", "Waiting for approval"
        APPROVED = "approved", "Approved"
        RUNNING = "running", "Running"
        STOPPING = "stopping", "Stopping safely"
        COMPLETED = "completed", "Completed"
        STOPPED = "stopped", "Stopped safely"
        REJECTED = "rejected", "Rejected"
        SUPERSEDED = "superseded", "Superseded"
        EXPIRED = "expired", "Expired"

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="plans")
    job = models.OneToOneField(OptimizationJob, on_delete=models.PROTECT, related_name="plan")
    policy_version = models.PositiveIntegerField()
    status = models.CharField(max_length=12, choices=Status, default=Status.PROPOSED)
    quoted_at = models.DateTimeField()
    usd_per_hour_before = models.DecimalField(max_digits=14, decimal_places=6)
    usd_per_hour_after = models.DecimalField(max_digits=14, decimal_places=6)
    lower_bound_usd_per_hour = models.DecimalField(max_digits=14, decimal_places=6)
    spot_replacement_usd_per_hour = models.DecimalField(max_digits=14, decimal_places=6)
    bin_packing_usd_per_hour = models.DecimalField(max_digits=14, decimal_places=6)
    risk = models.FloatField()
    nodes_before = models.PositiveIntegerField()
    nodes_after = models.PositiveIntegerField()
    pods_moved = models.PositiveIntegerField()
    document = models.JSONField()
    """The whole proposal: waves, launches and removals as ``policies.domain.plan`` names them."""
    refusals = models.JSONField(default=list)
    constraint_prices = models.JSONField(default=dict, blank=True)
    """What each binding constraint costs, as ``policies.services.explaining`` writes it; empty at first."""
    decided_by = models.CharField(max_length=255, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    stop_reason = models.CharField(max_length=500, blank=True)
    stop_code = models.CharField(max_length=40, blank=True)
    """The reason as a name, where what follows depends on it."""
    waiting_before = models.JSONField(default=dict, blank=True)
    """How many pods of each workload, by its key, waited for a place when the plan began."""

    class Meta:
        db_table = "plans"
        indexes = [
            models.Index(fields=["cluster", "-created_at"], name="idx_plan_cluster_created"),
            models.Index(fields=["status"], name="idx_plan_status"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["cluster"],
                condition=Q(status__in=["approved", "running", "stopping"]),
                name="plans_one_running",
            )
        ]

    def __str__(self) -> str:
        return f"{self.status} plan of {self.cluster_id}"

    @property
    def usd_per_hour_saved(self) -> Decimal:
        """Return what the plan promised to save, USD per hour."""
        return self.usd_per_hour_before - self.usd_per_hour_after


class PlanStep(Record, TenantModel):
    """One step of a plan; it becomes one or more actions."""

    class Kind(models.TextChoices):
        LAUNCH = "launch", "Launch node"
        CORDON = "cordon", "Cordon node"
        DRAIN = "drain", "Drain node"
        TERMINATE = "terminate", "Terminate instance"
        VERIFY = "verify", "Verify"

    class Status(models.TextChoices):
        PLANNED = "planned", "Planned"
        RUNNING = "running", "Running"
        COMPLETED = "completed", "Completed"
        FAILED = "failed", "Failed"
        REFUSED = "refused", "Refused"
        SKIPPED = "skipped", "Skipped"
        ROLLED_BACK = "rolled_back", "Rolled back"

    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="steps")
    seq = models.PositiveIntegerField()
    wave = models.PositiveIntegerField()
    kind = models.CharField(max_length=12, choices=Kind)
    target = models.CharField(max_length=255)
    params = models.JSONField(default=dict, blank=True)
    usd_per_hour = models.DecimalField(max_digits=12, decimal_places=6, default=0)
    status = models.CharField(max_length=12, choices=Status, default=Status.PLANNED)
    action = models.ForeignKey(
        Action, null=True, blank=True, on_delete=models.PROTECT, related_name="plan_steps"
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    note = models.CharField(max_length=500, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "plan_steps"
        constraints = [models.UniqueConstraint(fields=["plan", "seq"], name="plan_steps_seq_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


class PoolSteering(Record, TenantModel):
    """What Karpenter is to be told beside one of the customer's node pools, and what was asked for last."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="pool_steerings")
    pool = models.CharField(max_length=253)
    """The customer's node pool."""
    name = models.CharField(max_length=262)
    """Of our node pool beside it."""
    manifest = models.JSONField(null=True)
    """The object that is wanted; null where nothing is to be applied."""
    code = models.CharField(max_length=40)
    """``steered``, or why the pool is left alone, as ``policies.domain.karpenter`` names it."""
    sentence = models.CharField(max_length=500)
    is_met = models.BooleanField(default=True)
    """Whether the newest report shows what is wanted."""
    hold = models.CharField(max_length=500, blank=True)
    """Why it could not be asked for now; empty when nothing holds it."""
    action = models.ForeignKey(Action, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    """The last that was asked for."""
    asked = models.CharField(max_length=64, blank=True)
    """Digest of what that was to change into what."""
    revision = models.PositiveIntegerField(default=0)
    """How often something was asked for."""
    looked_at = models.DateTimeField()

    class Meta:
        db_table = "pool_steerings"
        constraints = [models.UniqueConstraint(fields=["cluster", "pool"], name="pool_steerings_pool_once")]

    def __str__(self) -> str:
        return f"{self.name}: {self.code}"

    @property
    def fingerprint(self) -> str:
        """Return what tells the wanted object from any other."""
        return crypto.fingerprint(self.manifest)

    @property
    def is_under_way(self) -> bool:
        """Tell whether the last act is not over, or no report has shown yet what it did."""
        if self.action is None or self.action.status in OPEN:
            return self.action is not None
        seen, done = self.cluster.snapshot_at, self.action.finished_at
        return self.action.status == Action.Status.SUCCEEDED and bool(seen and done and seen <= done)
