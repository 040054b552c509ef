"""Models of interruption risk under the staff's microscope."""

from django.contrib import admin

from mlregistry.models import MLModel
from spotopt.core.admin import MicroscopeAdmin


@admin.register(MLModel)
class MLModelAdmin(MicroscopeAdmin):
    """Versions of models."""

    list_display = ["__str__", "created_at"]
    ordering = ["-created_at"]
