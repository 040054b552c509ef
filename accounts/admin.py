"""People, organizations and AWS accounts under the staff's microscope."""

from django.contrib import admin

from accounts.models import Account, Membership, Organization, OrganizationFlag, SystemSetting, User
from spotopt.core.admin import MicroscopeAdmin


@admin.register(User)
class UserAdmin(MicroscopeAdmin):
    """People, without their password hashes."""

    list_display = ["email", "role", "is_active", "last_login", "created_at"]
    list_filter = ["role", "is_active"]
    search_fields = ["email", "name"]
    ordering = ["-created_at"]
    exclude = ["password"]


@admin.register(Organization)
class OrganizationAdmin(MicroscopeAdmin):
    """Tenants."""

    list_display = ["name", "slug", "plan", "status", "owner", "created_at"]
    list_filter = ["plan", "status"]
    list_select_related = ["owner"]
    search_fields = ["name", "slug"]
    ordering = ["-created_at"]


@admin.register(Membership)
class MembershipAdmin(MicroscopeAdmin):
    """Who may do what where."""

    list_display = ["user", "organization", "role", "created_at"]
    list_filter = ["role"]
    list_select_related = ["user", "organization"]
    search_fields = ["user__email", "organization__name"]
    ordering = ["-created_at"]


@admin.register(Account)
class AccountAdmin(MicroscopeAdmin):
    """AWS accounts, without their external ids."""

    list_display = ["alias", "organization", "masked_id", "status", "last_scan_at", "last_error_code"]
    list_filter = ["status", "permission_mode"]
    list_select_related = ["organization"]
    search_fields = ["alias", "aws_account_id"]
    ordering = ["-created_at"]
    exclude = ["external_id"]


@admin.register(OrganizationFlag)
class OrganizationFlagAdmin(MicroscopeAdmin):
    """Features switched for one organization."""

    list_display = ["key", "organization", "is_enabled", "updated_at"]
    list_filter = ["key", "is_enabled"]
    list_select_related = ["organization"]
    ordering = ["-created_at"]


@admin.register(SystemSetting)
class SystemSettingAdmin(MicroscopeAdmin):
    """Switches of the whole platform."""

    list_display = ["key", "value", "updated_by"]
    ordering = ["key"]
