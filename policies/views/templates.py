"""Pages of node templates: the list, one template's form, and what can be done with it."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.permissions import Role, actor_of, page_for, require_role
from clusters.views.scope import template_for
from policies.forms.template import TemplateForm
from policies.selectors.templates import family_groups, template_named, template_page_of
from policies.services import templates as services
from spotopt.core.form_problems import problems_on

_BLANK = services.TemplateDraft(name="", families=())


@page_for(Role.VIEWER)
@require_GET
def template_list(request: HttpRequest) -> HttpResponse:
    """Show the organization's templates."""
    search = request.GET.get("q", "").strip()
    facts = {
        "section": "templates",
        "page": template_page_of(search=search, after=request.GET.get("after", "")),
        "q": search,
    }
    return render(request, template_for(request, "policies", "template_list"), facts)


@page_for(Role.MEMBER)
@require_http_methods(["GET", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    """Show or take the form of a new template."""
    form = TemplateForm(request.POST or None, catalogue=family_groups(), draft=_BLANK)
    if form.is_valid():
        with problems_on(form):
            draft = services.TemplateDraft(**form.changes())
            template = services.create_template(draft=draft, actor=actor_of(request))
            messages.success(request, f"{template.name} is created.")
            return redirect("policies:template", template_id=template.pk)
    facts = {"section": "templates", "form": form}
    return render(request, "policies/template_new.html", facts, status=400 if form.errors else 200)


@page_for(Role.VIEWER)
@require_http_methods(["GET", "POST"])
def template(request: HttpRequest, template_id: UUID) -> HttpResponse:
    """Show a template; members change it, unless it is one of the system's."""
    if request.method == "POST":
        require_role(actor_of(request), Role.MEMBER)
    stored = template_named(template_id)
    draft = services.draft_of(stored)
    form = TemplateForm(request.POST or None, catalogue=family_groups(), draft=draft, version=stored.version)
    if form.is_valid():
        with problems_on(form):
            saved = services.update_template(
                template_id=template_id,
                changes=form.changes(),
                version=form.cleaned_data["version"],
                actor=actor_of(request),
            )
            messages.success(request, f"{saved.name} is saved; new values apply at the next launch.")
            return redirect("policies:template", template_id=template_id)
    facts = {
        "section": "templates",
        "template": stored,
        "form": form,
        "findings": services.examine_draft(draft),
    }
    return render(request, "policies/template.html", facts, status=400 if form.errors else 200)


@page_for(Role.MEMBER)
@require_POST
def clone(request: HttpRequest, template_id: UUID) -> HttpResponse:
    """Make a copy that may be changed."""
    copy = services.clone_template(template_id=template_id, actor=actor_of(request))
    messages.success(request, f"{copy.name} is yours to change.")
    return redirect("policies:template", template_id=copy.pk)


@page_for(Role.MEMBER)
@require_POST
def make_default(request: HttpRequest, template_id: UUID) -> HttpResponse:
    """Make it the template that new policies get."""
    starred = services.set_default(template_id=template_id, actor=actor_of(request))
    messages.success(request, f"New policies get {starred.template.name}.")
    return redirect("policies:template", template_id=template_id)


@page_for(Role.MEMBER)
@require_POST
def delete(request: HttpRequest, template_id: UUID) -> HttpResponse:
    """Hide it for good; refused while a cluster uses it."""
    gone = services.delete_template(template_id=template_id, actor=actor_of(request))
    messages.success(request, f"{gone.name} is deleted.")
    return redirect("policies:templates")
