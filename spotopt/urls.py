"""Every HTTP path: pages at the root, the API under ``/api/v1/``."""

from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.urls import include, path

from accounts.api_urls import template_urls
from spotopt import views

handler400 = views.bad_request
handler403 = views.permission_denied
handler404 = views.not_found
handler500 = views.server_error

urlpatterns = [
    *template_urls,
    path("api/schema", views.Schema.as_view(), name="api-schema"),
    path("api/docs", login_required(views.Docs.as_view()), name="api-docs"),
    path("api/v1/", include("accounts.api_urls")),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("api/v1/", include("agentapi.api_urls")),
    path("api/v1/", include("policies.api_urls")),
    path("api/v1/", include("clusters.connect_urls")),
    path("api/v1/", include("clusters.api_urls")),
    path("api/v1/", include("mlregistry.api_urls")),
    path("api/v1/", include("hibernation.api_urls")),
    path("api/v1/", include("audit.api_urls")),
    path("", include("policies.urls")),
    path("", include("clusters.urls")),
    path("", include("audit.urls")),
    path("", include("accounts.urls")),
    path("", include("agentapi.urls")),
    path("clusters/<uuid:cluster_id>/agent/command", views.agent_command, name="agent-command"),
    path("styleguide/", views.styleguide, name="styleguide"),
    path("admin/", admin.site.urls),
]
