"""Pool flags: one tick shares what AWS took back."""

from celery import shared_task

from mlregistry import services
from spotopt.core.tasks import PlatformTask


@shared_task(base=PlatformTask, name="mlregistry.flag_pools")
def flag_pools() -> int:
    """Flag the pools that took nodes back."""
    return services.flag_pools()
