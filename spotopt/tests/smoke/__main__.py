"""`python -m spotopt.tests.smoke`: drive a fresh instance, print the truth, fail when it is not good."""

import argparse
import sys
import time
from decimal import Decimal
from pathlib import Path

from spotopt.tests.smoke.client import ROOT
from spotopt.tests.smoke.instance import start
from spotopt.tests.smoke.road import Road
from spotopt.tests.smoke.sabotage import Killer, corrupt_ledger, drop_pdb_checks
from spotopt.tests.smoke.truth import Finding


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when every finding is good."""
    options = _options(arguments)
    begun = time.monotonic()
    instance = start(state=options.state, fleet=options.fleet, speed=options.speed, seed=options.seed)
    road = Road(instance, min_saving_percent=options.min_saving)
    road.say(f"instance ready after {time.monotonic() - begun:.1f} s")
    killer = Killer(road, seed=options.seed)
    if options.kill:
        road.meanwhile = killer
    try:
        if options.sabotage == "pdb":
            drop_pdb_checks(road)
        before = road.drive()
        found = road.report(before)
        if options.sabotage == "ledger":
            corrupt_ledger(road)
            found = road.report(before)
    finally:
        road.agents.stop()
        instance.stop()
    if options.kill:
        found.append(Finding("killed once each", ", ".join(killer.killed), is_good=killer.is_done))
        found.append(Finding("killed while plans ran", str(killer.at_work), is_good=killer.at_work > 0))
    _print(found, time.monotonic() - begun)
    return 0 if all(finding.is_good for finding in found) else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleet", default="demo", choices=["demo", "small"])
    parser.add_argument("--speed", type=float, default=20, help="simulated seconds in one second")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--state", type=Path, default=ROOT / ".spotopt" / "smoke")
    parser.add_argument("--min-saving", type=Decimal, default=Decimal(45), help="percent; less is a failure")
    parser.add_argument("--kill", action="store_true", help="kill each kind of process once in the middle")
    parser.add_argument("--break", dest="sabotage", choices=["ledger", "pdb"], help="the run must then fail")
    return parser.parse_args(arguments)


def _print(found: list[Finding], seconds: float) -> None:
    for finding in found:
        mark = "ok  " if finding.is_good else "BAD "
        print(f"{mark} {finding.name:<32} {finding.value}")  # noqa: T201  # the report is the output
    print(f"     {'wall time':<32} {seconds:.0f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
