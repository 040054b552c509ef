"""Django's registration of the app."""

from django.apps import AppConfig


class HibernationConfig(AppConfig):
    """The hibernation app."""

    name = "hibernation"
