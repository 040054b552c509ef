"""API doors of the model registry, for the platform's staff (E069, E077)."""

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.viewsets import ReadOnlyModelViewSet

from accounts.permissions import SuperAdminsOnly
from mlregistry import selectors
from mlregistry.models import LabExperiment, MLModel
from mlregistry.serializers import LabExperimentSerializer, MLModelSerializer
from spotopt.core.openapi import answers, page_of


@extend_schema_view(
    list=extend_schema(summary="List models", responses=answers(200, page_of("models", MLModelSerializer))),
    retrieve=extend_schema(summary="Read a model", responses=answers(200, MLModelSerializer, 404)),
)
class MLModelViewSet(ReadOnlyModelViewSet[MLModel]):
    """Interruption models; at most one is in production."""

    collection = "models"
    serializer_class = MLModelSerializer
    permission_classes = [SuperAdminsOnly]
    filterset_fields = ["status"]
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[MLModel]:
        """Return every model, newest first."""
        return selectors.models()


@extend_schema_view(
    list=extend_schema(
        summary="List experiments", responses=answers(200, page_of("experiments", LabExperimentSerializer))
    ),
    retrieve=extend_schema(
        summary="Read an experiment", responses=answers(200, LabExperimentSerializer, 404)
    ),
)
class LabExperimentViewSet(ReadOnlyModelViewSet[LabExperiment]):
    """Runs of models on lab instances."""

    collection = "experiments"
    serializer_class = LabExperimentSerializer
    permission_classes = [SuperAdminsOnly]
    filterset_fields = ["model_id", "test_type"]
    lookup_value_converter = "uuid"

    def get_queryset(self) -> QuerySet[LabExperiment]:
        """Return every experiment, newest first."""
        return selectors.experiments()
