"""`python -m spotopt.bench.packing`: packs the workloads and prints tables fit for the README."""

import argparse
import math
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from policies.domain.solver.problem import Answer, Problem
from policies.domain.solver.solve import Effort, solve
from spotopt.bench.packing import diversity, migration
from spotopt.bench.packing.data import DATA_VARIABLE, Case, data_directory, load_case
from spotopt.bench.packing.first_fit import first_fit_decreasing
from spotopt.bench.packing.recount import faults
from spotopt.bench.packing.reference import Reference, peer_costs

WORKLOADS = (
    *((f"{name}-{size}",) for name in ("kbench", "log60") for size in (1000, 10000, 50000)),
    *((f"prodany-{size}", f"prodod-{size}") for size in (1000, 10000, 50000)),
)
"""Those on the catalogues GP32 and GPX32; the others are for the comparison with the peer alone."""
GROWING = (("kbench-10000", "GP32"), ("log60-10000", "GP32"), ("prodany-10000", "GPX32"))
AIMS = {"1000": 1.007, "10000": 1.003, "50000": 1.003}
AIMS_MIXED = {"1000": 1.030, "10000": 1.010, "50000": 1.010}
SECONDS_AIMED = {"1000": 1.0, "10000": 1.0, "50000": 2.0}
MEMORY_AIMED_MIB = 500.0
GROWTH_AIMED = 1.5
"""Most that ten times the replicas of the same shapes may multiply the time to solve."""


@dataclass(frozen=True, slots=True)
class Row:
    """One workload packed, beside what others reach."""

    case: Case
    answer: Answer
    wall_seconds: float
    peak_mib: float
    first_fit: float
    faults: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """Return the cost as a multiple of the proven bound."""
        return self.answer.cost / max(self.answer.bound, 1e-9)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything in this process; the exit status says whether all aims were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", help=f"folder of the data; else {DATA_VARIABLE}, else ../shared/data/packing"
    )
    parser.add_argument("--proof-seconds", type=float, default=30.0, help="CPU seconds for each bound")
    parser.add_argument("--seconds", type=float, default=10.0, help="most CPU seconds for each solution")
    parser.add_argument("--only", help="part of the names of the workloads to run")
    chosen = parser.parse_args(arguments)
    data = data_directory(chosen.data)
    if data is None:
        sys.stdout.write(
            f"No packing data: give --data or {DATA_VARIABLE}, the folder that has catalogues/.\n"
        )
        return 0
    effort = Effort(seconds=chosen.seconds, proof_seconds=chosen.proof_seconds)
    references = peer_costs(data)
    sys.stdout.write(f"Start and imports took {time.process_time():.2f} CPU s; no figure below has them.\n")
    missed = _workloads(data, effort, references, chosen.only)
    if not chosen.only:
        missed += _growth(data, effort)
        missed += _against_peer(data, effort, references)
        missed += _together(data, effort)
        missed += diversity.report(data, effort)
        missed += migration.report(data)
    sys.stdout.write(f"\nShort of the aim: {'; '.join(missed)}\n" if missed else "\nAll aims met.\n")
    return 1 if missed else 0


def _workloads(data: Path, effort: Effort, references: Sequence[Reference], only: str | None) -> list[str]:
    sys.stdout.write(
        "\n| workload | pods | cost USD/h | proven bound | ratio | peer | first fit | nodes | solve s | "
        "CPU s | proof CPU s | peak MiB |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    missed: list[str] = []
    for names in WORKLOADS:
        if only and only not in "+".join(names):
            continue
        case = load_case(data, names, "GPX32" if len(names) > 1 else "GP32")
        row = pack_case(case, effort)
        peer = sum(r.peer for r in references if r.workload in names and r.catalogue == case.catalogue)
        sys.stdout.write(_line(row, peer))
        sys.stdout.flush()
        missed += _short(row, peer, names)
    return missed


class Stopwatch:
    """A clock of processor time, so that answers do not depend on the load; it knows the wall time beside."""

    def __init__(self) -> None:
        self._wall: dict[float, float] = {}

    def __call__(self) -> float:
        """Return seconds of processor time."""
        now = time.process_time()
        self._wall.setdefault(now, time.perf_counter())
        return now

    def wall_seconds(self, elapsed: float) -> float:
        """Return the time on the wall that the first ``elapsed`` seconds took."""
        start = min(self._wall)
        end = min(self._wall, key=lambda moment: abs(moment - start - elapsed))
        return self._wall[end] - self._wall[start]


def pack_case(case: Case, effort: Effort) -> Row:
    """Return the solution of one case, recounted."""
    clock = Stopwatch()
    answer = solve(case.problem, clock, effort)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Row(
        case,
        answer,
        clock.wall_seconds(answer.first_seconds),
        peak,
        first_fit_decreasing(case),
        tuple(faults(case, answer.columns, answer.cost)),
    )


def _line(row: Row, peer: float) -> str:
    answer = row.answer
    proof = answer.certified_seconds - answer.first_seconds
    cells = (
        row.case.name,
        f"{row.case.pods:,}",
        f"{answer.cost:,.3f}",
        f"{answer.bound:,.3f}",
        f"{row.ratio:.4f}",
        f"{peer:,.3f}" if peer else "–",
        f"{row.first_fit:,.3f}",
        f"{answer.nodes:,}",
        f"{row.wall_seconds:.2f}",
        f"{answer.first_seconds:.2f}",
        f"{proof:.1f}",
        f"{row.peak_mib:,.0f}",
    )
    return f"| {' | '.join(cells)} |\n"


def _short(row: Row, peer: float, names: Sequence[str]) -> list[str]:
    """Return the aims that the row misses."""
    size = names[0].rpartition("-")[2]
    aim = (AIMS_MIXED if len(names) > 1 else AIMS)[size]
    missed = [f"{row.case.name}: {fault}" for fault in row.faults]
    if row.ratio > aim:
        missed.append(f"{row.case.name}: ratio {row.ratio:.4f}, aim {aim}")
    if peer and row.answer.cost > peer:
        missed.append(f"{row.case.name}: dearer than the peer")
    if row.answer.first_seconds > SECONDS_AIMED[size]:
        missed.append(f"{row.case.name}: {row.answer.first_seconds:.1f} CPU s, aim {SECONDS_AIMED[size]} s")
    if row.peak_mib > MEMORY_AIMED_MIB:
        missed.append(f"{row.case.name}: {row.peak_mib:.0f} MiB, aim {MEMORY_AIMED_MIB:.0f} MiB")
    return missed


def _growth(data: Path, effort: Effort) -> list[str]:
    """Multiply the replicas of one workload by ten, twice, and compare the processor time to solve."""
    sys.stdout.write(
        "\nReplicas × 10 at the shapes of a workload of 10,000 pods (CPU seconds to solve, median of 3)\n\n"
        "| workload | × 1 | × 10 | × 100 | growth per tenfold |\n|---|--:|--:|--:|--:|\n"
    )
    missed = []
    for name, catalogue in GROWING:
        problem = load_case(data, [name], catalogue).problem
        seconds = [
            statistics.median(
                _cpu_seconds(replace(problem, counts=problem.counts * times), effort, seed)
                for seed in range(3)
            )
            for times in (1, 10, 100)
        ]
        growth = math.sqrt(seconds[-1] / seconds[0])
        cells = " | ".join(f"{value:.2f}" for value in seconds)
        sys.stdout.write(f"| {name} | {cells} | {growth:.2f} |\n")
        sys.stdout.flush()
        if growth > GROWTH_AIMED:
            missed.append(f"{name}: growth {growth:.2f} per tenfold, aim {GROWTH_AIMED}")
    return missed


def _cpu_seconds(problem: Problem, effort: Effort, seed: int) -> float:
    started = time.process_time()
    solve(problem, time.process_time, Effort(seconds=effort.seconds), seed)
    return time.process_time() - started


def _against_peer(data: Path, effort: Effort, references: Sequence[Reference]) -> list[str]:
    """Compare with the peer on every workload that it was run on, alone."""
    sys.stdout.write(
        "\n| workload | catalogue | cost USD/h | peer USD/h | peer ÷ cost |\n|---|---|--:|--:|--:|\n"
    )
    missed = []
    for reference in references:
        case = load_case(data, [reference.workload], reference.catalogue)
        answer = solve(case.problem, time.process_time, Effort(seconds=effort.seconds))
        wrong = faults(case, answer.columns, answer.cost)
        missed += [f"{case.name} on {case.catalogue}: {fault}" for fault in wrong]
        if answer.cost > reference.peer:
            missed.append(f"{case.name} on {case.catalogue}: dearer than the peer")
        sys.stdout.write(
            f"| {case.name} | {case.catalogue} | {answer.cost:,.3f} | {reference.peer:,.3f} | "
            f"{reference.peer / answer.cost:.3f} |\n"
        )
        sys.stdout.flush()
    return missed


def _together(data: Path, effort: Effort) -> list[str]:
    """Compare one cluster of both capacity types with two clusters apart."""
    sys.stdout.write("\n| pods | together USD/h | apart USD/h |\n|--:|--:|--:|\n")
    missed = []
    for size in ("1000", "10000"):
        names = [f"prodany-{size}", f"prodod-{size}"]
        costs = []
        for group in (names, names[:1], names[1:]):
            case = load_case(data, group, "GPX32")
            costs.append(solve(case.problem, time.process_time, Effort(seconds=effort.seconds)).cost)
        sys.stdout.write(f"| {int(size):,} | {costs[0]:,.3f} | {costs[1] + costs[2]:,.3f} |\n")
        if costs[0] > costs[1] + costs[2]:
            missed.append(f"{'+'.join(names)}: dearer together than apart")
    return missed


if __name__ == "__main__":
    sys.exit(main())
