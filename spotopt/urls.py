"""Every HTTP path: pages at the root, the API under ``/api/v1/``."""

from django.contrib import admin
from django.urls import path

from spotopt import views

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("admin/", admin.site.urls),
]
