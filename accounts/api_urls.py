"""Paths of the accounts API, under ``/api/v1/``, and of the public CloudFormation template."""

from django.urls import path

from accounts import api

urlpatterns = [
    path("auth/signup", api.SignUp.as_view(), name="auth-signup"),
    path("auth/token", api.Token.as_view(), name="auth-token"),
    path("auth/token/refresh", api.TokenRefresh.as_view(), name="auth-token-refresh"),
    path("auth/logout", api.Logout.as_view(), name="auth-logout"),
    path("auth/me", api.Me.as_view(), name="auth-me"),
    path("auth/change-password", api.ChangePassword.as_view(), name="auth-change-password"),
    path("connect/link", api.Link.as_view(), name="connect-link"),
    path("onboard/skip", api.SkipOnboarding.as_view(), name="onboard-skip"),
    path("settings/accounts", api.Accounts.as_view(), name="settings-accounts"),
    path(
        "settings/accounts/<uuid:account_id>",
        api.AccountDisconnection.as_view(),
        name="settings-account",
    ),
    path("accounts/<uuid:account_id>", api.AccountDetail.as_view(), name="account"),
    path("settings/context", api.Context.as_view(), name="settings-context"),
    path("settings/team", api.Team.as_view(), name="settings-team"),
    path("settings/profile", api.Profile.as_view(), name="settings-profile"),
]

template_urls = [
    path("connect/template/<slug:mode>.json", api.connect_template, name="connect-template"),
]
