"""Pages of people: sign in and up, the way in, and personal and team settings."""

from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout, update_session_auth_hash
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts import platform, selectors, services
from accounts.domain.origin import Origin
from accounts.forms import ChangePasswordForm, ProfileForm, SignInForm, SignUpForm
from accounts.models import User
from accounts.permissions import Role, actor_of, membership_in, page_for, staff_of, staff_page
from spotopt.core.errors import InvalidInput, NotFound
from spotopt.core.form_problems import problems_on


@require_GET
def gateway(request: HttpRequest) -> HttpResponse:
    """Send each visitor to where they belong: sign-in, onboarding, dashboard or the staff's admin."""
    if not isinstance(request.user, User):
        return redirect("accounts:login")
    return redirect(selectors.gateway_of(request.user, membership_in(request)).redirect_path)


@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """Show or take the sign-in form."""
    if request.user.is_authenticated:
        return redirect("accounts:gateway")
    form = SignInForm(request.POST or None)
    if form.is_valid():
        with problems_on(form):
            signed_in = services.sign_in(**form.cleaned_data, origin=_origin(request))
            return _enter(request, signed_in.user)
    return _entry(request, "signin", form)


@require_http_methods(["GET", "POST"])
def sign_up(request: HttpRequest) -> HttpResponse:
    """Show or take the sign-up form."""
    if request.user.is_authenticated:
        return redirect("accounts:gateway")
    form = SignUpForm(request.POST or None)
    if form.is_valid():
        with problems_on(form):
            signed_up = services.sign_up(**form.cleaned_data, origin=_origin(request))
            return _enter(request, signed_up.user)
    return _entry(request, "signup", form)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    logout(request)
    return redirect("accounts:login")


@require_GET
def no_organization(request: HttpRequest) -> HttpResponse:
    """Tell somebody who belongs to no organization what to do."""
    return render(request, "accounts/no_organization.html")


@page_for(Role.VIEWER)
@require_http_methods(["GET", "POST"])
def context(request: HttpRequest) -> HttpResponse:
    """List the AWS accounts, or look at one of them (or at all)."""
    if request.method == "POST":
        services.switch_context(actor=actor_of(request), account_id=_account_id(request))
        return redirect(_local(request, request.POST.get("next", "")) or "policies:dashboard")
    template = "accounts/_context.html" if request.htmx else "accounts/context.html"  # type: ignore[attr-defined]  # htmx
    return render(
        request,
        template,
        {
            "accounts": selectors.linked_accounts(),
            "back": _local(request, request.headers.get("HX-Current-URL", "")),
        },
    )


@page_for(Role.VIEWER)
@require_http_methods(["GET", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """Show a person's own settings, or take a new name."""
    form = ProfileForm(request.POST or None, initial={"name": getattr(request.user, "name", "")})
    if request.method == "POST" and form.is_valid():
        services.update_profile(actor=actor_of(request), name=form.cleaned_data["name"])
        messages.success(request, "Your name is saved.")
        return redirect("accounts:profile")
    return _profile(request, form, ChangePasswordForm())


@page_for(Role.VIEWER)
@require_POST
def password(request: HttpRequest) -> HttpResponse:
    """Take a new password; every other session ends."""
    form = ChangePasswordForm(request.POST)
    if form.is_valid():
        with problems_on(form):
            user = services.change_password(actor=actor_of(request), **form.cleaned_data)
            update_session_auth_hash(request, user)
            messages.success(request, "Your password is changed. Other sessions are signed out.")
            return redirect("accounts:profile")
    return _profile(request, ProfileForm(initial={"name": getattr(request.user, "name", "")}), form)


@page_for(Role.VIEWER)
@require_GET
def organization(request: HttpRequest) -> HttpResponse:
    """Show the organization."""
    return render(request, "accounts/organization.html", {"section": "settings", "tab": "organization"})


@page_for(Role.VIEWER)
@require_GET
def team(request: HttpRequest) -> HttpResponse:
    """Show who belongs to the organization and in which role."""
    members = selectors.team_of(actor_of(request).organization_id)  # type: ignore[arg-type]  # page_for saw it
    return render(request, "accounts/team.html", {"section": "settings", "tab": "team", "members": members})


def _entry(request: HttpRequest, tab: str, form: forms.Form) -> HttpResponse:
    facts = {"form": form, "tab": tab, "next": _local(request, request.GET.get("next", ""))}
    return render(request, "accounts/entry.html", facts, status=400 if form.errors else 200)


def _profile(request: HttpRequest, form: forms.Form, password_form: forms.Form) -> HttpResponse:
    facts = {"form": form, "password_form": password_form, "section": "settings", "tab": "profile"}
    failed = form.errors or password_form.errors
    return render(request, "accounts/profile.html", facts, status=400 if failed else 200)


@staff_page
@require_GET
def console(request: HttpRequest) -> HttpResponse:
    """Show the switches of the whole platform to its staff."""
    return render(request, "accounts/console.html", {"section": "console", "mode": platform.get_safe_mode()})


@staff_page
@require_POST
def safe_mode(request: HttpRequest) -> HttpResponse:
    """Throw the switch for every organization, once its new position was typed."""
    wanted = request.POST.get("value", "")
    if request.POST.get("typed", "").strip().lower() != wanted:
        raise InvalidInput(f"Type {wanted} to confirm.", errors={"typed": [f"must be exactly {wanted}."]})
    mode = platform.set_safe_mode(actor=staff_of(request), value=wanted)
    messages.success(request, f"Safe mode is {mode} for every organization.")
    return redirect("accounts:console")


def _enter(request: HttpRequest, user: User) -> HttpResponse:
    login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    return redirect(_local(request, request.GET.get("next", "")) or "accounts:gateway")


def _account_id(request: HttpRequest) -> UUID | None:
    try:
        return UUID(chosen) if (chosen := request.POST.get("account_id", "")) else None
    except ValueError:
        raise NotFound("There is no such account.") from None


def _local(request: HttpRequest, url: str) -> str:
    """Return the address when it is ours; empty otherwise."""
    hosts = {request.get_host()}
    ours = url_has_allowed_host_and_scheme(url, allowed_hosts=hosts, require_https=request.is_secure())
    return url if ours else ""


def _origin(request: HttpRequest) -> Origin:
    return Origin(
        ip_address=request.META.get("REMOTE_ADDR") or None,
        user_agent=request.headers.get("User-Agent", "")[:512],
        request_id=request.headers.get("X-Request-ID", "")[:64],
    )
