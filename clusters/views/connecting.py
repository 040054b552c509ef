"""From nothing to a scanned AWS account: the wizard, and the settings of linked accounts."""

from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import services as accounts
from accounts.domain import trust_policy
from accounts.forms import DisconnectForm, LinkForm, RenameAccountForm
from accounts.models import Account
from accounts.permissions import Role, actor_of, page_for
from accounts.selectors import account_by_id, linked_accounts
from accounts.services.linking import link_of
from clusters.forms import RoleForm
from clusters.selectors.connecting import account_summaries, clusters_to_connect, newest_run
from clusters.services import linking, scanning
from clusters.views.scope import template_for
from spotopt.core.clock import utcnow
from spotopt.core.form_problems import problems_on


@page_for(Role.VIEWER)
@require_GET
def onboarding(request: HttpRequest) -> HttpResponse:
    """Go on where the connection stopped: the scan, the role, or the first step."""
    newest = linked_accounts().last()
    if newest is None or "another" in request.GET:
        return redirect("clusters:connect")
    step = "role" if newest.status == Account.Status.PENDING else "scan"
    return redirect(f"clusters:onboarding-{step}", account_id=newest.pk)


@page_for(Role.MEMBER)
@require_http_methods(["GET", "POST"])
def connect(request: HttpRequest) -> HttpResponse:
    """Step 1: name the AWS account to link."""
    form = LinkForm(request.POST or None)
    if form.is_valid():
        with problems_on(form):
            started = accounts.start_link(actor=actor_of(request), **form.cleaned_data)
            return redirect("clusters:onboarding-role", account_id=started.account.pk)
    facts = {"form": form, "step": 1}
    return render(request, "clusters/onboarding_connect.html", facts, status=400 if form.errors else 200)


@page_for(Role.MEMBER)
@require_http_methods(["GET", "POST"])
def role(request: HttpRequest, account_id: UUID) -> HttpResponse:
    """Step 2: create the role in AWS, then prove that it works."""
    account = account_by_id(account_id)
    form = RoleForm(request.POST or None, initial={"role_arn": account.role_arn})
    with problems_on(form) as problems:
        if form.is_valid():
            linking.verify_account(account_id=account_id, actor=actor_of(request), **form.cleaned_data)
            return redirect("clusters:onboarding-scan", account_id=account_id)
    template = trust_policy.render(
        mode=account.permission_mode, platform_account_id=settings.PLATFORM_AWS_ACCOUNT_ID
    )
    facts = {
        "account": account,
        "link": link_of(account),
        "form": form,
        "problem": problems[0] if problems else None,
        "template_body": template.body,
        "step": 2,
    }
    return render(request, "clusters/onboarding_role.html", facts, status=400 if form.errors else 200)


@page_for(Role.VIEWER)
@require_GET
def scan(request: HttpRequest, account_id: UUID) -> HttpResponse:
    """Step 3: watch the scan."""
    facts = {"account": account_by_id(account_id), "run": newest_run(account_id), "step": 3}
    return render(request, template_for(request, "clusters", "onboarding_scan"), facts)


@page_for(Role.VIEWER)
@require_GET
def agents(request: HttpRequest, account_id: UUID) -> HttpResponse:
    """Step 4: connect the agents of the clusters that the scan found."""
    facts = {
        "account": account_by_id(account_id),
        "clusters": clusters_to_connect(account_id, now=utcnow()),
        "step": 4,
    }
    return render(request, template_for(request, "clusters", "onboarding_agents"), facts)


@page_for(Role.MEMBER)
@require_POST
def skip(request: HttpRequest) -> HttpResponse:
    """Leave the wizard; it does not come back by itself."""
    accounts.skip_onboarding(actor=actor_of(request))
    return redirect("policies:dashboard")


@page_for(Role.VIEWER)
@require_GET
def account_list(request: HttpRequest) -> HttpResponse:
    """Show the linked AWS accounts."""
    facts = {"accounts": account_summaries(), "section": "settings", "tab": "accounts"}
    return render(request, template_for(request, "clusters", "accounts"), facts)


@page_for(Role.VIEWER)
@require_GET
def account_detail(request: HttpRequest, account_id: UUID) -> HttpResponse:
    """Show one AWS account: its permissions, its last scan, and what may be done with it."""
    account = account_by_id(account_id)
    return _account_page(request, account, RenameAccountForm(initial={"alias": account.alias}), None)


@page_for(Role.MEMBER)
@require_POST
def rescan(request: HttpRequest, account_id: UUID) -> HttpResponse:
    """Scan the account now."""
    _, is_new = scanning.resync(account_id=account_id, actor=actor_of(request))
    messages.success(request, "The scan has started." if is_new else "A scan is already under way.")
    return redirect("clusters:onboarding-scan", account_id=account_id)


@page_for(Role.MEMBER)
@require_POST
def validate(request: HttpRequest, account_id: UUID) -> HttpResponse:
    """Look at the role's permissions again."""
    linking.validate_account(account_id=account_id, actor=actor_of(request))
    messages.success(request, "The role works; its permissions are up to date.")
    return redirect("clusters:account", account_id=account_id)


@page_for(Role.MEMBER)
@require_POST
def rename(request: HttpRequest, account_id: UUID) -> HttpResponse:
    """Give the account another name."""
    form = RenameAccountForm(request.POST)
    if form.is_valid():
        with problems_on(form):
            accounts.rename_account(actor=actor_of(request), account_id=account_id, **form.cleaned_data)
            messages.success(request, "The new name is saved.")
            return redirect("clusters:account", account_id=account_id)
    return _account_page(request, account_by_id(account_id), form, None)


@page_for(Role.OWNER)
@require_POST
def disconnect(request: HttpRequest, account_id: UUID) -> HttpResponse:
    """Let the account go; its data stays readable."""
    form = DisconnectForm(request.POST)
    if form.is_valid():
        with problems_on(form):
            accounts.disconnect(actor=actor_of(request), account_id=account_id, **form.cleaned_data)
            messages.success(
                request, "The account is disconnected. Delete the stack in AWS to remove the role."
            )
            return redirect("clusters:accounts")
    account = account_by_id(account_id)
    return _account_page(request, account, RenameAccountForm(initial={"alias": account.alias}), form)


def _account_page(
    request: HttpRequest, account: Account, rename_form: RenameAccountForm, failed: DisconnectForm | None
) -> HttpResponse:
    facts = {
        "account": account,
        "run": newest_run(account.pk),
        "rename_form": rename_form,
        "disconnect_form": failed or DisconnectForm(),
        "section": "settings",
        "tab": "accounts",
    }
    return render(
        request, "clusters/account.html", facts, status=400 if failed or rename_form.errors else 200
    )
