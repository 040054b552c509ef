"""The page of a cluster's Karpenter, and the act on it."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from accounts.permissions import Role, actor_of, page_for
from clusters.selectors.detail import cluster_head
from clusters.views.scope import template_for
from policies.selectors.karpenter import karpenter_of
from policies.services.karpenter import apply_steering
from spotopt.core.clock import utcnow


@page_for(Role.VIEWER)
@require_GET
def karpenter(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show each node pool, what Karpenter is to be told beside it, and what came of it."""
    facts = {
        "section": "clusters",
        "tab": "karpenter",
        "cluster": cluster_head(cluster_id, now=utcnow()),
        "page": karpenter_of(cluster_id),
    }
    return render(request, template_for(request, "policies", "karpenter"), facts)


@page_for(Role.MEMBER)
@require_POST
def apply(request: HttpRequest, cluster_id: UUID, steering_id: UUID) -> HttpResponse:
    """Have the agent apply our node pool as the page showed it."""
    steering = apply_steering(
        cluster_id=cluster_id,
        steering_id=steering_id,
        fingerprint=request.POST.get("fingerprint", ""),
        actor=actor_of(request),
    )
    messages.success(request, f"The agent applies {steering.name}.")
    return redirect("policies:karpenter", cluster_id=cluster_id)
