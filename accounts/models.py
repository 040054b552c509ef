"""People, organizations, roles, AWS accounts and platform switches."""

from typing import Any, ClassVar, Self
from uuid import uuid4

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from spotopt.core.records import Record
from spotopt.core.tenancy import TenantModel


class UserManager(BaseUserManager["User"]):
    """Creates users; e-mail addresses are stored in lower case."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Return a new user with a hashed password."""
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Return a new member of the platform's staff."""
        return self.create_user(email, password, role=User.Role.SUPER_ADMIN, **fields)

    def get_by_natural_key(self, username: str | None) -> "User":
        """Return the user with this e-mail address, whatever its case."""
        return self.get(email=(username or "").strip().lower())


class User(Record, AbstractBaseUser):
    """A person who signs in."""

    class Role(models.TextChoices):
        CLIENT = "client", "Client"
        SUPER_ADMIN = "super_admin", "Super admin"

    email = models.EmailField(max_length=255, unique=True)
    name = models.CharField(max_length=150, blank=True)
    role = models.CharField(max_length=20, choices=Role, default=Role.CLIENT)
    is_active = models.BooleanField(default=True)
    must_change_password = models.BooleanField(default=False)
    onboarding_skipped_at = models.DateTimeField(null=True, blank=True)
    onboarding_completed_at = models.DateTimeField(null=True, blank=True)
    last_login_ip = models.GenericIPAddressField(null=True, blank=True)

    objects: ClassVar[UserManager] = UserManager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        db_table = "users"
        constraints = [
            models.CheckConstraint(condition=Q(email=Lower("email")), name="users_email_in_lower_case"),
            models.CheckConstraint(condition=Q(role__in=["client", "super_admin"]), name="users_role_known"),
        ]

    def __str__(self) -> str:
        return self.email

    @property
    def is_staff(self) -> bool:
        """Tell whether the person may enter Django's admin."""
        return self.role == self.Role.SUPER_ADMIN

    @property
    def is_superuser(self) -> bool:
        """Tell whether every permission of the read-only admin is granted."""
        return self.is_staff

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Grant the (read-only) admin's permissions to active staff."""
        return self.is_active and self.is_staff

    def has_module_perms(self, app_label: str) -> bool:
        """Show the (read-only) admin's apps to active staff."""
        return self.is_active and self.is_staff


class Organization(Record):
    """The tenant: everything a customer owns hangs off it."""

    class Plan(models.TextChoices):
        FREE = "free", "Free"
        PRO = "pro", "Pro"
        ENTERPRISE = "enterprise", "Enterprise"

    class Status(models.TextChoices):
        TRIAL = "trial", "Trial"
        ACTIVE = "active", "Active"
        SUSPENDED = "suspended", "Suspended"
        DELETED = "deleted", "Deleted"

    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=120, unique=True)
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="owned_organizations")
    plan = models.CharField(max_length=20, choices=Plan, default=Plan.ENTERPRISE)
    status = models.CharField(max_length=20, choices=Status, default=Status.ACTIVE)
    timezone = models.CharField(max_length=50, default="UTC")
    audit_retention_days = models.PositiveIntegerField(null=True, blank=True, default=365)

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "organizations"
        indexes = [models.Index(fields=["status"]), models.Index(fields=["plan"])]

    def __str__(self) -> str:
        return self.name


class Membership(Record):
    """A person's role in an organization."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        MEMBER = "member", "Member"
        VIEWER = "viewer", "Viewer"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=20, choices=Role, default=Role.VIEWER)
    active_account = models.ForeignKey(
        "accounts.Account", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "team_members"
        constraints = [
            models.UniqueConstraint(fields=["user", "organization"], name="team_members_once"),
            models.CheckConstraint(
                condition=Q(role__in=["owner", "member", "viewer"]), name="team_members_role_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role} of {self.organization_id}"


class Account(Record, TenantModel):
    """An AWS account that the customer linked, or the placeholder before the first link."""

    class Status(models.TextChoices):
        PENDING = "pending", "Pending"
        SCANNING = "scanning", "Scanning"
        ACTIVE = "active", "Active"
        ERROR = "error", "Error"
        DISCONNECTED = "disconnected", "Disconnected"

    class PermissionMode(models.TextChoices):
        READ_ONLY = "read_only", "Read only"
        FULL_ACCESS = "full_access", "Full access"

    created_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    alias = models.CharField(max_length=100)
    aws_account_id = models.CharField(max_length=12, blank=True)
    """Twelve digits; empty for the placeholder."""
    role_arn = models.CharField(max_length=255, blank=True)
    external_id = models.CharField(max_length=64, default=uuid4, unique=True, editable=False)
    primary_region = models.CharField(max_length=32, default="us-east-1")
    permission_mode = models.CharField(
        max_length=20, choices=PermissionMode, default=PermissionMode.FULL_ACCESS
    )
    status = models.CharField(max_length=20, choices=Status, default=Status.PENDING)
    is_default = models.BooleanField(default=False)
    permissions = models.JSONField(default=list, blank=True)
    """The last probe: ``[{"action", "granted", "needed_for"}]``."""
    auth_failures = models.PositiveSmallIntegerField(default=0)
    last_verified_at = models.DateTimeField(null=True, blank=True)
    last_scan_at = models.DateTimeField(null=True, blank=True)
    last_error_code = models.CharField(max_length=80, blank=True)
    last_error_message = models.CharField(max_length=500, blank=True)
    disconnected_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "accounts"
        indexes = [models.Index(fields=["organization", "status"])]
        constraints = [
            models.CheckConstraint(
                condition=Q(aws_account_id="") | Q(aws_account_id__regex=r"^\d{12}$"),
                name="accounts_aws_id_is_12_digits",
            ),
            models.UniqueConstraint(
                fields=["aws_account_id"],
                condition=Q(status__in=["scanning", "active", "error"]),
                name="accounts_aws_id_claimed_once",
            ),
            models.UniqueConstraint(
                fields=["organization"],
                condition=Q(aws_account_id="", status="pending"),
                name="accounts_one_placeholder",
            ),
            models.UniqueConstraint(
                fields=["organization"], condition=Q(is_default=True), name="accounts_one_default"
            ),
        ]

    def __str__(self) -> str:
        return self.alias

    @property
    def masked_id(self) -> str:
        """Return the AWS account id with all but its first four digits hidden."""
        return f"{self.aws_account_id[:4]}-****-****" if self.aws_account_id else ""


class OrganizationFlag(Record, TenantModel):
    """A feature switched on or off for one organization; no row means the plan's default."""

    key = models.CharField(max_length=50)
    is_enabled = models.BooleanField(default=True)
    set_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        db_table = "org_feature_flags"
        constraints = [models.UniqueConstraint(fields=["organization", "key"], name="org_feature_flags_once")]

    def __str__(self) -> str:
        return f"{self.key}={self.is_enabled}"


class SystemSetting(models.Model):
    """A platform-wide switch, such as ``safe_mode``; written by staff only."""

    key = models.CharField(max_length=50, primary_key=True)
    value = models.JSONField()
    description = models.CharField(max_length=255, blank=True)
    updated_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    objects: ClassVar[models.Manager[Self]] = models.Manager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        db_table = "system_settings"

    def __str__(self) -> str:
        return self.key
