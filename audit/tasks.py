"""Ticks of the record."""

from celery import shared_task

from audit import services
from spotopt.core.tasks import PlatformTask


@shared_task(base=PlatformTask, name="audit.announce_events")
def announce_events() -> int:
    """Announce the events whose own commit did not, oldest first; return how many."""
    return services.announce_pending()
