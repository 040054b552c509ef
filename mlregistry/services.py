"""Serve interruption risk, and remember pools that AWS has just taken a node from."""

from collections.abc import Collection
from datetime import timedelta

from clusters.models import PoolState
from mlregistry import selectors
from mlregistry.domain.heuristic import interruption_risk, relative_range
from spotopt.core.clock import utcnow

FLAG_LASTS = timedelta(seconds=1800)
Pool = tuple[str, str]
"""(zone id, instance type)."""
_NO_SIGNS = selectors.PoolSigns(low=None, high=None, is_flagged=False)


def interruption_risks(*, region: str, pools: Collection[Pool]) -> dict[Pool, float]:
    """Return each spot pool's probability of an interruption within 24 hours (two queries)."""
    if not pools:
        return {}
    buckets = selectors.buckets(region, {instance_type for _, instance_type in pools})
    signs = selectors.pool_signs(region, {zone_id for zone_id, _ in pools})
    risks = {}
    for pool in pools:
        sign = signs.get(pool, _NO_SIGNS)
        risks[pool] = interruption_risk(
            bucket=buckets.get(pool[1]),
            price_range=relative_range(sign.low, sign.high),
            is_flagged=sign.is_flagged,
        )
    return risks


def flag_pool(*, region: str, zone_id: str, instance_type: str) -> PoolState:
    """Count the pool as dangerous for the next half hour; a later interruption extends it."""
    pool, _ = PoolState.objects.update_or_create(
        zone_id=zone_id,
        instance_type=instance_type,
        capacity_type="spot",
        defaults={"region": region, "flagged_until": utcnow() + FLAG_LASTS},
    )
    return pool
