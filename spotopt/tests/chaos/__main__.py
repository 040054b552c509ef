"""`python -m spotopt.tests.chaos`: optimize many clusters under faults; fail unless every counter is zero.

With `--break NAME` one safeguard is taken out, or one after the other with `--break all`, and the run fails
unless the counter of each moves.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from spotopt.tests.chaos import judge, report
from spotopt.tests.chaos.breaks import CLUSTERS, Saboteur
from spotopt.tests.chaos.campaign import Campaign, Tally
from spotopt.tests.chaos.stage import Stage
from spotopt.tests.chaos.storm import STRIKES, Storm
from spotopt.tests.smoke.client import ROOT

SABOTAGE = Path(__file__).parent / "sabotage"
CALM_MINUTES = 13
"""By the simulated clock: longer than the patience after which the simulator calls a machine an orphan."""
ROUNDS = 10
"""Runs of each cluster."""
RUNS, RUNS_OF_A_BREAK = 200, 10
SHOWN = 10
"""Pieces of evidence told for each counter that moved."""
_LOOK_SECONDS = 0.5

Say = Callable[[str], None]


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when the run proves what it should."""
    options = _options(arguments)
    begun = time.monotonic()

    def say(message: str) -> None:
        print(f"[{time.monotonic() - begun:6.1f} s] {message}", file=sys.stderr, flush=True)  # noqa: T201

    run = _run_breaks if options.sabotage else _run_campaign
    lines, is_good = run(options, say)
    for line in [*lines, f"wall time {time.monotonic() - begun:.0f} s"]:
        print(line, flush=True)  # noqa: T201  # the report is the output
    return 0 if is_good else 1


def _run_campaign(options: argparse.Namespace, say: Say) -> tuple[list[str], bool]:
    runs = options.runs or RUNS
    share = min(1.0, runs / RUNS)
    with Stage(state=options.state, speed=options.speed, seed=options.seed, say=say) as stage:
        clusters = stage.clusters()[: max(1, runs // ROUNDS)]
        storm = Storm(stage, strikes=max(1, round(STRIKES * share)))
        campaign = Campaign(stage)
        storm.begin()
        campaign.begin(clusters, rounds=-(-runs // len(clusters)), at_once=options.at_once)
        _weather(stage, campaign, storm, runs=runs, minutes=options.minutes)
        struck = storm.struck()
        storm.end()
        stage.sleep(
            minutes=CALM_MINUTES
        )  # the product tidies up in peace, as long as it may by its own rules
        counters = _counters(stage, campaign.tally)
    outcome = report.Outcome(dict(campaign.tally.ended), struck, counters)
    problems = outcome.problems(planned=runs, least_strikes=round(report.LEAST_STRIKES * share))
    return [*report.lines(outcome), *problems], not problems


def _weather(stage: Stage, campaign: Campaign, storm: Storm, *, runs: int, minutes: float) -> None:
    """Let the storm blow until every run is over, or the time."""
    deadline = time.monotonic() + minutes * 60
    while not campaign.is_over:
        if time.monotonic() > deadline:
            stage.say("The time is over: no run begins any more.")
            campaign.begin_no_more()
            return
        stage.agents.revive()
        storm.tick(progress=campaign.tally.finished / runs)
        time.sleep(_LOOK_SECONDS)


def _counters(stage: Stage, tally: Tally) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, evidence in judge.findings(stage, tally):
        found[name] += 1
        if found[name] <= SHOWN:
            stage.say(f"{name}: {evidence}")
    return found


def _run_breaks(options: argparse.Namespace, say: Say) -> tuple[list[str], bool]:
    names = list(report.SAFEGUARDS) if options.sabotage == "all" else [options.sabotage]
    order = options.state.with_name(f"{options.state.name}.break")
    order.unlink(missing_ok=True)
    os.environ |= {"CHAOS_BREAK": str(order), "PYTHONPATH": str(SABOTAGE)}
    with Stage(state=options.state, speed=options.speed, seed=options.seed, say=say) as stage:
        clusters = stage.clusters()
        saboteur = Saboteur(stage, order=order, runs=options.runs or RUNS_OF_A_BREAK)
        groups = [clusters[first : first + CLUSTERS] for first in range(0, len(clusters), CLUSTERS)]
        broken = [saboteur.take_out(name, group) for name, group in zip(names, groups, strict=False)]
    return report.broken_lines(broken), all(each.moved for each in broken)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=int, help=f"{RUNS} by default, at most {RUNS_OF_A_BREAK} without a safeguard"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=20, help="simulated seconds in one second")
    parser.add_argument("--at-once", type=int, default=10, help="clusters at work at the same time")
    parser.add_argument("--minutes", type=float, default=60, help="on the wall; what is not over then hangs")
    parser.add_argument("--state", type=Path, default=ROOT / ".spotopt" / "chaos")
    parser.add_argument("--break", dest="sabotage", choices=[*sorted(report.SAFEGUARDS), "all"])
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
