"""API paths of the model registry, under ``/api/v1/``."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from mlregistry.api import LabExperimentViewSet, MLModelViewSet

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("admin/models", MLModelViewSet, basename="ml-model")
router.register("lab/experiments", LabExperimentViewSet, basename="lab-experiment")

urlpatterns = [path("", include(router.urls))]
