"""What machines cost now, and how old the answer is."""

from collections.abc import Iterable

from clusters.domain.market import Quote, estimated_spot
from clusters.models import InterruptionRate, Price

Pool = tuple[str, str, str]
"""Zone id (empty for on-demand), instance type, capacity type."""

SPOT, ON_DEMAND = "spot", "on_demand"


def price_of(*, region: str, zone_id: str, instance_type: str, capacity_type: str) -> Quote | None:
    """Return the last known price of a pool, or None when nothing is known.

    A spot pool that was never observed is estimated from the on-demand price and Spot Advisor's saving.
    """
    found = quotes(region=region, zone_ids=[zone_id], instance_types=[instance_type])
    zone = zone_id if capacity_type == SPOT else ""
    return found.get((zone, instance_type, capacity_type))


def quotes(
    *, region: str, zone_ids: Iterable[str], instance_types: Iterable[str] | None = None
) -> dict[Pool, Quote]:
    """Return the price of every pool of a region in two queries; spot pools in the zones that are named."""
    zones = list(dict.fromkeys(zone_ids))
    prices = Price.objects.filter(region=region, zone_id__in=["", *zones])
    rates = InterruptionRate.objects.filter(region=region, os="Linux")
    if instance_types is not None:
        names = list(instance_types)
        prices, rates = prices.filter(instance_type__in=names), rates.filter(instance_type__in=names)
    found: dict[Pool, Quote] = {
        (zone_id, kind, capacity): Quote(usd, source, observed_at)
        for zone_id, kind, capacity, usd, source, observed_at in prices.values_list(
            "zone_id", "instance_type", "capacity_type", "usd_per_hour", "source", "observed_at"
        )
    }
    for kind, savings in rates.values_list("instance_type", "savings_percent"):
        on_demand = found.get(("", kind, ON_DEMAND))
        for zone in zones if on_demand else ():
            found.setdefault((zone, kind, SPOT), estimated_spot(on_demand, savings))  # type: ignore[arg-type]
    return found
