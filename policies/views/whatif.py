"""Pages of what-ifs: ask, watch, read, cancel."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.permissions import Role, actor_of, page_for, require_role
from clusters.selectors.detail import cluster_head
from clusters.views.scope import template_for
from policies.forms.whatif import WhatIfForm
from policies.selectors.whatif import choices_for, recent_what_ifs, what_if_page
from policies.services.comparison import request_what_if
from policies.services.jobs import cancel_what_if
from spotopt.core.clock import utcnow
from spotopt.core.form_problems import problems_on


@page_for(Role.VIEWER)
@require_http_methods(["GET", "POST"])
def what_ifs(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show the form and the cluster's recent what-ifs; members ask. htmx gets the list alone."""
    if request.method == "POST":
        require_role(actor_of(request), Role.MEMBER)
    head = cluster_head(cluster_id, now=utcnow())
    form = WhatIfForm(request.POST or None, choices=choices_for(cluster_id))
    if form.is_valid():
        with problems_on(form):
            asked = request_what_if(cluster_id=cluster_id, drafts=form.drafts(), actor=actor_of(request))
            return redirect("policies:what-if", what_if_id=asked.pk)
    facts = {
        "section": "clusters",
        "tab": "what-if",
        "cluster": head,
        "form": form,
        "what_ifs": recent_what_ifs(cluster_id),
    }
    status = 400 if form.errors else 200
    return render(request, template_for(request, "policies", "what_ifs"), facts, status=status)


@page_for(Role.VIEWER)
@require_GET
def what_if(request: HttpRequest, what_if_id: UUID) -> HttpResponse:
    """Show one what-if side by side, as far as it is computed."""
    facts = {"section": "clusters", "page": what_if_page(what_if_id)}
    return render(request, template_for(request, "policies", "what_if"), facts)


@page_for(Role.MEMBER)
@require_POST
def cancel(request: HttpRequest, what_if_id: UUID) -> HttpResponse:
    """Stop computing it; what was found stays."""
    cancel_what_if(what_if_id=what_if_id, actor=actor_of(request))
    messages.success(request, "The what-if is cancelled.")
    return redirect("policies:what-if", what_if_id=what_if_id)
