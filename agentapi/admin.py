"""Agents, their keys and deliveries under the staff's microscope."""

from django.contrib import admin

from agentapi.models import AgentAction, AgentInstance, APIKey
from spotopt.core.admin import MicroscopeAdmin


@admin.register(APIKey)
class APIKeyAdmin(MicroscopeAdmin):
    """Credentials of clusters, without their hashes."""

    list_display = [
        "key_prefix",
        "organization",
        "cluster",
        "kind",
        "last_used_at",
        "expires_at",
        "revoked_at",
    ]
    list_filter = ["kind"]
    list_select_related = ["organization", "cluster"]
    ordering = ["-created_at"]
    exclude = ["key_hash"]


@admin.register(AgentInstance)
class AgentInstanceAdmin(MicroscopeAdmin):
    """Running agents."""

    list_display = ["agent_id", "organization", "cluster", "version", "status", "last_heartbeat_at"]
    list_filter = ["status"]
    list_select_related = ["organization", "cluster"]
    ordering = ["-created_at"]


@admin.register(AgentAction)
class AgentActionAdmin(MicroscopeAdmin):
    """Actions on their way to agents."""

    list_display = [
        "created_at",
        "organization",
        "cluster",
        "action_type",
        "status",
        "picked_up_by",
        "is_late",
    ]
    list_filter = ["status", "action_type"]
    list_select_related = ["organization", "cluster"]
    ordering = ["-created_at"]
