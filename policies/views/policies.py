"""Pages of policies: the list of clusters, one policy's form, and its history."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.permissions import Role, actor_of, page_for, require_role
from clusters.selectors.detail import cluster_head
from clusters.views.scope import account_in_view, template_for
from policies.forms.policy import PolicyForm
from policies.selectors.policies import policy_page_of, revisions, template_choices
from policies.services import policies as services
from spotopt.core.clock import utcnow
from spotopt.core.form_problems import problems_on

HISTORY = 50


@page_for(Role.VIEWER)
@require_GET
def policy_list(request: HttpRequest) -> HttpResponse:
    """Show how each cluster of the account in view may be treated."""
    search = request.GET.get("q", "").strip()
    page = policy_page_of(
        search=search, after=request.GET.get("after", ""), account_id=account_in_view(request)
    )
    facts = {"section": "policies", "page": page, "q": search}
    return render(request, template_for(request, "policies", "policy_list"), facts)


@page_for(Role.VIEWER)
@require_http_methods(["GET", "POST"])
def policy(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show a cluster's policy; members change it."""
    if request.method == "POST":
        require_role(actor_of(request), Role.MEMBER)
    stored = services.policy_of(cluster_id)
    form = PolicyForm(request.POST or None, policy=stored, templates=template_choices(keep=stored.template))
    if form.is_valid():
        with problems_on(form):
            saved = services.change_policy(
                cluster_id=cluster_id, change=form.change(), actor=actor_of(request)
            )
            messages.success(request, f"Saved as version {saved.version}.")
            return redirect("policies:policy", cluster_id=cluster_id)
    facts = {
        "section": "policies",
        "cluster": cluster_head(cluster_id, now=utcnow()),
        "policy": stored,
        "form": form,
        "preview": services.preview_policy(cluster_id=cluster_id, change=services.PolicyChange()),
        "broadcast": services.broadcast_of(stored),
    }
    return render(request, "policies/policy.html", facts, status=400 if form.errors else 200)


@page_for(Role.VIEWER)
@require_GET
def history(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show every version of a policy, who saved it and what they changed."""
    facts = {
        "section": "policies",
        "cluster": cluster_head(cluster_id, now=utcnow()),
        "policy": services.policy_of(cluster_id),
        "revisions": revisions(cluster_id)[:HISTORY],
    }
    return render(request, "policies/policy_history.html", facts)


@page_for(Role.MEMBER)
@require_POST
def revert(request: HttpRequest, cluster_id: UUID, version: int) -> HttpResponse:
    """Say again what an older version said."""
    saved = services.revert_policy(cluster_id=cluster_id, version=version, actor=actor_of(request))
    messages.success(request, f"Version {version} holds again, as version {saved.version}.")
    return redirect("policies:policy", cluster_id=cluster_id)


@page_for(Role.MEMBER)
@require_POST
def reset(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Put every knob back to its default."""
    saved = services.reset_policy(cluster_id=cluster_id, actor=actor_of(request))
    messages.success(request, f"The defaults hold again, as version {saved.version}.")
    return redirect("policies:policy", cluster_id=cluster_id)
