"""Sleep schedules under the staff's microscope."""

from django.contrib import admin

from hibernation.models import HibernationSchedule
from spotopt.core.admin import MicroscopeAdmin


@admin.register(HibernationSchedule)
class HibernationScheduleAdmin(MicroscopeAdmin):
    """When clusters sleep."""

    list_display = ["__str__", "organization", "created_at"]
    list_select_related = ["organization"]
    ordering = ["-created_at"]
