"""Pages of clusters: the list, and the tabs of one."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from accounts.permissions import Role, actor_of, page_for
from audit.selectors import ActivityFilter, activity_page
from clusters.models import Cluster
from clusters.selectors import detail, fleet, inside
from clusters.selectors.interruptions import interruption_page, pools_in_use
from clusters.selectors.listing import ClusterFilter, cluster_page, cluster_regions
from clusters.selectors.strays import strays
from clusters.services import groups, registry
from clusters.views.scope import account_in_view, history_wanted, template_for
from spotopt.core.clock import utcnow


@page_for(Role.VIEWER)
@require_GET
def cluster_list(request: HttpRequest) -> HttpResponse:
    """Show the clusters of the account in view; the filter lives in the URL."""
    query = request.GET
    wanted = ClusterFilter(
        search=query.get("q", "").strip(),
        region=query.get("region", ""),
        environment=query.get("environment", ""),
        agent=query.get("agent", ""),
        account_id=account_in_view(request),
        sort=query.get("sort", "-cost"),
        after=query.get("after", ""),
    )
    facts = {
        "section": "clusters",
        "page": cluster_page(wanted, now=utcnow()),
        "wanted": wanted,
        "is_filtered": any((wanted.search, wanted.region, wanted.environment, wanted.agent)),
        "regions": cluster_regions(),
        "environments": Cluster.Environment.choices,
    }
    return render(request, template_for(request, "clusters", "list"), facts)


@page_for(Role.VIEWER)
@require_GET
def overview(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show one cluster at a glance."""
    facts = {
        "grid": detail.node_grid(cluster_id),
        "largest_grid": detail.LARGEST_GRID,
        "strays": list(strays().filter(cluster_id=cluster_id)),
        "groups": detail.node_groups(cluster_id),
        "activity": activity_page(ActivityFilter(cluster_id=cluster_id, is_summary=True), size=8),
    }
    return _tab(request, cluster_id, "overview", facts)


@page_for(Role.MEMBER)
@require_POST
def restore_minimum(request: HttpRequest, cluster_id: UUID, group_id: UUID) -> HttpResponse:
    """Give a node group the minimum back that plans lowered."""
    action = groups.restore_minimum(cluster_id=cluster_id, group_id=group_id, actor=actor_of(request))
    messages.success(request, f"Asked AWS to restore the minimum of {action.target}.")
    return redirect("clusters:detail", cluster_id=cluster_id)


@page_for(Role.MEMBER)
@require_POST
def release_minimum(request: HttpRequest, cluster_id: UUID, group_id: UUID) -> HttpResponse:
    """Let plans lower the group's minimum again."""
    group = groups.release_minimum(cluster_id=cluster_id, group_id=group_id, actor=actor_of(request))
    messages.success(request, f"Plans may lower the minimum of {group.name} again.")
    return redirect("clusters:detail", cluster_id=cluster_id)


@page_for(Role.VIEWER)
@require_GET
def nodes(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show the cluster's nodes as a table."""
    query = request.GET
    lifecycle = query.get("lifecycle", "")
    page = inside.node_page(
        cluster_id,
        sort=query.get("sort", "name"),
        after=query.get("after", ""),
        search=query.get("q", "").strip(),
        lifecycle=lifecycle if lifecycle in ("spot", "on_demand") else "",
    )
    return _tab(request, cluster_id, "nodes", {"page": page})


@page_for(Role.VIEWER)
@require_GET
def node(request: HttpRequest, cluster_id: UUID, node_id: UUID) -> HttpResponse:
    """Show one node and what runs on it."""
    facts = {"node": inside.node_row(cluster_id, node_id), "pods": inside.pods_on(node_id)}
    return _tab(request, cluster_id, "node", facts)


@page_for(Role.VIEWER)
@require_GET
def workloads(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show what runs in the cluster."""
    query = request.GET
    page = inside.workload_page(
        cluster_id,
        sort=query.get("sort", "-cost"),
        after=query.get("after", ""),
        search=query.get("q", "").strip(),
    )
    return _tab(request, cluster_id, "workloads", {"page": page})


@page_for(Role.VIEWER)
@require_GET
def actions(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show what was asked of the cluster and how it ended."""
    return _tab(request, cluster_id, "actions", {"actions": detail.recent_actions(cluster_id)})


@page_for(Role.VIEWER)
@require_GET
def interruptions(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show which nodes AWS took or may take, what was done about it, and how the spot pools in use are."""
    facts = {"page": interruption_page(cluster_id), "pools": pools_in_use(cluster_id)}
    return _tab(request, cluster_id, "interruptions", facts)


@page_for(Role.MEMBER)
@require_POST
def pause(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Stop every voluntary act on the cluster."""
    return _switch(request, cluster_id, is_paused=True)


@page_for(Role.MEMBER)
@require_POST
def resume(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Let plans touch the cluster again."""
    return _switch(request, cluster_id, is_paused=False)


def _switch(request: HttpRequest, cluster_id: UUID, *, is_paused: bool) -> HttpResponse:
    cluster = registry.set_maintenance(
        cluster_id=cluster_id,
        is_paused=is_paused,
        reason=request.POST.get("reason", "").strip()[:255],
        typed_name=request.POST.get("name", "").strip(),
        actor=actor_of(request),
    )
    messages.success(request, f"{cluster.name} is {'paused' if is_paused else 'no longer paused'}.")
    return redirect("clusters:detail", cluster_id=cluster_id)


@page_for(Role.VIEWER)
@require_GET
def agent(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show whether the cluster's agent is in contact, and how to install it."""
    return _tab(request, cluster_id, "agent", {"events": detail.recent_events(cluster_id)})


@page_for(Role.VIEWER)
@require_GET
def cluster_cost(request: HttpRequest, cluster_id: UUID) -> JsonResponse:
    """Return the cluster's cost over time, for its chart."""
    detail.cluster_head(cluster_id, now=utcnow())
    points = fleet.cost_history(history_wanted(request), now=utcnow(), cluster_id=cluster_id)
    return JsonResponse({"points": [{"at": p.at, "usd_per_hour": p.usd_per_hour} for p in points]})


def _tab(request: HttpRequest, cluster_id: UUID, tab: str, facts: dict[str, object]) -> HttpResponse:
    head = detail.cluster_head(cluster_id, now=utcnow())
    template = template_for(request, "clusters", tab)
    return render(request, template, {"section": "clusters", "tab": tab, "cluster": head, **facts})
