"""The record under the staff's microscope."""

from django.contrib import admin

from audit.models import AuditChain, AuditLog
from spotopt.core.admin import MicroscopeAdmin


@admin.register(AuditLog)
class AuditLogAdmin(MicroscopeAdmin):
    """Events of every organization and of the platform."""

    list_display = ["timestamp", "organization", "sentence", "actor_label", "outcome"]
    list_filter = ["actor_type", "outcome", "resource_type"]
    list_select_related = ["organization"]
    search_fields = ["sentence", "event", "actor_label"]
    ordering = ["-timestamp"]
    show_full_result_count = False


@admin.register(AuditChain)
class AuditChainAdmin(MicroscopeAdmin):
    """The last link of each organization's chain."""

    list_display = ["key", "seq", "row_hash"]
    ordering = ["key"]
