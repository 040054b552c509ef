"""`python -m spotopt.tests.chaos`: optimize many clusters under faults; fail unless every counter is zero.

With `--break NAME` one safeguard is taken out, and the run fails unless its counter moves.
"""

import argparse
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from spotopt.management.embedded import free_port
from spotopt.tests.chaos import records, report
from spotopt.tests.chaos.campaign import Agents, Campaign
from spotopt.tests.chaos.storm import STRIKES, Storm
from spotopt.tests.chaos.wire import Wire
from spotopt.tests.smoke.client import ROOT
from spotopt.tests.smoke.instance import Instance, start
from spotopt.tests.smoke.road import Road
from spotopt.tests.smoke.truth import World

SABOTAGE = Path(__file__).parent / "sabotage"
CALM_MINUTES = 13
"""By the simulated clock: longer than the patience after which the simulator calls a machine an orphan."""
ROUNDS = 10
"""Runs of each cluster."""
_LOOK_SECONDS = 0.5


class FaultRun:
    """One fault run on a fresh instance."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._begun = time.monotonic()
        self._instance: Instance | None = None
        self._wire: Wire | None = None
        self._agents: Agents | None = None

    def run(self) -> report.Outcome:
        """Start, drive, and return what was found."""
        try:
            return self._run()
        finally:
            if self._agents is not None:
                self._agents.stop()
            if self._wire is not None:
                self._wire.stop()
            if self._instance is not None:
                self._instance.stop()

    def say(self, message: str) -> None:
        """Tell how far the run is."""
        print(f"[{time.monotonic() - self._begun:6.1f} s] {message}", file=sys.stderr, flush=True)  # noqa: T201

    def _run(self) -> report.Outcome:
        options = self._options
        instance = self._instance = start(
            state=options.state, fleet="many", speed=options.speed, seed=options.seed
        )
        self._wire = Wire(target=instance.url, port=free_port(), seed=options.seed)
        self._wire.start()
        agents = self._agents = Agents(instance, self._wire, World(instance.control_url))
        campaign = Campaign(instance=instance, agents=agents, seed=options.seed, say=self.say)
        clusters = self._clusters(campaign)
        records.watch(instance.state / "postgres")
        strikes = max(1, round(STRIKES * min(1.0, options.runs / 200)))
        storm = Storm(campaign=campaign, wire=self._wire, agents=agents, seed=options.seed, strikes=strikes)
        storm.begin()
        if options.sabotage == "pdb":
            campaign.world.order("faults", {"pdb_enforcement": False})
        rounds = -(-options.runs // len(clusters))
        threads = campaign.run(clusters, rounds=rounds, at_once=options.at_once)
        self._weather(campaign, agents, storm, threads)
        struck = storm.struck()
        storm.end()
        self._calm_down(agents)
        return report.Outcome(
            runs=dict(campaign.tally.ended), struck=struck, counters=self._counters(campaign, self._wire)
        )

    def _clusters(self, campaign: Campaign) -> list[dict[str, Any]]:
        """Sign up, link the account, and return as many clusters as there are runs for."""
        road = Road(campaign.instance, say=self.say)
        road.api = campaign.api
        campaign.api.sign_up("chaos@spotopt.example", "Fault run")
        road.link()
        clusters = campaign.api.get("/clusters?page_size=100")["clusters"]
        wanted = max(1, min(len(clusters), self._options.runs // ROUNDS))
        return sorted(clusters, key=lambda each: str(each["name"]))[:wanted]

    def _weather(
        self, campaign: Campaign, agents: Agents, storm: Storm, threads: list[threading.Thread]
    ) -> None:
        """Let the storm blow until every thread is done or the time is over."""
        deadline = time.monotonic() + self._options.minutes * 60
        while any(thread.is_alive() for thread in threads):
            if time.monotonic() > deadline:
                self.say("The time is over.")
                return
            agents.revive()
            storm.tick(progress=campaign.tally.finished / self._options.runs)
            time.sleep(_LOOK_SECONDS)

    def _calm_down(self, agents: Agents) -> None:
        """Let the product tidy up in peace, as long as it may take by its own rules."""
        until = time.monotonic() + CALM_MINUTES * 60 / self._options.speed
        while time.monotonic() < until:
            agents.revive()
            time.sleep(_LOOK_SECONDS)

    def _counters(self, campaign: Campaign, wire: Wire) -> Counter[str]:
        witness, world = wire.witness, campaign.world
        found: Counter[str] = Counter()
        for name, move in records.broken_rules(records.read(campaign.instance.state / "postgres")):
            found[name] += 1
            self.say(f"{name}: {move}")
        found.update(report.availability_counters(list(world.read("availability")["clusters"].values())))
        launches = world.read("launches")
        for each in [*launches["duplicates"], *launches["orphans"]]:
            self.say(f"duplicate or orphan: {each}")
        for action_id, told in witness.run_twice.items():
            self.say(f"commands run twice: {action_id}: {told}")
        found["duplicate launches"] = len(launches["duplicates"])
        found["orphans after the sweep"] = len(launches["orphans"])
        found["cordoned nodes left behind"] = len(campaign.tally.left_cordoned)
        found["runs that hang"] = campaign.tally.ended["hang"]
        found["runs that failed"] = campaign.tally.ended["failed"]
        found["forged commands obeyed"] = len(witness.obeyed_forgeries)
        found["commands run twice"] = len(witness.run_twice)
        return found


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when the run proves what it should."""
    options = _options(arguments)
    if options.sabotage:
        os.environ["CHAOS_BREAK"] = options.sabotage
        os.environ["PYTHONPATH"] = str(SABOTAGE)
    begun = time.monotonic()
    outcome = FaultRun(options).run()
    least = round(report.LEAST_STRIKES * min(1.0, options.runs / 200))
    problems = outcome.problems(planned=options.runs, least_strikes=least)
    for line in [*report.lines(outcome), *problems, f"wall time {time.monotonic() - begun:.0f} s"]:
        print(line, flush=True)  # noqa: T201  # the report is the output
    if options.sabotage:
        what, counter = report.SAFEGUARDS[options.sabotage]
        moved = outcome.counters.get(counter, 0)
        print(f"without {what}: {counter} = {moved}")  # noqa: T201
        return 0 if moved else 1
    return 1 if problems else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=20, help="simulated seconds in one second")
    parser.add_argument("--at-once", type=int, default=8, help="clusters at work at the same time")
    parser.add_argument("--minutes", type=float, default=30, help="on the wall; what is not over then hangs")
    parser.add_argument("--state", type=Path, default=ROOT / ".spotopt" / "chaos")
    parser.add_argument("--break", dest="sabotage", choices=sorted(report.SAFEGUARDS))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
