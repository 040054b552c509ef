"""What the address and the session say about the view: which account, how far back, all or a part."""

from uuid import UUID

from django.http import HttpRequest

from accounts.permissions import membership_in
from clusters.selectors.fleet import History


def account_in_view(request: HttpRequest) -> UUID | None:
    """Return the AWS account that the person looks at; None for all."""
    membership = membership_in(request)
    return membership.active_account_id if membership else None


def history_wanted(request: HttpRequest) -> History:
    """Return how far back the chart looks; a day when the address says nothing that we know."""
    wanted = request.GET.get("range", "")
    return History(wanted) if wanted in set(History) else History.DAY


def template_for(request: HttpRequest, folder: str, name: str) -> str:
    """Return the page's template, or that of its part when htmx asks for one."""
    is_part = request.htmx  # type: ignore[attr-defined]  # set by django-htmx
    return f"{folder}/{'_' if is_part else ''}{name}.html"
