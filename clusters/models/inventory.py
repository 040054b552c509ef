"""What exists: clusters, node groups, instances, and what runs on them."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from accounts.models import Account
from spotopt.core.records import Record
from spotopt.core.tenancy import TenantModel


class Cluster(Record, TenantModel):
    """An EKS cluster."""

    class Status(models.TextChoices):
        DISCOVERED = "discovered", "Discovered"
        PENDING = "pending", "Waiting for the agent"
        ACTIVE = "active", "Active"
        INACTIVE = "inactive", "Inactive"
        ERROR = "error", "Error"

    class Environment(models.TextChoices):
        PROD = "prod", "Production"
        STAGING = "staging", "Staging"
        DEV = "dev", "Development"
        OTHER = "other", "Other"

    class Karpenter(models.TextChoices):
        UNKNOWN = "", "Not known"
        RUNNING = "running", "Runs"
        ABSENT = "absent", "Not installed"
        FORBIDDEN = "forbidden", "The agent may not read it"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="clusters")
    name = models.CharField(max_length=255)
    region = models.CharField(max_length=50)
    arn = models.CharField(max_length=255, blank=True)
    vpc_id = models.CharField(max_length=50, blank=True)
    api_endpoint = models.CharField(max_length=255, blank=True)
    k8s_version = models.CharField(max_length=20, blank=True)
    status = models.CharField(max_length=20, choices=Status, default=Status.DISCOVERED)
    environment = models.CharField(max_length=10, choices=Environment, default=Environment.OTHER)
    tags = models.JSONField(default=dict, blank=True)
    agent_installed = models.BooleanField(default=False)
    agent_version = models.CharField(max_length=40, blank=True)
    last_heartbeat_at = models.DateTimeField(null=True, blank=True)
    snapshot_at = models.DateTimeField(null=True, blank=True)
    """When the agent last reported what runs."""
    snapshot_sequence = models.BigIntegerField(default=0)
    pod_count = models.PositiveIntegerField(default=0)
    pending_pods = models.PositiveIntegerField(default=0)
    unknown_nodes = ArrayField(models.CharField(max_length=400), default=list, blank=True)
    """Nodes that the agent reports and no scan has found yet."""
    unknown_nodes_scan_at = models.DateTimeField(null=True, blank=True)
    """When such nodes last made us ask for a scan."""
    karpenter = models.CharField(max_length=10, choices=Karpenter, blank=True, default=Karpenter.UNKNOWN)
    """Whether Karpenter runs there, as the agent last reported."""
    maintenance_mode = models.BooleanField(default=False)
    """Pause: no voluntary act touches the cluster while this is set."""
    maintenance_reason = models.CharField(max_length=255, blank=True)
    monthly_budget = models.DecimalField(max_digits=14, decimal_places=2, null=True, blank=True)
    last_synced_at = models.DateTimeField(null=True, blank=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "clusters"
        indexes = [
            models.Index(fields=["organization", "name"]),
            models.Index(fields=["region"]),
            models.Index(fields=["status"]),
        ]
        constraints = [
            models.UniqueConstraint(fields=["account", "region", "name"], name="clusters_name_once"),
            models.UniqueConstraint(
                fields=["account", "arn"], condition=~Q(arn=""), name="clusters_arn_once_per_account"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class NodeGroup(Record, TenantModel):
    """A set of nodes that something scales: AWS, Karpenter or Spotopt itself."""

    class Kind(models.TextChoices):
        ASG = "asg", "Auto Scaling group"
        MANAGED = "managed_nodegroup", "Managed node group"
        KARPENTER = "karpenter_nodepool", "Karpenter node pool"
        SPOTOPT = "spotopt", "Spotopt"

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="node_groups")
    name = models.CharField(max_length=255)
    kind = models.CharField(max_length=30, choices=Kind)
    asg_name = models.CharField(max_length=255, blank=True)
    launch_template_id = models.CharField(max_length=64, blank=True)
    launch_template_version = models.CharField(max_length=20, blank=True)
    subnet_ids = ArrayField(models.CharField(max_length=32), default=list, blank=True)
    instance_types = ArrayField(models.CharField(max_length=50), default=list, blank=True)
    min_size = models.PositiveIntegerField(default=0)
    desired_capacity = models.PositiveIntegerField(default=0)
    max_size = models.PositiveIntegerField(default=0)
    original_min_size = models.PositiveIntegerField(null=True, blank=True)
    """Minimum before Spotopt lowered it; null when it never did, or when a person had it restored."""
    keeps_minimum = models.BooleanField(default=False)
    """Set when a person had the minimum restored: plans never lower it again."""
    stilled_at = models.DateTimeField(null=True, blank=True)
    """When Spotopt last kept the group from evening out its zones; null when it does not."""
    spot_enabled = models.BooleanField(default=False)
    labels = models.JSONField(default=dict, blank=True)
    taints = models.JSONField(default=list, blank=True)
    last_seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "node_groups"
        constraints = [
            models.UniqueConstraint(fields=["cluster", "name"], name="node_groups_name_once"),
            models.CheckConstraint(
                condition=Q(kind="spotopt")
                | Q(min_size__lte=F("desired_capacity"), desired_capacity__lte=F("max_size")),
                name="node_groups_min_desired_max",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class NodePool(Record, TenantModel):
    """One of Karpenter's NodePools, as the agent last reported it: the customer's, or ours beside it."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="node_pools")
    name = models.CharField(max_length=253)
    spec = models.JSONField(default=dict)
    is_ours = models.BooleanField(default=False)
    steers = models.CharField(max_length=253, blank=True)
    """Of one of ours, the customer's pool that it stands beside."""
    used = models.JSONField(default=dict, blank=True)
    """Capacity of its nodes by resource; ``nodes`` counts them."""
    managers = models.JSONField(default=dict, blank=True)
    """Who else manages which of the fields that we would set."""
    reported_at = models.DateTimeField()

    class Meta:
        db_table = "node_pools"
        constraints = [models.UniqueConstraint(fields=["cluster", "name"], name="node_pools_name_once")]

    def __str__(self) -> str:
        return self.name


class Instance(Record, TenantModel):
    """An EC2 instance; a node when it belongs to a cluster. Never deleted, only marked terminated.

    An AWS account that one organization let go and another linked has a row of the same id in each.
    """

    class Lifecycle(models.TextChoices):
        SPOT = "spot", "Spot"
        ON_DEMAND = "on_demand", "On-demand"

    class State(models.TextChoices):
        PENDING = "pending", "Pending"
        RUNNING = "running", "Running"
        STOPPING = "stopping", "Stopping"
        STOPPED = "stopped", "Stopped"
        TERMINATED = "terminated", "Terminated"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="instances")
    cluster = models.ForeignKey(
        Cluster, null=True, blank=True, on_delete=models.PROTECT, related_name="instances"
    )
    node_group = models.ForeignKey(
        NodeGroup, null=True, blank=True, on_delete=models.SET_NULL, related_name="instances"
    )
    instance_id = models.CharField(max_length=20, db_index=True)
    instance_type = models.CharField(max_length=50)
    lifecycle = models.CharField(max_length=10, choices=Lifecycle)
    region = models.CharField(max_length=50)
    az = models.CharField(max_length=50)
    az_id = models.CharField(max_length=20, blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING)
    price = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True)
    """USD per hour, last observed; null when no price is known."""
    price_is_estimate = models.BooleanField(default=False)
    launched_at = models.DateTimeField()
    terminated_at = models.DateTimeField(null=True, blank=True)
    termination_reason = models.CharField(max_length=255, blank=True)
    last_seen_at = models.DateTimeField(null=True, blank=True)
    launch_action_id = models.UUIDField(null=True, blank=True)
    """The Action that launched it, from its ``spotopt:action-id`` tag."""
    changed_by_plan_id = models.UUIDField(null=True, blank=True)
    """The plan that launched or removed it, under which its saving is booked."""
    requests_baseline_millis = models.PositiveBigIntegerField(null=True, blank=True)
    """CPU that the cluster requested when Spotopt launched or removed this instance."""
    booking_ended_at = models.DateTimeField(null=True, blank=True)
    """When its saving stopped being booked because the workload changed."""

    node_name = models.CharField(max_length=255, blank=True)
    is_ready = models.BooleanField(default=False)
    is_cordoned = models.BooleanField(default=False)
    cpu_allocatable_millis = models.PositiveIntegerField(null=True, blank=True)
    memory_allocatable_mib = models.PositiveIntegerField(null=True, blank=True)
    pods_allocatable = models.PositiveIntegerField(null=True, blank=True)
    cpu_requested_millis = models.PositiveIntegerField(null=True, blank=True)
    memory_requested_mib = models.PositiveIntegerField(null=True, blank=True)
    pod_count = models.PositiveIntegerField(default=0)
    daemon_cpu_millis = models.PositiveIntegerField(default=0)
    daemon_memory_mib = models.PositiveIntegerField(default=0)
    daemon_pods = models.PositiveIntegerField(default=0)
    gpu_allocatable = models.PositiveIntegerField(default=0)
    ephemeral_allocatable_mib = models.PositiveIntegerField(default=0)
    daemon_ephemeral_mib = models.PositiveIntegerField(default=0)
    cpu_util = models.FloatField(null=True, blank=True)
    """Percent of allocatable CPU in use; null when nobody measured it."""
    memory_util = models.FloatField(null=True, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    taints = models.JSONField(default=list, blank=True)
    node_seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "instances"
        indexes = [
            models.Index(fields=["cluster", "lifecycle"], name="idx_instance_cluster_lifecycle"),
            models.Index(fields=["cluster", "instance_type"], name="idx_instance_cluster_type"),
            models.Index(fields=["organization", "state"], name="idx_instance_org_state"),
            models.Index(fields=["cluster", "node_name"], name="idx_instance_cluster_node"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["account", "instance_id"], name="instances_once_per_account"),
            models.CheckConstraint(
                condition=Q(instance_id__regex=r"^i-[0-9a-f]{8}([0-9a-f]{9})?$"), name="instances_id_form"
            ),
            models.CheckConstraint(
                condition=Q(state="terminated") | Q(terminated_at__isnull=True),
                name="instances_terminated_has_state",
            ),
        ]

    def __str__(self) -> str:
        return self.instance_id


class Workload(Record, TenantModel):
    """A controller and the shape of its pods, as the agent last reported it."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="workloads")
    key = models.CharField(max_length=400)
    """``namespace/kind/name``, or ``namespace/Pod/name`` for a bare pod."""
    namespace = models.CharField(max_length=63)
    kind = models.CharField(max_length=40)
    name = models.CharField(max_length=253)
    replicas = models.PositiveIntegerField(default=0)
    ready_replicas = models.PositiveIntegerField(default=0)
    pending_replicas = models.PositiveIntegerField(default=0)
    cpu_request_millis = models.PositiveIntegerField(default=0)
    memory_request_mib = models.PositiveIntegerField(default=0)
    gpu_request = models.PositiveIntegerField(default=0)
    ephemeral_request_mib = models.PositiveIntegerField(default=0)
    cpu_used_millis = models.PositiveIntegerField(null=True, blank=True)
    memory_used_mib = models.PositiveIntegerField(null=True, blank=True)
    constraints = models.JSONField(default=dict, blank=True)
    """Selectors, affinity, tolerations, spread and marks; the shape is ``agentapi.protocol``'s."""
    budget_count = models.PositiveSmallIntegerField(default=0)
    budget_allows = models.PositiveIntegerField(null=True, blank=True)
    budget_minimum = models.PositiveIntegerField(default=0)
    reported_at = models.DateTimeField()

    class Meta:
        db_table = "workloads"
        constraints = [models.UniqueConstraint(fields=["cluster", "key"], name="workloads_key_once")]

    def __str__(self) -> str:
        return self.key


class Placement(TenantModel):
    """How many pods of one workload run on one instance."""

    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="placements")
    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="placements")
    count = models.PositiveIntegerField()

    class Meta:
        db_table = "placements"
        constraints = [
            models.UniqueConstraint(fields=["workload", "instance"], name="placements_once"),
            models.CheckConstraint(condition=Q(count__gt=0), name="placements_count_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.count}×{self.workload_id} on {self.instance_id}"


class DiscoveryRun(Record, TenantModel):
    """One scan of one AWS account, with its progress."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Queued"
        SCANNING = "scanning", "Scanning"
        COMPLETED = "completed", "Completed"
        PARTIAL = "partial", "Partial"
        FAILED = "failed", "Failed"

    class Trigger(models.TextChoices):
        INITIAL = "initial", "First scan"
        SCHEDULE = "schedule", "Schedule"
        MANUAL = "manual", "By hand"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="discovery_runs")
    trigger = models.CharField(max_length=10, choices=Trigger)
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    progress = models.PositiveSmallIntegerField(default=0)
    current_region = models.CharField(max_length=50, blank=True)
    regions_total = models.PositiveSmallIntegerField(default=0)
    regions_done = models.PositiveSmallIntegerField(default=0)
    clusters_found = models.PositiveIntegerField(default=0)
    instances_found = models.PositiveIntegerField(default=0)
    new_count = models.PositiveIntegerField(default=0)
    changed_count = models.PositiveIntegerField(default=0)
    terminated_count = models.PositiveIntegerField(default=0)
    errors = models.JSONField(default=dict, blank=True)
    """Message by region."""
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "discovery_runs"
        indexes = [models.Index(fields=["account", "-created_at"])]
        constraints = [
            models.UniqueConstraint(
                fields=["account"],
                condition=Q(status__in=["queued", "scanning"]),
                name="discovery_runs_one_at_a_time",
            ),
            models.CheckConstraint(condition=Q(progress__lte=100), name="discovery_runs_percent"),
        ]

    def __str__(self) -> str:
        return f"{self.status} {self.progress} %"
