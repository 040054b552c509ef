"""Shapes of the accounts API: what it reads and what it answers."""

from typing import Any

from rest_framework import serializers

from accounts.domain.regions import REGIONS
from accounts.models import Account, User


class ProblemSerializer(serializers.Serializer[Any]):
    """An RFC 9457 problem document."""

    type = serializers.CharField(help_text="Path that names the kind of problem.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="One sentence to act on.")
    errors = serializers.DictField(  # type: ignore[assignment]  # the documented name
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="Messages by field, when the input is not valid.",
    )
    request_id = serializers.CharField(required=False)


class SignUpSerializer(serializers.Serializer[Any]):
    """A new organization and its owner."""

    organization_name = serializers.CharField(min_length=3, max_length=100)
    email = serializers.EmailField(max_length=255)
    password = serializers.CharField(min_length=8, max_length=128, trim_whitespace=False)
    name = serializers.CharField(max_length=150, required=False, default="", allow_blank=True)


class SignInSerializer(serializers.Serializer[Any]):
    """An address and a password."""

    email = serializers.EmailField(max_length=255)
    password = serializers.CharField(max_length=128, trim_whitespace=False)


class RefreshSerializer(serializers.Serializer[Any]):
    """A refresh token."""

    refresh = serializers.CharField(max_length=4096)


class LogoutSerializer(serializers.Serializer[Any]):
    """The refresh token to revoke, where the client has one."""

    refresh = serializers.CharField(max_length=4096, required=False)


class TokensSerializer(serializers.Serializer[Any]):
    """A pair of tokens."""

    access = serializers.CharField(help_text="Send it as `Authorization: Bearer …`.")
    refresh = serializers.CharField(help_text="Works once.")
    token_type = serializers.CharField()
    expires_in = serializers.IntegerField(help_text="Seconds that the access token lives.")
    role = serializers.ChoiceField(choices=User.Role.choices)


class SignedUpSerializer(TokensSerializer):
    """What a sign-up made."""

    user_id = serializers.UUIDField()
    org_id = serializers.UUIDField()
    account_id = serializers.UUIDField(help_text="The placeholder that the first link fills.")
    redirect_path = serializers.CharField()


class DoneSerializer(serializers.Serializer[Any]):
    """An act that leaves nothing else to say."""

    success = serializers.BooleanField()
    message = serializers.CharField()


class PersonSerializer(serializers.Serializer[Any]):
    """The signed-in person and where they work."""

    user_id = serializers.UUIDField()
    email = serializers.EmailField()
    name = serializers.CharField()
    role = serializers.ChoiceField(choices=User.Role.choices)
    must_change_password = serializers.BooleanField()
    org_id = serializers.UUIDField(allow_null=True)
    org_name = serializers.CharField(allow_blank=True)
    org_role = serializers.CharField(allow_blank=True)
    active_account_id = serializers.UUIDField(allow_null=True)
    account_status = serializers.CharField(allow_blank=True)
    redirect_path = serializers.CharField()


class ChangePasswordSerializer(serializers.Serializer[Any]):
    """The old password and the next."""

    old_password = serializers.CharField(max_length=128, trim_whitespace=False)
    new_password = serializers.CharField(min_length=8, max_length=128, trim_whitespace=False)


class ProfileSerializer(serializers.ModelSerializer[User]):
    """What a person may see of themselves; only the name can change."""

    class Meta:
        model = User
        fields = ["email", "name", "last_login", "created_at"]
        read_only_fields = ["email", "last_login", "created_at"]


class LinkSerializer(serializers.Serializer[Any]):
    """The AWS account to link."""

    aws_account_id = serializers.RegexField(r"\A[0-9]{12}\Z", help_text="Twelve digits.")
    alias = serializers.CharField(max_length=100, required=False, default="", allow_blank=True)
    region = serializers.ChoiceField(choices=list(REGIONS), required=False, default="us-east-1")
    permission_mode = serializers.ChoiceField(
        choices=Account.PermissionMode.choices,
        required=False,
        default=Account.PermissionMode.FULL_ACCESS,
    )


class AccountErrorSerializer(serializers.Serializer[Any]):
    """What went wrong with an account last."""

    code = serializers.CharField(source="last_error_code")
    message = serializers.CharField(source="last_error_message")


class AccountSerializer(serializers.ModelSerializer[Account]):
    """A linked AWS account; all but four digits of its id are masked."""

    aws_account_id = serializers.CharField(source="masked_id", read_only=True)
    region = serializers.CharField(source="primary_region", read_only=True)
    connection_method = serializers.SerializerMethodField()
    error = serializers.SerializerMethodField()

    class Meta:
        model = Account
        fields = [
            "id", "alias", "aws_account_id", "region", "status", "permission_mode", "connection_method",
            "is_default", "permissions", "last_verified_at", "last_scan_at", "error", "created_at",
        ]  # fmt: skip

    def get_connection_method(self, account: Account) -> str:
        """Return how Spotopt enters the account; roles are the only way."""
        return "role_based"

    def get_error(self, account: Account) -> dict[str, str] | None:
        """Return the last error, or None while all is well."""
        return dict(AccountErrorSerializer(account).data) if account.last_error_code else None


class LinkStartedSerializer(serializers.Serializer[Any]):
    """How to create the role in the customer's AWS account."""

    account = AccountSerializer()
    external_id = serializers.CharField()
    role_name = serializers.CharField()
    trusted_account_id = serializers.CharField(help_text="The AWS account that may assume the role.")
    cloudformation_url = serializers.CharField(
        source="launch_stack_url", help_text="The AWS console's page that creates the stack."
    )
    template_url = serializers.CharField()
    template_version = serializers.CharField()
    template_sha256 = serializers.CharField()


class RenameSerializer(serializers.Serializer[Any]):
    """An account's display name."""

    alias = serializers.CharField(min_length=1, max_length=100)


class DisconnectSerializer(serializers.Serializer[Any]):
    """The account's alias, typed to confirm."""

    confirmation = serializers.CharField(max_length=100)


class DisconnectedSerializer(serializers.Serializer[Any]):
    """How much a disconnected account leaves behind."""

    clusters = serializers.IntegerField()
    instances = serializers.IntegerField()
    agents = serializers.IntegerField()


class ContextSerializer(serializers.Serializer[Any]):
    """The account to look at; null means all of them."""

    account_id = serializers.UUIDField(allow_null=True)


class ContextSetSerializer(serializers.Serializer[Any]):
    """The account that is looked at from now on."""

    success = serializers.BooleanField()
    active_account = AccountSerializer(allow_null=True)


class TeamMemberSerializer(serializers.Serializer[Any]):
    """One line of the team list."""

    id = serializers.UUIDField()
    email = serializers.EmailField()
    name = serializers.CharField()
    role = serializers.CharField()
    last_login = serializers.DateTimeField(allow_null=True)
    status = serializers.CharField()


class TeamSerializer(serializers.Serializer[Any]):
    """Everybody in the organization."""

    members = TeamMemberSerializer(many=True)
    total = serializers.IntegerField()
