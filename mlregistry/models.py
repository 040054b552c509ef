"""Registered interruption models and the experiments run with them."""

from typing import ClassVar, Self

from django.db import models
from django.db.models import Q

from spotopt.core.records import Record


class MLModel(Record):
    """One trained artefact; at most one is in production."""

    class Status(models.TextChoices):
        TESTING = "testing", "Testing"
        PRODUCTION = "production", "Production"
        DEPRECATED = "deprecated", "Deprecated"

    version = models.CharField(max_length=50, unique=True)
    file_path = models.CharField(max_length=512, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    status = models.CharField(max_length=20, choices=Status, default=Status.TESTING)
    performance_metrics = models.JSONField(default=dict, blank=True)
    validated_at = models.DateTimeField(null=True, blank=True)
    promoted_at = models.DateTimeField(null=True, blank=True)

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "ml_models"
        indexes = [models.Index(fields=["status"])]
        constraints = [
            models.UniqueConstraint(
                fields=["status"], condition=Q(status="production"), name="ml_models_one_in_production"
            ),
            models.CheckConstraint(
                condition=Q(status__in=["testing", "production", "deprecated"]), name="ml_models_status_known"
            ),
        ]

    def __str__(self) -> str:
        return self.version


class LabExperiment(Record):
    """One run of a model on a lab instance."""

    class TestType(models.TextChoices):
        LIVE_SWITCH = "live_switch", "Live switch"
        AB_TEST = "ab_test", "A/B test"
        REPLAY = "replay", "Replay"

    model = models.ForeignKey(MLModel, on_delete=models.PROTECT, related_name="experiments")
    instance_id = models.CharField(max_length=20, blank=True)
    test_type = models.CharField(max_length=50, choices=TestType)
    telemetry = models.JSONField(default=dict, blank=True)

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "lab_experiments"
        indexes = [models.Index(fields=["model", "-created_at"])]

    def __str__(self) -> str:
        return f"{self.test_type} of {self.model_id}"
