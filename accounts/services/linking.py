"""Link AWS accounts by a role, rename them and let them go."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from accounts import selectors
from accounts.domain import connection, roles, trust_policy
from accounts.domain.plans import MULTI_ACCOUNT
from accounts.domain.regions import REGIONS
from accounts.models import Account, Membership, Organization
from accounts.services import limits
from audit.services import Subject, record
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, Forbidden, InvalidInput

_LINKS = limits.Limit("link", 20, 3600)
_UNFINISHED_PLANS = ("approved", "running", "stopping")
_UNFINISHED_ACTIONS = ("pending", "running")


@dataclass(frozen=True, slots=True)
class LinkStarted:
    """What the customer needs to create the role in their AWS account."""

    account: Account
    external_id: str
    role_name: str
    template_url: str
    template_version: str
    template_sha256: str
    launch_stack_url: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """How much a disconnected account leaves behind."""

    clusters: int
    instances: int
    agents: int


def start_link(
    *, actor: Actor, aws_account_id: str, alias: str, region: str, permission_mode: str
) -> LinkStarted:
    """Reserve a pending account with its own external id and say how to create the role.

    The first link fills the placeholder; one that is still pending is used again with the same external
    id; a disconnected account comes back with a new one. Raises InvalidInput, Forbidden, Conflict.
    """
    roles.require_role(actor, roles.MEMBER)
    limits.spend(_LINKS, actor.id)
    _check_shape(aws_account_id, region, permission_mode)
    with transaction.atomic():
        organization = Organization.objects.select_for_update(no_key=True).get(
            pk=roles.organization_of(actor)
        )
        account = _account_to_link(organization, aws_account_id)
        account.aws_account_id = aws_account_id
        account.alias = alias.strip() or f"Account …{aws_account_id[-4:]}"
        account.primary_region, account.permission_mode = region, permission_mode
        account.created_by_id = UUID(actor.id) if actor.kind == "user" else account.created_by_id
        account.save()
        record(
            actor=actor,
            event="accounts.account.link_started",
            sentence=f"{actor.label} started to link the AWS account {account.masked_id}.",
            subject=Subject("account", str(account.pk), account.alias),
            account_id=account.pk,
            after={"permission_mode": permission_mode, "region": region},
        )
    return link_of(account)


def link_of(account: Account) -> LinkStarted:
    """Return the same instructions again for an account that is already reserved."""
    template = trust_policy.render(
        mode=account.permission_mode, platform_account_id=settings.PLATFORM_AWS_ACCOUNT_ID
    )
    path = reverse("connect-template", kwargs={"mode": template.mode})
    template_url = f"{settings.SITE_URL}{path}?v={template.version}&sha256={template.sha256}"
    return LinkStarted(
        account=account,
        external_id=str(account.external_id),
        role_name=trust_policy.ROLE_NAME,
        template_url=template_url,
        template_version=template.version,
        template_sha256=template.sha256,
        launch_stack_url=trust_policy.launch_stack_url(
            region=account.primary_region,
            template_url=template_url,
            external_id=str(account.external_id),
        ),
    )


@transaction.atomic
def rename_account(*, actor: Actor, account_id: UUID, alias: str) -> Account:
    """Give the account another display name."""
    roles.require_role(actor, roles.MEMBER)
    account = selectors.locked_account(account_id)
    before, account.alias = account.alias, alias.strip()
    account.save(update_fields=["alias", "updated_at"])
    record(
        actor=actor,
        event="accounts.account.renamed",
        sentence=f"{actor.label} renamed the AWS account {before} to {account.alias}.",
        subject=Subject("account", str(account.pk), account.alias),
        account_id=account.pk,
        before={"alias": before},
        after={"alias": account.alias},
    )
    return account


@transaction.atomic
def disconnect(*, actor: Actor, account_id: UUID, confirmation: str) -> Disconnected:
    """Stop using an account; what is known about it stays, read-only. ``confirmation`` is its alias, typed.

    Raises Conflict while anything is under way in its clusters.
    """
    roles.require_role(actor, roles.OWNER)
    account = selectors.locked_account(account_id)
    _refuse_disconnect(account, confirmation)
    present = account.status
    account.status, account.disconnected_at, account.is_default = "disconnected", utcnow(), False
    account.save(update_fields=["status", "disconnected_at", "is_default", "updated_at"])
    Membership.objects.filter(active_account=account).update(active_account=None)
    _choose_default()
    left = Disconnected(
        clusters=account.clusters.filter(removed_at=None).count(),
        instances=account.instances.exclude(state="terminated").count(),
        agents=account.clusters.filter(removed_at=None, agent_installed=True).count(),
    )
    record(
        actor=actor,
        event="accounts.account.disconnected",
        sentence=f"{actor.label} disconnected the AWS account {account.alias}.",
        subject=Subject("account", str(account.pk), account.alias),
        account_id=account.pk,
        before={"status": present},
        after={"status": account.status, "clusters": left.clusters, "agents": left.agents},
    )
    return left


def _check_shape(aws_account_id: str, region: str, permission_mode: str) -> None:
    errors = {
        "aws_account_id": [] if connection.is_aws_account_id(aws_account_id) else ["Type the 12 digits."],
        "region": [] if region in REGIONS else ["Choose a region of the list."],
        "permission_mode": [] if permission_mode in trust_policy.MODES else ["read_only or full_access."],
    }
    if unmet := {field: messages for field, messages in errors.items() if messages}:
        raise InvalidInput("This account cannot be linked.", errors=unmet)


def _account_to_link(organization: Organization, aws_account_id: str) -> Account:
    """Return the row to fill, unsaved when it is new."""
    same = Account.objects.filter(aws_account_id=aws_account_id)
    if same.filter(status__in=connection.CLAIMED).exists():
        raise Conflict("Your organization already linked this AWS account.", code="already_linked")
    if pending := same.filter(status=Account.Status.PENDING).first():
        return pending
    _refuse_second_account(organization)
    if former := same.filter(status=Account.Status.DISCONNECTED).order_by("-disconnected_at").first():
        former.status, former.external_id, former.disconnected_at = "pending", str(uuid4()), None
        former.role_arn, former.permissions = "", []
        return former
    placeholder = Account.objects.filter(aws_account_id="", status=Account.Status.PENDING).first()
    return placeholder or Account(organization=organization)


def _refuse_second_account(organization: Organization) -> None:
    has_one = Account.objects.exclude(aws_account_id="").exclude(status=Account.Status.DISCONNECTED).exists()
    if has_one and not selectors.has_feature(organization, MULTI_ACCOUNT):
        raise Forbidden("Your plan includes one AWS account.", code="plan_limit")


def _refuse_disconnect(account: Account, confirmation: str) -> None:
    if account.status == Account.Status.DISCONNECTED:
        raise Conflict("The account is already disconnected.")
    if not account.aws_account_id:
        raise Conflict("No AWS account is linked yet.")
    if confirmation.strip() != account.alias:
        raise InvalidInput(
            "Type the account's name to confirm.", errors={"confirmation": [f"Type “{account.alias}”."]}
        )
    clusters = account.clusters.all()
    if (
        clusters.filter(actions__status__in=_UNFINISHED_ACTIONS).exists()
        or clusters.filter(plans__status__in=_UNFINISHED_PLANS).exists()
    ):
        raise Conflict("Work is under way in this account's clusters. Stop it or wait.", code="job_running")


def _choose_default() -> None:
    """Keep one default while any account is linked."""
    if Account.objects.filter(is_default=True).exists():
        return
    following = Account.objects.filter(status__in=connection.CLAIMED).order_by("created_at").first()
    if following is not None:
        following.is_default = True
        following.save(update_fields=["is_default", "updated_at"])
