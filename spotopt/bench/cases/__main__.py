"""`python -m spotopt.bench.cases --count 10000 --seed 1`: generated clusters against the laws of plans."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from spotopt.bench.cases import kinds
from spotopt.bench.cases.generator import generate
from spotopt.bench.cases.trial import binds, play

TWICE_EVERY = 10
PROBE_EVERY = 4
SHOWN_FAULTS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the cases, print what was covered, and return 1 when any law was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="number of cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    chosen = parser.parse_args(arguments)
    started = time.process_time()
    tally = _Tally()
    for number in range(chosen.first, chosen.first + chosen.count):
        tally.play(chosen.seed, number)
        if (number + 1) % 250 == 0:
            sys.stderr.write(f"\r{number + 1 - chosen.first:,} of {chosen.count:,} cases")
            sys.stderr.flush()
    sys.stderr.write("\n")
    sys.stdout.write(tally.report(time.process_time() - started))
    return 1 if tally.faults else 0


class _Tally:
    """Counts over all cases played."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._cases = self._saving = self._unsafe = 0
        self._present: Counter[str] = Counter()
        self._named: Counter[str] = Counter()
        self._probed: Counter[str] = Counter()
        self._binding: Counter[str] = Counter()

    def play(self, seed: int, number: int) -> None:
        """Play one case; every tenth twice, and every fourth also without the kind it is about."""
        case = generate(seed, number)
        outcome = play(case, twice=number % TWICE_EVERY == 0)
        self._cases += 1
        self._saving += bool(outcome.plan.waves)
        self._unsafe += outcome.is_unsafe
        self._present.update(case.kinds)
        self._named.update(outcome.named)
        self.faults += [f"case {seed}/{number}: {fault}" for fault in outcome.faults]
        if number // len(kinds.ALL) % PROBE_EVERY == 0 and case.focus.name in case.kinds:
            self._probed[case.focus.name] += 1
            self._binding[case.focus.name] += binds(case, case.focus.name, outcome.plan)

    def report(self, cpu_seconds: float) -> str:
        """Return the counts as text: for each kind how often it was present, named and binding."""
        summary = (
            f"{self._cases:,} cases in {cpu_seconds:.0f} CPU seconds: {self._saving:,} plans that save, "
            f"{self._unsafe:,} where the checker took no plan, {len(self.faults):,} broken laws."
        )
        lines = [
            summary,
            "",
            "| constraint | present | named as a reason | binding when taken off |",
            "|---|---:|---:|---:|",
        ]
        for kind in kinds.ALL:
            probed = f"{self._binding[kind.name]} of {self._probed[kind.name]}"
            named = f"{self._named[kind.name]:,}" if kind.codes else "–"
            lines.append(f"| {kind.name} | {self._present[kind.name]:,} | {named} | {probed} |")
        return "\n".join([*lines, *self.faults[:SHOWN_FAULTS], ""])


if __name__ == "__main__":
    sys.exit(main())
