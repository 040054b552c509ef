"""Serve interruption risk, and remember pools that AWS has just taken a node from."""

from collections.abc import Collection
from datetime import timedelta

from django.db.models import Q

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


def flag_pools() -> int:
    """Flag every pool that took nodes back within the last half hour, for all organizations; return how many.

    AWS has to have said so itself, or two organizations that know nothing of each other; one that is
    mistaken, or lies, keeps nobody else from a pool (threats, Z17). Flags name a pool and an end, no tenant.
    """
    flagged = 0
    for pool in selectors.pools_taken_from(utcnow() - FLAG_LASTS):
        until = pool.last_at + FLAG_LASTS
        state, is_new = PoolState.objects.get_or_create(
            zone_id=pool.zone_id,
            instance_type=pool.instance_type,
            capacity_type="spot",
            defaults={"region": pool.region, "flagged_until": until},
        )
        later = Q(flagged_until=None) | Q(flagged_until__lt=until)
        flagged += is_new or PoolState.objects.filter(later, pk=state.pk).update(flagged_until=until)
    return flagged
