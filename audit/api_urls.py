"""API paths of the record, under ``/api/v1/``."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from audit.api import EventViewSet, LiveActivity

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("audit", EventViewSet, basename="audit-event")

urlpatterns = [
    path("activity/live", LiveActivity.as_view(), name="activity-live"),
    path("", include(router.urls)),
]
