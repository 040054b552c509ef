"""Which pools may be bought from, which of them are worth a look, and what replaces a dry one."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from decimal import Decimal

import numpy as np

from policies.domain.diversification import first_of_each
from policies.domain.interruption_cost import expected_usd_per_hour, losses_per_hour
from policies.domain.model import BoolArray, architecture, place_of_offer, vector
from policies.domain.plan import Refusal
from policies.domain.policy import Rules
from policies.domain.refusals import Code
from policies.domain.shapes import CapacityType, Offer, Workload

Pool = tuple[str, str]
"""Instance type and zone: the pool that share caps count."""

RESTART_HOURS = {"lowest_price": 0.0, "balanced": 6.0, "capacity_optimized": 12.0}
"""What one interruption costs, in hours of the price of the node and all that runs on it, by the policy's
strategy. It is nothing, too, where the template asks for the cheapest pools."""
GENERATION_WEIGHT = 0.10
"""What each generation behind the newest adds to the price under the strategy ``performance``."""
MAX_ALTERNATIVES = 6
MAX_ALTERNATIVE_PRICE = Decimal("1.5")
"""Spot pools dearer than this many times the chosen one are no alternative to it."""

Test = Callable[[Offer, Rules, datetime], bool]


def _wrong_size(offer: Offer, rules: Rules, _now: datetime) -> bool:
    size = offer.instance_type.partition(".")[2]
    return any(size == refused or size.startswith(f"{refused}-") for refused in rules.template.excluded_sizes)


def _wrong_capacity_type(offer: Offer, rules: Rules, _now: datetime) -> bool:
    return rules.template.capacity_type == "on_demand" and offer.capacity_type is CapacityType.SPOT


_TESTS: tuple[tuple[Code, str, Test], ...] = (
    (
        Code.POOL_FAMILY,
        "the template does not list the family",
        lambda o, r, _: o.family not in r.template.families,
    ),
    (Code.POOL_SIZE, "the template excludes the size", _wrong_size),
    (
        Code.POOL_ARCHITECTURE,
        "the template asks for another processor architecture",
        lambda o, r, _: architecture(o.arch) != architecture(r.template.architecture),
    ),
    (Code.POOL_CAPACITY_TYPE, "the template allows on-demand capacity only", _wrong_capacity_type),
    (
        Code.POOL_BURSTABLE,
        "the policy blocks burstable types",
        lambda o, r, _: r.block_burstable and o.burstable,
    ),
    (
        Code.EXCLUDED_TYPE,
        "the policy excludes the instance type",
        lambda o, r, _: o.instance_type in r.excluded_instance_types,
    ),
    (
        Code.POOL_PRICE,
        "the price is unknown or above the policy's limit",
        lambda o, r, _: (
            o.usd_per_hour <= 0
            or (r.max_price_per_hour is not None and o.usd_per_hour > r.max_price_per_hour)
        ),
    ),
    (
        Code.POOL_RISK,
        "the interruption risk is above the policy's limit",
        lambda o, r, _: o.interruption_risk > r.max_risk,
    ),
    (
        Code.POOL_BACK_OFF,
        "the pool ran out of capacity and is backing off",
        lambda o, _, now: o.back_off_until is not None and o.back_off_until > now,
    ),
)


def allowed_offers(offers: Sequence[Offer], rules: Rules, now: datetime) -> tuple[list[Offer], list[Refusal]]:
    """Return the offers that template and policy allow, and one refusal per reason and family."""
    allowed: list[Offer] = []
    refused: dict[tuple[Code, str, str], list[str]] = defaultdict(list)
    for offer in offers:
        failed = next(((code, why) for code, why, test in _TESTS if test(offer, rules, now)), None)
        if failed is None:
            allowed.append(offer)
        else:
            refused[(*failed, offer.family)].append(offer.pool)
    refusals = [
        Refusal("pool", family, code.value, f"{_pools(names)} of {family}: {why}.")
        for (code, why, family), names in sorted(refused.items())
    ]
    return sorted(allowed, key=lambda offer: (offer.usd_per_hour, offer.pool)), refusals


def _pools(names: list[str]) -> str:
    return f"1 pool ({names[0]})" if len(names) == 1 else f"{len(names)} pools"


def effective_prices(offers: Sequence[Offer], rules: Rules) -> list[float]:
    """Return the expected cost of each offer, USD per hour: its interruptions and its age charged on top."""
    strategy = rules.template.strategy
    restart_hours = 0.0 if strategy == "cheapest" else RESTART_HOURS[rules.strategy]
    newest = max((_generation(offer.family) for offer in offers), default=0)
    age_weight = GENERATION_WEIGHT if strategy == "performance" else 0.0
    return [
        expected_usd_per_hour(
            float(offer.usd_per_hour) * (1 + age_weight * (newest - _generation(offer.family))),
            losses_per_hour(offer.interruption_risk),
            restart_hours,
        )
        for offer in offers
    ]


def cell(offer: Offer) -> Hashable:
    """Return what pools share that run dry together: sizes of one family in a zone share their hosts."""
    return offer.family, offer.zone, offer.capacity_type


def _generation(family: str) -> int:
    digits = re.search(r"\d+", family)
    return int(digits.group()) if digits else 0


def worthwhile(
    offers: Sequence[Offer], prices: Sequence[float], workloads: Sequence[Workload], enough: int
) -> list[Offer]:
    """Return the offers that fewer than ``enough`` others of their kind beat in room and price.

    Offers are of one kind when no workload can tell them apart but by room and price.
    """
    keys = sorted(_referenced_labels(workloads))
    kinds: dict[tuple[str | None, ...], list[int]] = defaultdict(list)
    for index, offer in enumerate(offers):
        labels = place_of_offer(offer, "").labels
        kinds[(offer.zone, offer.capacity_type, *(labels.get(key) for key in keys))].append(index)
    charged = np.array(prices)
    rooms = np.array([vector(offer.allocatable - offer.daemon_overhead) for offer in offers])
    kept: list[int] = []
    for members in kinds.values():
        chosen = np.array(members)
        room, price = rooms[chosen], charged[chosen]
        better = (room[None, :, :] >= room[:, None, :]).all(axis=2) & (price[None, :] <= price[:, None])
        np.fill_diagonal(better, val=False)
        better &= ~(better.T & (chosen[None, :] > chosen[:, None]))  # of equals, the first is better
        kept.extend(int(index) for index in chosen[better.sum(axis=1) < enough])
    return [offers[index] for index in sorted(kept)]


def _referenced_labels(workloads: Sequence[Workload]) -> set[str]:
    used: set[str] = set()
    for workload in workloads:
        used.update(workload.node_selector)
        used.update(each.key for term in (workload.requirements, *workload.alternatives) for each in term)
        used.update(rule.topology_key for rule in workload.spread)
        used.update(workload.anti_affinity_keys)
        used.update(term.topology_key for term in (*workload.pod_affinity, *workload.pod_anti_affinity))
    return used


def substitutes(chosen: Offer, offers: Sequence[Offer], holds: BoolArray, rules: Rules) -> tuple[str, ...]:
    """Return the pools to try when the chosen one is dry: cheapest first, on-demand last.

    There is one for each family and zone, and none of the chosen one's while others are left.
    ``offers`` are cheapest first, and ``holds`` says which of them hold the same pods.
    """
    limit = chosen.usd_per_hour * MAX_ALTERNATIVE_PRICE
    able = [offers[int(index)] for index in np.flatnonzero(holds) if offers[int(index)].pool != chosen.pool]
    alike = [o for o in able if o.capacity_type is chosen.capacity_type and o.usd_per_hour <= limit]
    alike = sorted(first_of_each(alike, cell), key=lambda offer: cell(offer) == cell(chosen))
    names = [offer.pool for offer in alike[:MAX_ALTERNATIVES]]
    if chosen.capacity_type is CapacityType.SPOT and rules.fallback_on_demand:
        names += [offer.pool for offer in able if offer.capacity_type is CapacityType.ON_DEMAND][:1]
    return tuple(names)
