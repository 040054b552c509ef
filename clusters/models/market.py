"""What could be bought: types, prices, interruption rates and the state of pools. Shared by all tenants."""

from typing import ClassVar, Self

from django.db import models

from spotopt.core.records import Record


class InstanceType(models.Model):
    """One EC2 instance type and what a node of it gives to pods."""

    name = models.CharField(max_length=50, primary_key=True)
    family = models.CharField(max_length=30)
    size = models.CharField(max_length=30)
    category = models.CharField(max_length=10)
    generation = models.PositiveSmallIntegerField()
    arch = models.CharField(max_length=10)
    vcpu = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    gpu_count = models.PositiveSmallIntegerField(default=0)
    is_burstable = models.BooleanField(default=False)
    is_bare_metal = models.BooleanField(default=False)
    is_current_generation = models.BooleanField(default=True)
    is_spot_supported = models.BooleanField(default=True)
    max_pods = models.PositiveIntegerField()
    cpu_allocatable_millis = models.PositiveIntegerField()
    memory_allocatable_mib = models.PositiveIntegerField()
    coremark = models.FloatField(null=True, blank=True)

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "instance_types"
        indexes = [models.Index(fields=["family"])]

    def __str__(self) -> str:
        return self.name


class Price(Record):
    """The newest known price of a pool; on-demand prices have no zone."""

    class Source(models.TextChoices):
        AWS = "aws", "AWS"
        BUNDLED = "bundled", "Bundled price list"
        ESTIMATE = "estimate", "Estimate"

    region = models.CharField(max_length=50)
    zone_id = models.CharField(max_length=20, blank=True)
    instance_type = models.CharField(max_length=50)
    capacity_type = models.CharField(max_length=10)
    usd_per_hour = models.DecimalField(max_digits=12, decimal_places=6)
    observed_at = models.DateTimeField()
    source = models.CharField(max_length=10, choices=Source)
    low_usd_per_hour = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True)
    high_usd_per_hour = models.DecimalField(max_digits=12, decimal_places=6, null=True, blank=True)
    """Lowest and highest spot price of the trailing day; null until a day was observed."""

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "prices"
        constraints = [
            models.UniqueConstraint(
                fields=["region", "instance_type", "capacity_type", "zone_id"], name="prices_pool_once"
            ),
            models.CheckConstraint(condition=models.Q(usd_per_hour__gt=0), name="prices_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.instance_type} {self.zone_id or self.region} {self.usd_per_hour}"


class PoolState(Record):
    """Back-off and risk flags of one pool (zone id × type × capacity type)."""

    region = models.CharField(max_length=50)
    zone_id = models.CharField(max_length=20)
    instance_type = models.CharField(max_length=50)
    capacity_type = models.CharField(max_length=10)
    back_off_until = models.DateTimeField(null=True, blank=True)
    back_off_seconds = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=255, blank=True)
    flagged_until = models.DateTimeField(null=True, blank=True)
    """Until then the pool counts as dangerous: AWS took a node of it back."""

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "pool_states"
        constraints = [
            models.UniqueConstraint(
                fields=["zone_id", "instance_type", "capacity_type"], name="pool_states_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.zone_id}:{self.instance_type}:{self.capacity_type}"


class InterruptionRate(Record):
    """Spot Advisor's bucket of a type in a region: 0 is under 5 % a month, 4 is over 20 %."""

    region = models.CharField(max_length=50)
    instance_type = models.CharField(max_length=50)
    os = models.CharField(max_length=10, default="Linux")
    bucket = models.PositiveSmallIntegerField()
    savings_percent = models.PositiveSmallIntegerField()
    fetched_at = models.DateTimeField()

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "interruption_rates"
        constraints = [
            models.UniqueConstraint(fields=["region", "instance_type", "os"], name="interruption_rates_once"),
            models.CheckConstraint(condition=models.Q(bucket__lte=4), name="interruption_rates_bucket"),
        ]

    def __str__(self) -> str:
        return f"{self.instance_type} {self.region} bucket {self.bucket}"
