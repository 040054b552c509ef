"""API paths of hibernation, under ``/api/v1/``."""

from django.urls import include, path
from rest_framework.routers import SimpleRouter

from hibernation.api import ScheduleViewSet, SetPrewarm, SetSchedule, SetTimezone

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("hibernation", ScheduleViewSet, basename="hibernation-schedule")

urlpatterns = [
    path("hibernation/schedule", SetSchedule.as_view(), name="hibernation-set"),
    path("hibernation/tz", SetTimezone.as_view(), name="hibernation-tz"),
    path("hibernation/prewarm", SetPrewarm.as_view(), name="hibernation-prewarm"),
    path("", include(router.urls)),
]
