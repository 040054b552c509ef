"""Pages of plans: the list, one plan, and the decisions about it."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from accounts.permissions import Role, actor_of, page_for
from clusters.selectors.detail import cluster_head
from clusters.views.scope import account_in_view, template_for
from policies.selectors import pages
from policies.services import execution, planning
from policies.services.jobs import cancel_job
from spotopt.core.clock import utcnow


@page_for(Role.VIEWER)
@require_GET
def plan_list(request: HttpRequest) -> HttpResponse:
    """Show the plans of the account in view, newest first."""
    status = request.GET.get("status", "")
    page = pages.plan_page_of(
        after=request.GET.get("after", ""), status=status, account_id=account_in_view(request)
    )
    facts = {"section": "plans", "page": page, "status": status}
    return render(request, template_for(request, "policies", "plans"), facts)


@page_for(Role.VIEWER)
@require_GET
def plan_detail(request: HttpRequest, plan_id: UUID) -> HttpResponse:
    """Show one plan: money, risk, steps, refusals, and how far it has come."""
    facts = {"section": "plans", "page": pages.plan_page(plan_id, now=utcnow())}
    return render(request, template_for(request, "policies", "plan"), facts)


@page_for(Role.MEMBER)
@require_POST
def approve(request: HttpRequest, plan_id: UUID) -> HttpResponse:
    """Start carrying the plan out."""
    plan = execution.approve_plan(plan_id=plan_id, actor=actor_of(request))
    messages.success(request, "The plan is approved and starts now.")
    return redirect("policies:plan", plan_id=plan.pk)


@page_for(Role.MEMBER)
@require_POST
def reject(request: HttpRequest, plan_id: UUID) -> HttpResponse:
    """Turn the plan down."""
    plan = execution.reject_plan(
        plan_id=plan_id, actor=actor_of(request), reason=request.POST.get("reason", "").strip()
    )
    messages.success(request, "The plan is rejected; nothing changes.")
    return redirect("policies:plan", plan_id=plan.pk)


@page_for(Role.MEMBER)
@require_POST
def stop(request: HttpRequest, plan_id: UUID) -> HttpResponse:
    """Stop a running plan safely."""
    plan = execution.stop_plan(plan_id=plan_id, actor=actor_of(request))
    messages.success(request, "The plan stops: nothing new starts.")
    return redirect("policies:plan", plan_id=plan.pk)


@page_for(Role.VIEWER)
@require_GET
def cluster_plans(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Show one cluster's plans and the last run of the optimizer."""
    facts = {
        "section": "clusters",
        "tab": "plans",
        "cluster": cluster_head(cluster_id, now=utcnow()),
        "page": pages.plan_page_of(after=request.GET.get("after", ""), cluster_id=cluster_id),
        "job": pages.newest_job(cluster_id),
    }
    return render(request, template_for(request, "policies", "cluster_plans"), facts)


@page_for(Role.MEMBER)
@require_POST
def optimize(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Ask for a new plan."""
    planning.request_optimization(cluster_id=cluster_id, actor=actor_of(request))
    messages.success(request, "Looking for savings. The plan appears here.")
    return redirect("policies:cluster-plans", cluster_id=cluster_id)


@page_for(Role.MEMBER)
@require_POST
def cancel_run(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Stop looking for a plan; what stood before stays."""
    job = cancel_job(job_id=job_id, actor=actor_of(request))
    messages.success(request, "The optimization is cancelled; nothing changed.")
    return redirect("policies:cluster-plans", cluster_id=job.cluster_id)
