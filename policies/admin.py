"""Templates, policies and plans under the staff's microscope."""

from django.contrib import admin

from policies.models import (
    ClusterPolicy,
    NodeTemplate,
    OptimizationJob,
    Plan,
    PlanStep,
    PolicyRevision,
    WhatIf,
)
from spotopt.core.admin import MicroscopeAdmin


@admin.register(NodeTemplate)
class NodeTemplateAdmin(MicroscopeAdmin):
    """Boundaries around what may be launched."""

    list_display = ["name", "organization", "architecture", "capacity_type", "is_default", "is_system"]
    list_select_related = ["organization"]
    search_fields = ["name"]
    ordering = ["-created_at"]


@admin.register(ClusterPolicy)
class ClusterPolicyAdmin(MicroscopeAdmin):
    """How each cluster may be treated."""

    list_display = ["cluster", "organization", "template", "mode", "is_active", "version"]
    list_filter = ["mode", "is_active"]
    list_select_related = ["organization", "cluster", "template"]
    ordering = ["-created_at"]


@admin.register(PolicyRevision)
class PolicyRevisionAdmin(MicroscopeAdmin):
    """Earlier versions of policies."""

    list_display = ["created_at", "organization", "__str__"]
    list_select_related = ["organization"]
    ordering = ["-created_at"]


@admin.register(OptimizationJob)
class OptimizationJobAdmin(MicroscopeAdmin):
    """Runs of the optimizer."""

    list_display = ["created_at", "organization", "cluster", "trigger", "status", "phase", "error_message"]
    list_filter = ["status", "trigger"]
    list_select_related = ["organization", "cluster"]
    ordering = ["-created_at"]


@admin.register(WhatIf)
class WhatIfAdmin(MicroscopeAdmin):
    """Clusters under other rules and prices."""

    list_display = ["created_at", "organization", "cluster", "status", "phase", "error_message"]
    list_filter = ["status"]
    list_select_related = ["organization", "cluster"]
    ordering = ["-created_at"]


@admin.register(Plan)
class PlanAdmin(MicroscopeAdmin):
    """What was proposed, and what came of it."""

    list_display = [
        "created_at",
        "organization",
        "cluster",
        "status",
        "usd_per_hour_before",
        "usd_per_hour_after",
    ]
    list_filter = ["status"]
    list_select_related = ["organization", "cluster"]
    ordering = ["-created_at"]


@admin.register(PlanStep)
class PlanStepAdmin(MicroscopeAdmin):
    """Steps of plans."""

    list_display = ["plan", "seq", "wave", "kind", "target", "status", "attempts", "note"]
    list_filter = ["kind", "status"]
    list_select_related = ["plan"]
    ordering = ["-created_at"]
