"""Django's registration of the app."""

from django.apps import AppConfig


class MLRegistryConfig(AppConfig):
    """The mlregistry app."""

    name = "mlregistry"
