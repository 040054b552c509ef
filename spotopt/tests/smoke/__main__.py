"""`python -m spotopt.tests.smoke`: drive a fresh instance, print the truth, fail when it is not good."""

import argparse
import sys
import time
from pathlib import Path

from spotopt.tests.smoke.client import ROOT
from spotopt.tests.smoke.instance import start
from spotopt.tests.smoke.road import Road
from spotopt.tests.smoke.truth import Finding


def main() -> int:
    """Return 0 when every finding is good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fleet", default="demo", choices=["demo", "small"])
    parser.add_argument("--speed", type=float, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--state", type=Path, default=ROOT / ".spotopt" / "smoke")
    options = parser.parse_args()
    begun = time.monotonic()
    instance = start(state=options.state, fleet=options.fleet, speed=options.speed, seed=options.seed)
    road = Road(instance)
    road.say(f"instance ready after {time.monotonic() - begun:.1f} s")
    try:
        found = road.report(road.drive())
    finally:
        road.agents.stop()
        instance.stop()
    _print(found, time.monotonic() - begun)
    return 0 if all(finding.is_good for finding in found) else 1


def _print(found: list[Finding], seconds: float) -> None:
    for finding in found:
        mark = "ok  " if finding.is_good else "BAD "
        print(f"{mark} {finding.name:<32} {finding.value}")  # noqa: T201  # the report is the output
    print(f"     {'wall time':<32} {seconds:.0f} s")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
