"""Recounts an answer from the raw catalogue and workload; it shares no arithmetic with the solver."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from policies.domain.solver.problem import Column
from spotopt.bench.packing.data import Case

MAX_SKEW = 1
_ACCURACY = 1e-6


def faults(case: Case, columns: Sequence[Column], cost: float) -> list[str]:
    """Return what is wrong with the node set: pods, room, acceptance, zone spread, or its price."""
    found: list[str] = []
    placed: defaultdict[int, Counter[str]] = defaultdict(Counter)
    total = 0.0
    for column in columns:
        number, zone, capacity = case.kinds[column.kind]
        kind = case.types[number]
        total += column.copies * (kind["spot"][zone] if capacity == "spot" else kind["od"])
        pods = {index: count for index, count in enumerate(column.pods.tolist()) if count}
        found += _node_faults(case, kind, capacity, pods)
        for index, count in pods.items():
            placed[index][zone] += count * column.copies
    for index, shape in enumerate(case.shapes):
        if placed[index].total() != shape["n"]:
            found.append(f"shape {index}: {placed[index].total()} of {shape['n']} pods placed")
        zones = [placed[index][zone] for zone in case.types[0]["zones"]]
        if shape["zspread"] and max(zones) - min(zones) > MAX_SKEW:
            found.append(f"shape {index} is spread {zones}")
    if abs(total - cost) > _ACCURACY * total:
        found.append(f"the nodes cost {total}, not {cost}")
    return found


def _node_faults(case: Case, kind: dict[str, Any], capacity: str, pods: Mapping[int, int]) -> list[str]:
    found = []
    used = dict(zip(("acpu", "amem", "pods", "gpu"), (*case.daemon, 0), strict=True))
    for index, count in pods.items():
        shape = case.shapes[index]
        asked = {"acpu": shape["cpu"], "amem": shape["mem"], "pods": 1, "gpu": shape["gpu"]}
        used = {room: load + count * asked[room] for room, load in used.items()}
        if shape["ct"] not in {"any", capacity} or shape["arch"] not in {"any", kind["arch"]}:
            found.append(f"shape {index} may not run on {kind['name']} {capacity}")
    return [
        *found,
        *(f"{kind['name']} has too little {room}" for room, load in used.items() if load > kind[room]),
    ]
