"""Django's registration of the app."""

from django.apps import AppConfig


class ClustersConfig(AppConfig):
    """The clusters app."""

    name = "clusters"
