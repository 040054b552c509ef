"""Shapes of models and experiments."""

from rest_framework import serializers

from mlregistry.models import LabExperiment, MLModel
from spotopt.core.fields import Instant, RowSerializer


class MLModelSerializer(RowSerializer):
    """A registered interruption model."""

    uploaded_at = Instant(source="created_at", read_only=True)
    metrics = serializers.JSONField(source="performance_metrics", read_only=True)
    tests = serializers.IntegerField(read_only=True, help_text="Experiments run with it.")

    class Meta:
        model = MLModel
        fields = ["id", "version", "status", "uploaded_at", "validated_at", "promoted_at", "metrics", "tests"]


class LabExperimentSerializer(RowSerializer):
    """One run of a model on a lab instance."""

    model_version = serializers.CharField(source="model.version", read_only=True)

    class Meta:
        model = LabExperiment
        fields = ["id", "model_id", "model_version", "instance_id", "test_type", "telemetry", "created_at"]
