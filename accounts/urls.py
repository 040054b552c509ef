"""Pages of people, organizations and the way in."""

from django.urls import path

from accounts import views

app_name = "accounts"
page_urls = [
    path("", views.gateway, name="gateway"),
    path("login", views.sign_in, name="login"),
    path("signup", views.sign_up, name="signup"),
    path("logout", views.sign_out, name="logout"),
    path("no-organization", views.no_organization, name="no-organization"),
    path("context", views.context, name="context"),
    path("settings", views.profile, name="settings"),
    path("settings/profile", views.profile, name="profile"),
    path("settings/password", views.password, name="password"),
    path("settings/organization", views.organization, name="organization"),
    path("console", views.console, name="console"),
    path("console/safe-mode", views.safe_mode, name="safe-mode"),
    path("settings/team", views.team, name="team"),
]
urlpatterns = page_urls
