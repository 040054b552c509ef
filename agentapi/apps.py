"""Django's registration of the app."""

from django.apps import AppConfig


class AgentAPIConfig(AppConfig):
    """The agentapi app."""

    name = "agentapi"
