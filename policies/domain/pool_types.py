"""Which instance types a node pool of ours may name.

They are those that the customer's requirements, the template and the policy allow, that are unlikely to be
taken back in any zone, and that others do not beat in room and price.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any

from policies.domain.model import architecture
from policies.domain.policy import Rules
from policies.domain.selection import allowed_offers, effective_prices, worthwhile
from policies.domain.shapes import CapacityType, Offer

CAPACITY_TYPE = "karpenter.sh/capacity-type"
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
LEAVING_MARGIN = 0.1
"""A type that is named already stays until its risk is this far above the policy's limit: Karpenter replaces
the nodes of a type that is not named any more."""
ENOUGH = 5
"""A type goes when so many others have no less room for no higher price."""
_AWS = "karpenter.k8s.aws"
_FAMILY = re.compile(r"([a-z]+)(?:-[0-9]+tb)?([0-9]+)")
Requirement = Mapping[str, Any]


def types_worth_launching(
    requirements: Sequence[Requirement],
    listed: Collection[str],
    offers: Sequence[Offer],
    rules: Rules,
    now: datetime,
    *,
    largest_vcpus: int,
) -> tuple[str, ...]:
    """Return the instance types to name, sorted; those ``listed`` stay while nothing forbids them.

    None that is larger than ``largest_vcpus`` is named anew, so that losing one node stays small. A pool
    that is out of capacity is no reason: Karpenter itself passes over it for a while.
    """
    regular = _on_demand_prices(offers)
    spot = [
        replace(offer, back_off_until=None)
        for offer in offers
        if offer.capacity_type is CapacityType.SPOT and _admits(requirements, offer)
    ]
    spot = [each for each in spot if each.usd_per_hour < regular.get(each.instance_type, Decimal("Infinity"))]
    safe = _safe_everywhere(spot, rules, now)
    lenient = replace(rules, max_risk=min(1.0, rules.max_risk + LEAVING_MARGIN))
    kept = _safe_everywhere(spot, lenient, now).keys() & set(listed)
    chosen = [offer for group in safe.values() for offer in group if _vcpus(offer) <= largest_vcpus]
    cheap = worthwhile(chosen, effective_prices(chosen, rules), (), ENOUGH) if chosen else []
    return tuple(sorted({offer.instance_type for offer in cheap} | kept))


def admits_value(requirements: Sequence[Requirement], key: str, value: str | None) -> bool:
    """Tell whether every requirement on the key lets the value pass; None is a label that is not there."""
    return all(_holds(each, value) for each in requirements if each["key"] == key)


def _admits(requirements: Sequence[Requirement], offer: Offer) -> bool:
    """Tell whether the requirements let nodes of the offer pass; labels not known here say nothing."""
    return all(admits_value(requirements, key, value) for key, value in _labels(offer).items())


def _labels(offer: Offer) -> dict[str, str]:
    """Return the labels that Karpenter gives to nodes of the offer (karpenter.sh, "Scheduling")."""
    family, _, size = offer.instance_type.partition(".")
    named = _FAMILY.match(family)
    category, generation = named.groups() if named else ("", "")
    return {
        INSTANCE_TYPE: offer.instance_type,
        "kubernetes.io/arch": architecture(offer.arch),
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": offer.zone,
        "topology.k8s.aws/zone-id": offer.zone_id,
        f"{_AWS}/instance-family": family,
        f"{_AWS}/instance-size": size,
        f"{_AWS}/instance-category": category,
        f"{_AWS}/instance-generation": generation,
        f"{_AWS}/instance-cpu": str(_vcpus(offer)),
    }


def _vcpus(offer: Offer) -> int:
    """Return the CPUs of a node: all types but the smallest have an even number, and few of them reserved."""
    millis = offer.allocatable.cpu_millis
    return 1 if millis <= 1000 else -(-millis // 2000) * 2  # noqa: PLR2004  # thousandths


def _holds(requirement: Requirement, value: str | None) -> bool:
    values: Sequence[str] = requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case operator if value is not None and value.isdigit():
            return _COMPARED[operator](int(value), int(values[0]))
    return False


_COMPARED: Mapping[str, Callable[[int, int], bool]] = {"Gt": gt, "Gte": ge, "Lt": lt, "Lte": le}


def _safe_everywhere(spot: Sequence[Offer], rules: Rules, now: datetime) -> dict[str, list[Offer]]:
    """Return the offers by type, without the types of which any zone's pool is refused.

    A node pool names types and zones apart, so that naming a type names it in each of its zones.
    """
    by_type: dict[str, list[Offer]] = defaultdict(list)
    for offer in spot:
        by_type[offer.instance_type].append(offer)
    allowed, _ = allowed_offers(spot, rules, now)
    passed = {offer.pool for offer in allowed}
    return {name: group for name, group in by_type.items() if all(offer.pool in passed for offer in group)}


def _on_demand_prices(offers: Sequence[Offer]) -> dict[str, Decimal]:
    return {o.instance_type: o.usd_per_hour for o in offers if o.capacity_type is CapacityType.ON_DEMAND}
