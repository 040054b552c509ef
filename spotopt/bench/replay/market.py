"""The catalogue as pools, the workload with its minimums, and which recording drives which pools."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from spotopt.bench.replay.facts import CAPACITY_CELL, Pool, Workload
from spotopt.bench.replay.traces import Trace

CATALOGUE = "GP32"
WORKLOAD = "log60-1000"
MINIMUM_SHARES = (0.5, 0.6, 0.75)
"""Shares of the replicas that must be ready, in turn over the workloads."""
SPREAD_EVERY = 3
"""Every so many workloads, one is spread over the zones."""


@dataclass(frozen=True, slots=True)
class Market:
    """Every pool, and the names of the cells (instance family, zone) that their numbers stand for."""

    pools: tuple[Pool, ...]
    cells: tuple[str, ...]
    zones: tuple[str, ...]


def load_market(data: Path, catalogue: str = CATALOGUE, workload: str = WORKLOAD) -> Market:
    """Return the catalogue's pools, with the workload's daemon sets taken off their room."""
    types = json.loads((data / "catalogues" / f"cat_{catalogue}.json").read_text())
    daemon = json.loads((data / "workloads" / f"{workload}.json").read_text())["daemon"]
    zones = sorted({zone for kind in types for zone in kind["zones"]})
    cells = sorted({(kind["fam"], zone) for kind in types for zone in kind["zones"]})
    pools: list[Pool] = []
    for kind in types:
        room = (kind["acpu"] - daemon[0], kind["amem"] - daemon[1], kind["pods"] - daemon[2])
        for zone in kind["zones"]:
            for price, cell in (
                (kind["spot"][zone], cells.index((kind["fam"], zone))),
                (kind["od"], CAPACITY_CELL),
            ):
                pools.append(
                    Pool(
                        number=len(pools),
                        instance_type=kind["name"],
                        zone=zones.index(zone),
                        is_spot=cell != CAPACITY_CELL,
                        usd_per_hour=Decimal(str(price)),
                        room=room,
                        bucket=kind["risk"],
                        cell=cell,
                    )
                )
    return Market(tuple(pools), tuple(f"{family}/{zone}" for family, zone in cells), tuple(zones))


def load_workloads(data: Path, workload: str = WORKLOAD) -> tuple[Workload, ...]:
    """Return the workload's shapes as workloads, a part of them spread over zones, all with a minimum."""
    shapes = json.loads((data / "workloads" / f"{workload}.json").read_text())["shapes"]
    return tuple(
        Workload(
            name=f"workload-{number:02}",
            replicas=shape["n"],
            minimum=math.floor(shape["n"] * MINIMUM_SHARES[number % len(MINIMUM_SHARES)]),
            request=(shape["cpu"], shape["mem"], 1),
            is_spread=number % SPREAD_EVERY == 0,
        )
        for number, shape in enumerate(shapes)
    )


@dataclass(frozen=True, slots=True)
class Mapping:
    """Which recording drives which cells, and where in each recording the week begins."""

    trace_of_cell: tuple[int, ...]
    starts: tuple[float, ...]
    """For each recording, the part of its length that lies before the week, 0 to 1."""


def deal(cells: int, traces: Sequence[Trace], seed: int) -> Mapping:
    """Return the cells dealt out to the recordings by chance, each recording getting its share.

    Recordings made side by side begin at the same instant, so that what they had in common stays.
    """
    chance = random.Random(seed)  # noqa: S311  # a mapping is drawn, not a secret
    order = list(range(cells))
    chance.shuffle(order)
    trace_of_cell = [0] * cells
    for position, cell in enumerate(order):
        trace_of_cell[cell] = position % len(traces)
    starts = {batch: chance.random() for batch in sorted({trace.batch for trace in traces})}
    return Mapping(tuple(trace_of_cell), tuple(starts[trace.batch] for trace in traces))
