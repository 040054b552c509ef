"""Reads the catalogues and workloads of the packing benchmark and states them as problems."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policies.domain.model import BoolArray, FloatArray
from policies.domain.solver.problem import UNLIMITED, Problem

DATA_VARIABLE = "PACKING_DATA"
DEFAULT_DATA = Path("../shared/data/packing")
CAPACITY_TYPES = ("spot", "on-demand")


@dataclass(frozen=True, slots=True)
class Case:
    """One or more workloads to pack together, and the kinds of nodes of a catalogue."""

    name: str
    catalogue: str
    types: tuple[dict[str, Any], ...]
    shapes: tuple[dict[str, Any], ...]
    kinds: tuple[tuple[int, str, str], ...]
    """(type number, zone, capacity type) of each kind of the problem, in its order."""
    daemon: tuple[int, int, int]
    """Milli-CPU, MiB and pods that daemon sets take on every node."""
    problem: Problem

    @property
    def pods(self) -> int:
        """Return the number of pods."""
        return int(self.problem.counts.sum())

    def spot(self) -> BoolArray:
        """Return which kinds are spot."""
        return np.array([capacity == "spot" for *_, capacity in self.kinds], bool)

    def column(self, key: str) -> FloatArray:
        """Return a number of the catalogue, such as ``risk``, for each kind."""
        return np.array([float(self.types[number][key]) for number, *_ in self.kinds])


def data_directory(given: str | None) -> Path | None:
    """Return the folder of the data: the given one, that of the environment, or the default."""
    folder = Path(given or os.environ.get(DATA_VARIABLE) or DEFAULT_DATA)
    return folder if (folder / "catalogues").is_dir() else None


def load_case(data: Path, workloads: Sequence[str], catalogue: str) -> Case:
    """Return the workloads together as one problem on the catalogue, such as ``GP32``."""
    types = tuple(json.loads((data / "catalogues" / f"cat_{catalogue}.json").read_text()))
    loaded = [json.loads((data / "workloads" / f"{name}.json").read_text()) for name in workloads]
    shapes = tuple(shape for workload in loaded for shape in workload["shapes"])
    kinds = tuple(
        (number, zone, capacity)
        for number, kind in enumerate(types)
        for zone in kind["zones"]
        for capacity in CAPACITY_TYPES
    )
    daemon = tuple(loaded[0]["daemon"])
    problem = _problem(types, shapes, kinds, daemon)
    return Case("+".join(workloads), catalogue, types, shapes, kinds, daemon, problem)


def _problem(
    types: Sequence[dict[str, Any]],
    shapes: Sequence[dict[str, Any]],
    kinds: Sequence[tuple[int, str, str]],
    daemon: Sequence[int],
) -> Problem:
    zones = {zone: number for number, zone in enumerate(sorted({zone for _, zone, _ in kinds}))}
    families = {name: number for number, name in enumerate(sorted({kind["fam"] for kind in types}))}
    rooms = [(t["acpu"] - daemon[0], t["amem"] - daemon[1], t["pods"] - daemon[2], t["gpu"]) for t in types]
    of_type = np.array([number for number, *_ in kinds])
    zone_of = np.array([zones[zone] for _, zone, _ in kinds])
    return Problem(
        requests=np.array([(s["cpu"], s["mem"], 1, s["gpu"]) for s in shapes], np.int64),
        counts=np.array([s["n"] for s in shapes], np.int64),
        accepted=np.array([[_accepts(s, types[n], c) for n, _, c in kinds] for s in shapes], bool),
        rooms=np.array(rooms, np.int64)[of_type],
        prices=np.array([types[n]["spot"][z] if c == "spot" else types[n]["od"] for n, z, c in kinds]),
        zones=zone_of,
        pools=of_type * len(zones) + zone_of,
        families=np.array([families[types[n]["fam"]] for n, *_ in kinds]),
        limits=np.full(len(kinds), UNLIMITED),
        skews=np.array([int(s["zspread"]) for s in shapes]),
        per_node=np.full(len(shapes), UNLIMITED),
        parts=np.array([CAPACITY_TYPES.index(s["ct"]) if s["ct"] != "any" else -1 for s in shapes]),
    )


def _accepts(shape: dict[str, Any], kind: dict[str, Any], capacity: str) -> bool:
    return shape["ct"] in ("any", capacity) and shape["arch"] in ("any", kind["arch"])
