"""The dashboard, and the palette that jumps anywhere."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from accounts.permissions import Role, page_for
from accounts.selectors import linked_accounts
from audit.selectors import ActivityFilter, activity_page
from clusters.domain.contact import is_stale
from clusters.selectors import fleet
from clusters.selectors.inside import nodes_matching
from clusters.selectors.listing import clusters_matching
from clusters.views.scope import account_in_view, history_wanted, template_for
from policies.selectors import pages
from spotopt.core.clock import utcnow

_MATCHES = 6


@page_for(Role.VIEWER)
@require_GET
def dashboard(request: HttpRequest) -> HttpResponse:
    """Show what the fleet costs, what was saved and what could be."""
    account_id, now = account_in_view(request), utcnow()
    clusters, heard = pages.setup_progress(account_id)
    reported_at = fleet.oldest_report(account_id)
    facts = {
        "section": "dashboard",
        "fleet": fleet.fleet(account_id),
        "booked": fleet.booked(account_id, now=now),
        "potential": pages.potential(account_id),
        "plans": pages.open_plans(account_id),
        "composition": fleet.composition(account_id),
        "activity": activity_page(ActivityFilter(), size=10),
        "accounts": linked_accounts(),
        "clusters_total": clusters,
        "clusters_heard": heard,
        "reported_at": reported_at,
        "is_stale": is_stale(reported_at, now),
        "history": history_wanted(request),
        "histories": list(fleet.History),
    }
    if not request.htmx:  # type: ignore[attr-defined]  # set by django-htmx
        facts["points"] = fleet.cost_history(history_wanted(request), now=now, account_id=account_id)
    return render(request, template_for(request, "policies", "dashboard"), facts)


@page_for(Role.VIEWER)
@require_GET
def cost(request: HttpRequest) -> JsonResponse:
    """Return the fleet's cost over time, for its chart."""
    points = fleet.cost_history(history_wanted(request), now=utcnow(), account_id=account_in_view(request))
    return JsonResponse({"points": [{"at": p.at, "usd_per_hour": p.usd_per_hour} for p in points]})


@page_for(Role.VIEWER)
@require_GET
def palette(request: HttpRequest) -> HttpResponse:
    """Find clusters, nodes, plans and pages by a few letters."""
    text = request.GET.get("q", "").strip()
    facts = {
        "q": text,
        "clusters": clusters_matching(text, limit=_MATCHES),
        "nodes": nodes_matching(text, limit=_MATCHES) if text else [],
        "plans": pages.plans_matching(text, limit=_MATCHES) if text else [],
    }
    return render(request, "policies/_palette.html", facts)
