"""Pages of the record: the activity feed, one event, and the check of the chain."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET

from audit.domain.diff import changes
from audit.models import AuditLog
from audit.selectors import RESOURCE_TYPES, ActivityFilter, activity_page, chain_state, event_by_id

Page = Callable[..., HttpResponse]


def for_members(view: Page) -> Page:
    """Guard a page that every member of an organization may read."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        if getattr(request, "membership", None) is None:
            return redirect("accounts:gateway")
        return view(request, *args, **kwargs)

    return guarded


@for_members
@require_GET
def activity(request: HttpRequest) -> HttpResponse:
    """Show what happened, newest first; the filter lives in the URL."""
    query = request.GET
    before = query.get("before", "")
    wanted = ActivityFilter(
        search=query.get("q", "").strip(),
        actor_type=query.get("actor", ""),
        resource_type=query.get("about", ""),
        outcome=query.get("outcome", ""),
        before=int(before) if before.isdecimal() else None,
    )
    facts = {
        "section": "activity",
        "page": activity_page(wanted),
        "wanted": wanted,
        "is_filtered": any((wanted.search, wanted.actor_type, wanted.resource_type, wanted.outcome)),
        "actors": AuditLog.ActorType.choices,
        "outcomes": AuditLog.Outcome.choices,
        "subjects": RESOURCE_TYPES,
    }
    is_part = request.htmx  # type: ignore[attr-defined]  # set by django-htmx
    return render(request, "audit/_activity.html" if is_part else "audit/activity.html", facts)


@for_members
@require_GET
def event(request: HttpRequest, event_id: UUID) -> HttpResponse:
    """Show one event: who, what, and what it changed."""
    row = event_by_id(event_id)
    facts = {"section": "activity", "event": row, "changes": changes(row.before, row.after)}
    return render(request, "audit/event.html", facts)


@for_members
@require_GET
def verify(request: HttpRequest) -> HttpResponse:
    """Check that no event was altered, moved or removed."""
    return render(request, "audit/verify.html", {"section": "activity", "chain": chain_state()})
