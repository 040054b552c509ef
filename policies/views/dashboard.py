"""The dashboard, and the palette that jumps anywhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from accounts.models import Account
from accounts.permissions import Role, page_for
from accounts.selectors import linked_accounts
from audit.selectors import ActivityFilter, activity_page
from clusters.domain.contact import is_stale
from clusters.selectors import fleet
from clusters.selectors.inside import nodes_matching
from clusters.selectors.listing import clusters_matching
from clusters.views.scope import account_in_view, history_wanted
from policies.selectors import pages
from spotopt.core.clock import utcnow

_MATCHES = 6


@dataclass(frozen=True, slots=True)
class Notice:
    """Something on the dashboard that wants attention, and where to give it."""

    tone: str
    icon: str
    text: str
    href: str
    act: str
    since: datetime | None = None


@page_for(Role.VIEWER)
@require_GET
def dashboard(request: HttpRequest) -> HttpResponse:
    """Show what the fleet costs, what was saved and what could be."""
    account_id, now = account_in_view(request), utcnow()
    clusters, heard = pages.setup_progress(account_id)
    reported_at = fleet.oldest_report(account_id)
    accounts = list(linked_accounts())
    facts = {
        "section": "dashboard",
        "fleet": fleet.fleet(account_id),
        "booked": fleet.booked(account_id, now=now),
        "potential": pages.potential(account_id),
        "plans": pages.open_plans(account_id),
        "composition": fleet.composition(account_id),
        "activity": activity_page(ActivityFilter(is_summary=True), size=7),
        "accounts": accounts,
        "reported_at": reported_at,
        "notices": list(
            _notices(accounts, clusters, heard, reported_at if is_stale(reported_at, now) else None)
        ),
        "history": history_wanted(request),
        "histories": list(fleet.History),
    }
    if not request.htmx:  # type: ignore[attr-defined]  # set by django-htmx
        facts["points"] = fleet.cost_history(history_wanted(request), now=now, account_id=account_id)
        return render(request, "policies/dashboard.html", facts)
    return render(request, "policies/_dashboard_parts.html", facts)


def _notices(
    accounts: list[Account], clusters: int, heard: int, stale_since: datetime | None
) -> Iterator[Notice]:
    for account in accounts:
        if account.status == Account.Status.ERROR:
            text = f"{account.alias} cannot be read. {account.last_error_message}"
            yield Notice(
                "danger", "alert", text, reverse("clusters:account", args=[account.pk]), "Look into it"
            )
        elif account.status == Account.Status.PENDING:
            href = reverse("clusters:onboarding-role", args=[account.pk])
            yield Notice("warn", "link", f"{account.alias} is not verified yet.", href, "Go on")
        elif account.status == Account.Status.SCANNING and account.last_scan_at is None:
            href = reverse("clusters:onboarding-scan", args=[account.pk])
            yield Notice("plain", "refresh", f"{account.alias} is scanned for the first time.", href, "Watch")
    clusters_url = reverse("clusters:list")
    if heard < clusters:
        text = f"{heard} of {clusters} clusters have an agent that reports; savings are computed for those."
        yield Notice("plain", "agent", text, f"{clusters_url}?agent=never", "Connect agents")
    if stale_since is not None:
        text = "A cluster has not reported for over 15 minutes; its numbers are old."
        yield Notice("warn", "clock", text, f"{clusters_url}?agent=lost", "See which", stale_since)


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
