"""The market: one tick keeps the spot prices in use fresh."""

from celery import shared_task

from clusters.services import market
from spotopt.core.tasks import PlatformTask


@shared_task(base=PlatformTask, name="clusters.refresh_spot_prices", acks_late=True)
def refresh_spot_prices() -> int:
    """Ask AWS for spot prices where the known ones are due."""
    return market.refresh_spot_prices()
