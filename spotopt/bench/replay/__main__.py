"""A week of recorded spot outages under three policies: what it costs, and who is interrupted.

Run ``make bench-replay`` or ``python -m spotopt.bench.replay [--mappings 20]``. Every recording drives a
group of pools: the instance families and zones that a mapping deals to it by chance; all sizes of a family in
a zone lose and regain capacity together. The recordings were made on pools chosen for being volatile, mostly
of GPUs: nodes are lost far more often than in ordinary pools (the advisor's worst bucket foretells one loss
in a hundred days), so the figures rank policies and say nothing of a usual week. Recordings of launch probes
count as the fate of running nodes, too.

Interrupted pod-hours run from the loss of a pod's node until the pod runs elsewhere: on free room at once, or
on a new node that boots in 25 to 70 s, plus 10 s of scheduling and start. A node's pods run until AWS takes
it, two minutes after its notice; a policy orders what replaces it at the loss, or at the notice. Moves of the
policy's own will keep every minimum and are counted apart (10 s for each pod). Prices stand still, on-demand
is never short, and a lost pod takes free room by the scheduler's rules, whatever the policy would like.

"Cheapest spot" is judged in two readings. Like for like, both sides order replacements at the same moment:
then only the choice of pools tells them apart. The other reading is the plain cheapest, which acts when a
node is gone, against the product as it is, which acts on the notice. The oracle buys and moves as the
product does, but knows when each pool will next fall: what it gains over the product is what is not to be
known beforehand.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from spotopt.bench.replay.ledger import Result
from spotopt.bench.replay.market import CATALOGUE, WORKLOAD, Market, deal, load_market, load_workloads
from spotopt.bench.replay.measure import (
    AT_LOSS,
    AT_NOTICE,
    BASELINE,
    MOST_BILL,
    MOST_INTERRUPTED,
    ON_DEMAND,
    OURS,
    Contender,
    Scene,
    contenders,
    frontier,
    live,
    ratios,
    table,
)
from spotopt.bench.replay.traces import Trace, load_traces, traces_directory

PACKING_VARIABLE = "PACKING_DATA"
PACKING_DEFAULT = "../shared/data/packing"
DAY_SECONDS = 86_400
RESTART_HOURS = (0.0, 0.1, 1.0, 3.0)


def main() -> int:
    """Print the tables; the exit status says whether the aims were met at the median."""
    parser = argparse.ArgumentParser(prog="spotopt.bench.replay")
    parser.add_argument("--mappings", type=int, default=20, help="how many ways to deal recordings to pools")
    parser.add_argument(
        "--frontier-mappings", type=int, default=3, help="the same for the weights of a restart"
    )
    parser.add_argument("--days", type=float, default=7.0, help="how long each policy lives")
    parser.add_argument("--traces", help="folder of the recordings")
    parser.add_argument("--packing", default=os.environ.get(PACKING_VARIABLE, PACKING_DEFAULT))
    chosen = parser.parse_args()
    folder, packing = traces_directory(chosen.traces), Path(chosen.packing)
    if folder is None or not (packing / "catalogues").is_dir():
        _say(f"The data is absent: give --traces and --packing (looked for {packing} and {chosen.traces}).")
        return 2
    market, traces = load_market(packing), load_traces(folder)
    scene = Scene(market, load_workloads(packing), traces, chosen.days * DAY_SECONDS)
    _say(f"{WORKLOAD} on {CATALOGUE}, {len(traces)} recordings, {len(market.cells)} families and zones.")
    started = time.process_time()
    results = _compare(scene, chosen.mappings)
    if chosen.frontier_mappings:
        _say(f"\nWeight of a restart (hours of a node's price), first {chosen.frontier_mappings} mappings:\n")
        _frontier(scene, results[BASELINE, AT_LOSS][: chosen.frontier_mappings])
    _say(f"\nWhat drives which pools in mapping 0:\n\n{_legend(market, traces, 0)}")
    _say(f"\n{time.process_time() - started:.0f} s of CPU.")
    return _verdict(results)


def _compare(scene: Scene, mappings: int) -> dict[tuple[str, str], list[Result]]:
    results = {(c.name, c.reacts): _weeks(scene, c, mappings) for c in contenders(scene)}
    rows = [
        (name if name == ON_DEMAND else f"{name}, replaces {reacts}", weeks)
        for (name, reacts), weeks in results.items()
    ]
    _say(f"\nMedian (least–most) over {mappings} mappings; ÷ is over {BASELINE} that replaces {AT_LOSS}:\n")
    _say("\n".join(table(rows, results[BASELINE, AT_LOSS])))
    return results


def _frontier(scene: Scene, baseline: list[Result]) -> None:
    rows = [(c.name, _weeks(scene, c, len(baseline))) for c in frontier(scene, RESTART_HOURS)]
    _say("\n".join(table(rows, baseline)))


def _weeks(scene: Scene, contender: Contender, mappings: int) -> list[Result]:
    weeks = []
    for seed in range(mappings):
        weeks.append(live(scene, contender, seed))
        sys.stderr.write(f"\r{contender.name} ({contender.reacts}): {seed + 1}/{mappings}   ")
    sys.stderr.write("\n")
    return weeks


def _legend(market: Market, traces: Sequence[Trace], seed: int) -> str:
    mapping = deal(len(market.cells), traces, seed)
    lines = ["| recording | up | losses an up-hour | drives |", "|---|---|---|---|"]
    for number, trace in enumerate(traces):
        cells = [market.cells[cell] for cell, driver in enumerate(mapping.trace_of_cell) if driver == number]
        seen = f"{trace.availability:.0%} | {trace.losses_per_up_hour:.2f}"
        lines.append(f"| {trace.name} | {seen} | {', '.join(cells)} |")
    return "\n".join(lines)


def _verdict(results: dict[tuple[str, str], list[Result]]) -> int:
    """Say whether the aims were met, first with the same reaction on both sides: that alone decides."""
    met = True
    for ours, theirs in ((AT_LOSS, AT_LOSS), (AT_NOTICE, AT_NOTICE), (AT_NOTICE, AT_LOSS)):
        bill, hours, _ = ratios(results[OURS, ours], results[BASELINE, theirs])
        enough = bill.middle <= MOST_BILL and hours.middle <= MOST_INTERRUPTED
        met &= enough or ours != theirs
        _say(
            f"{OURS} {ours} over {BASELINE} {theirs}: bill {bill.middle:.3f} (aim ≤ {MOST_BILL}), "
            f"interrupted pod-hours {hours.middle:.3f} (aim ≤ {MOST_INTERRUPTED}): "
            f"{'met' if enough else 'short of the aim'}."
        )
    return 0 if met else 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
