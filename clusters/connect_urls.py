"""API paths of the connection to AWS, under ``/api/v1/``."""

from django.urls import path

from clusters import api_connect

urlpatterns = [
    path("connect/verify", api_connect.Verify.as_view(), name="connect-verify"),
    path("accounts/<uuid:account_id>/scan", api_connect.Scan.as_view(), name="account-scan"),
    path("accounts/<uuid:account_id>/resync", api_connect.Resync.as_view(), name="account-resync"),
    path("accounts/<uuid:account_id>/validate", api_connect.Validate.as_view(), name="account-validate"),
    path("clusters/discover", api_connect.Discover.as_view(), name="clusters-discover"),
]
