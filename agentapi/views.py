"""Pages of a cluster's agent keys: look, rotate, revoke."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from accounts.permissions import Role, actor_of, page_for
from agentapi import selectors
from agentapi.services import keys as services
from agentapi.services.installation import ROTATION_COMMANDS, cluster_rights


@page_for(Role.MEMBER)
@require_GET
def keys(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show the cluster's keys without their secrets, and what the agent may do in the cluster."""
    facts = {
        "cluster": selectors.cluster_named(cluster_id),
        "keys": selectors.shown_keys(cluster_id),
        "rights": cluster_rights(),
    }
    return render(request, "agentapi/_keys.html", facts)


@page_for(Role.MEMBER)
@never_cache
@require_POST
def rotate(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Create a key, shown this once; the others work for 24 hours more."""
    cluster = selectors.cluster_named(cluster_id)
    issued = services.rotate_keys(cluster=cluster, actor=actor_of(request))
    facts = {"section": "clusters", "cluster": cluster, "token": issued.token, "commands": ROTATION_COMMANDS}
    return render(request, "agentapi/new_key.html", facts)


@page_for(Role.MEMBER)
@require_POST
def revoke(request: HttpRequest, cluster_id: UUID, key_id: UUID) -> HttpResponse:
    """Stop a key at once and go back to the agent's page."""
    cluster = selectors.cluster_named(cluster_id)
    services.revoke_key(cluster=cluster, key_id=key_id, actor=actor_of(request))
    return redirect("clusters:agent", cluster_id=cluster.pk)
