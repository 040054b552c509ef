"""Which places a workload's pods may run on, before looking at room and at other pods."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from policies.domain.model import BoolArray, Place
from policies.domain.shapes import CapacityType, Requirement, SpreadRule, Taint, Toleration, Workload


def signature(workload: Workload) -> Hashable:
    """Return a key that is equal for workloads that accept the same places."""
    return (
        frozenset(workload.node_selector.items()),
        workload.requirements,
        workload.alternatives,
        workload.tolerations,
        workload.pinned_zone,
        workload.spot_tolerant,
    )


def accepts(workload: Workload, place: Place) -> bool:
    """Tell whether the workload's selectors, tolerations, volumes and capacity type allow the place."""
    return (
        reaches_volumes(workload, place)
        and bears_interruption(workload, place)
        and selects(workload, place)
        and tolerates(workload, place)
    )


def reaches_volumes(workload: Workload, place: Place) -> bool:
    """Tell whether the place is in the zone of the workload's volumes."""
    return workload.pinned_zone in ("", place.zone)


def bears_interruption(workload: Workload, place: Place) -> bool:
    """Tell whether the workload may run on the place's capacity type."""
    return workload.spot_tolerant or place.capacity_type is not CapacityType.SPOT


def selects(workload: Workload, place: Place) -> bool:
    """Tell whether the workload's node selector and node affinity choose the place."""
    labels = place.labels
    return (
        all(labels.get(key) == value for key, value in workload.node_selector.items())
        and all(satisfies(requirement, labels) for requirement in workload.requirements)
        and (
            not workload.alternatives
            or any(term and all(satisfies(each, labels) for each in term) for term in workload.alternatives)
        )
    )


def tolerates(workload: Workload, place: Place) -> bool:
    """Tell whether the workload tolerates every hard taint of the place."""
    return all(_tolerated(taint, workload.tolerations) for taint in place.taints)


def is_domain(workload: Workload, rule: SpreadRule, place: Place) -> bool:
    """Tell whether the place is part of the domains among which the rule spreads the workload."""
    return (not rule.honors_affinity or selects(workload, place)) and (
        not rule.honors_taints or tolerates(workload, place)
    )


def accepted_places(workloads: Sequence[Workload], places: Sequence[Place]) -> list[BoolArray]:
    """Return for each workload which places it accepts; equal workloads share one array."""
    known: dict[Hashable, BoolArray] = {}
    answer: list[BoolArray] = []
    for workload in workloads:
        key = signature(workload)
        if key not in known:
            known[key] = np.fromiter((accepts(workload, place) for place in places), bool, len(places))
        answer.append(known[key])
    return answer


def satisfies(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """Tell whether the labels meet one node-affinity expression; an unknown operator is never met."""
    value = labels.get(requirement.key)
    operators: dict[str, Callable[[], bool]] = {
        "In": lambda: value in requirement.values,
        "NotIn": lambda: value not in requirement.values,
        "Exists": lambda: value is not None,
        "DoesNotExist": lambda: value is None,
        "Gt": lambda: _compare(value, requirement.values) > 0,
        "Lt": lambda: _compare(value, requirement.values) < 0,
    }
    test = operators.get(requirement.operator)
    return test is not None and test()


def _compare(value: str | None, bounds: tuple[str, ...]) -> int:
    """Return the sign of value minus bound, 0 when either is not a whole number."""
    if value is None or len(bounds) != 1:
        return 0
    try:
        difference = int(value) - int(bounds[0])
    except ValueError:
        return 0
    return (difference > 0) - (difference < 0)


def _tolerated(taint: Taint, tolerations: tuple[Toleration, ...]) -> bool:
    return taint.effect == "PreferNoSchedule" or any(t.tolerates(taint) for t in tolerations)
