"""Ticks of the agent API."""

from celery import shared_task

from agentapi.services import presence
from spotopt.core.tasks import PlatformTask


@shared_task(base=PlatformTask, name="agentapi.mark_silent_agents", time_limit=60)
def mark_silent_agents() -> int:
    """Mark agents offline that were silent for a minute, and fail what they will not report; count them."""
    presence.close_dead_deliveries()
    return presence.mark_silent()
