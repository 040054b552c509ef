"""Names the rule that keeps a pod from every place."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from policies.domain.matching import bears_interruption, reaches_volumes, selects, tolerates
from policies.domain.model import BoolArray, IntArray, Place, pod_vector
from policies.domain.refusals import Code
from policies.domain.shapes import Workload

_UNITS = ("milli-CPU", "MiB of memory", "pod slots", "GPUs", "MiB of ephemeral storage")
_WORDS = {
    Code.SPREAD: "one more there would break its topology spread",
    Code.ANTI_AFFINITY: "pods that it must keep away from run there",
    Code.POD_AFFINITY: "no pod that it must be near runs there",
    Code.ON_DEMAND_MINIMUM: "too few of its pods would be on on-demand capacity",
}


@dataclass(frozen=True, slots=True)
class Hurdle:
    """One rule, and the places that pass it."""

    code: Code
    words: str
    passes: BoolArray


def fixed_hurdles(workload: Workload, places: Sequence[Place]) -> list[Hurdle]:
    """Return the rules that depend on the places alone."""

    def passing(test: Callable[[Workload, Place], bool]) -> BoolArray:
        return np.fromiter((test(workload, place) for place in places), bool, len(places))

    zone = workload.pinned_zone
    return [
        Hurdle(Code.NODE_SELECTION, "its node selector or affinity excludes them", passing(selects)),
        Hurdle(Code.TAINTS, "it does not tolerate their taints", passing(tolerates)),
        Hurdle(Code.VOLUME_ZONE, f"its volumes are in {zone}", passing(reaches_volumes)),
        Hurdle(Code.CAPACITY_TYPE, "it may not run on spot", passing(bears_interruption)),
    ]


def room_hurdles(workload: Workload, free: IntArray) -> list[Hurdle]:
    """Return one rule for each resource that a pod asks for; ``free`` is resource × place."""
    return [
        Hurdle(Code.NO_ROOM_ELSEWHERE, f"none that it may use has {asked} {unit} free", row >= asked)
        for unit, row, asked in zip(_UNITS, free, pod_vector(workload), strict=True)
        if asked > 0
    ]


def rule_hurdles(masks: Iterable[tuple[Code, BoolArray]]) -> list[Hurdle]:
    """Return the rules about other pods, from ``Topology.masks``."""
    return [Hurdle(code, _WORDS[code], mask) for code, mask in masks]


def binding(hurdles: Sequence[Hurdle], usable: BoolArray) -> Hurdle | None:
    """Return the last rule without which a usable place would be left; None when one is left anyway.

    When no single rule is to blame, it is the one that excludes the last places in the given order.
    """
    failed = np.sum([~hurdle.passes for hurdle in hurdles], axis=0)
    if (usable & (failed == 0)).any():
        return None
    for hurdle in reversed(hurdles):
        if (usable & (failed == 1) & ~hurdle.passes).any():
            return hurdle
    left = usable.copy()
    for hurdle in hurdles:
        left &= hurdle.passes
        if not left.any():
            return hurdle
    return None
