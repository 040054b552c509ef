"""The lines of the report: faults that struck, and the counters that must be zero."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST_STRIKES = 20
COUNTERS = (
    "PDB violations",
    "pods below minimum because of us",
    "duplicate launches",
    "orphans after the sweep",
    "cordoned nodes left behind",
    "runs that hang",
    "runs that failed",
    "moves that no rule allows",
    "actions claimed twice",
    "actions begun after their time",
    "actions left open after their time",
    "voluntary work begun in a pause",
    "nodes disrupted beyond the budget",
    "forged commands obeyed",
    "commands run twice",
)
SAFEGUARDS: Mapping[str, tuple[str, str]] = {
    "pdb": ("disruption budgets, enforced by the eviction API", "PDB violations"),
    "client-token": ("client tokens, and the look for what a token launched", "duplicate launches"),
    "claim": ("the claim's conditional update", "moves that no rule allows"),
    "recheck": ("the check on fresh state at the claim", "voluntary work begun in a pause"),
    "budget": (
        "the cap on nodes disrupted at once, in the plan, its check and the queue",
        "nodes disrupted beyond the budget",
    ),
    "expiry": ("the end of an action's time", "actions begun after their time"),
    "reaper": ("the reaper of overdue actions", "actions left open after their time"),
    "cleanup": ("the tidying at a plan's end", "cordoned nodes left behind"),
    "signature": ("the agent's check of signatures", "forged commands obeyed"),
    "nonce": ("the agent's memory of commands", "commands run twice"),
}
"""What `BREAK=name` takes out, and the counter that this moves."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that a fault run found."""

    runs: Mapping[str, int]
    struck: Mapping[str, int]
    counters: Mapping[str, int]

    def problems(self, *, planned: int, least_strikes: int) -> list[str]:
        """Return why the run is no proof: a counter that moved, a fault that struck too rarely."""
        moved = [f"{name}: {self.counters.get(name, 0)}" for name in COUNTERS if self.counters.get(name, 0)]
        rare = [
            f"{name} struck {times} times" for name, times in self.struck.items() if times < least_strikes
        ]
        done = sum(self.runs.values())
        short = [f"only {done} of {planned} runs ended"] if done < planned else []
        return [*moved, *rare, *short]


@dataclass(frozen=True, slots=True)
class Broken:
    """What happened without one safeguard."""

    name: str
    moved: int
    """By how much its counter."""
    runs: int
    seconds: float


def lines(outcome: Outcome) -> list[str]:
    """Return the report."""
    runs = ", ".join(f"{count} {name}" for name, count in sorted(outcome.runs.items()))
    head = f"runs: {sum(outcome.runs.values())} ({runs})"
    faults = [f"  {name:<36} {times:>6}" for name, times in outcome.struck.items()]
    counters = [
        f"{'BAD ' if outcome.counters.get(name, 0) else 'ok  '} {name:<36} {outcome.counters.get(name, 0):>6}"
        for name in COUNTERS
    ]
    return [head, "faults that struck:", *faults, *counters]


def broken_lines(broken: Sequence[Broken]) -> list[str]:
    """Return a Markdown table of the safeguards, and what their absence did."""
    rows = [
        f"| `{each.name}` | {SAFEGUARDS[each.name][0]} | {SAFEGUARDS[each.name][1]} | {each.moved} "
        f"| {each.seconds:.0f} |"
        for each in broken
    ]
    return ["| BREAK= | without | counter | value | seconds |", "|---|---|---|---:|---:|", *rows]
