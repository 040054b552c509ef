"""Lives one week under each policy, for many ways to deal the recordings to pools, and sums it up."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from spotopt.bench.replay.buyers import PlainBuyer
from spotopt.bench.replay.facts import Policy, Workload
from spotopt.bench.replay.ledger import Result, result_of
from spotopt.bench.replay.market import Market, deal
from spotopt.bench.replay.risk_aware import Oracle, RiskAware, Stance
from spotopt.bench.replay.traces import Trace
from spotopt.bench.replay.world import NOTICE_SECONDS, Terms, World

WEEK_SECONDS = 7 * 86_400.0
BASELINE = "cheapest spot"
ON_DEMAND = "on-demand only"
OURS = "Spotopt"
ORACLE = "oracle"
AT_LOSS = "at the loss"
AT_NOTICE = "at the notice"
MOST_BILL = 1.05
MOST_INTERRUPTED = 0.5


Falls = Sequence[Sequence[float]]
"""For each cell the seconds at which it will lose capacity: only the oracle looks at them."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy and how soon it orders replacements."""

    name: str
    reacts: str
    make: Callable[[Falls], Policy]


@dataclass(frozen=True, slots=True)
class Scene:
    """What every contender lives through."""

    market: Market
    workloads: Sequence[Workload]
    traces: Sequence[Trace]
    seconds: float = WEEK_SECONDS


def contenders(scene: Scene) -> tuple[Contender, ...]:
    """Return the three policies, and what choice and early reaction do alone."""
    pools, workloads = scene.market.pools, scene.workloads

    def plain(*, spot: bool) -> Callable[[Falls], Policy]:
        return lambda _: PlainBuyer(pools, workloads, spot=spot)

    def ours(_: Falls) -> Policy:
        return RiskAware(pools, workloads, Stance())

    def oracle(falls: Falls) -> Policy:
        return Oracle(pools, workloads, Stance(), falls)

    return (
        Contender(ON_DEMAND, AT_LOSS, plain(spot=False)),
        Contender(BASELINE, AT_LOSS, plain(spot=True)),
        Contender(BASELINE, AT_NOTICE, plain(spot=True)),
        Contender(OURS, AT_LOSS, ours),
        Contender(OURS, AT_NOTICE, ours),
        Contender(ORACLE, AT_LOSS, oracle),
        Contender(ORACLE, AT_NOTICE, oracle),
    )


def frontier(scene: Scene, restart_hours: Sequence[float]) -> tuple[Contender, ...]:
    """Return the product's policy with each weight of a restart."""

    def ours(hours: float) -> Callable[[Falls], Policy]:
        return lambda _: RiskAware(scene.market.pools, scene.workloads, Stance(restart_hours=hours))

    return tuple(Contender(f"{hours:g}", AT_NOTICE, ours(hours)) for hours in restart_hours)


def live(scene: Scene, contender: Contender, seed: int) -> Result:
    """Return the records of the time under a mapping; the same seed gives every contender the same world."""
    mapping = deal(len(scene.market.cells), scene.traces, seed)
    outages = [
        trace.window(start, scene.seconds) for trace, start in zip(scene.traces, mapping.starts, strict=True)
    ]
    falls = [_falls(changes) for changes in outages]
    world = World(
        pools=scene.market.pools,
        workloads=scene.workloads,
        outages=outages,
        trace_of_cell=mapping.trace_of_cell,
        policy=contender.make([falls[trace] for trace in mapping.trace_of_cell]),
        terms=Terms(seed, NOTICE_SECONDS if contender.reacts == AT_NOTICE else 0.0),
    )
    return result_of(world.run(scene.seconds))


def _falls(changes: Sequence[tuple[float, float]]) -> list[float]:
    """Return the seconds at which the share that is up falls."""
    return [second for (_, before), (second, after) in pairwise(changes) if after < before]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over all mappings."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 2 if self.high < 10 else 0  # noqa: PLR2004  # small figures need their decimals
        return f"{self.middle:,.{digits}f} ({self.low:,.{digits}f}–{self.high:,.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Return median, least and most."""
    return Spread(median(values), min(values), max(values))


COLUMNS: tuple[tuple[str, Callable[[Result], float]], ...] = (
    ("bill USD", lambda result: float(result.usd)),
    ("of it on demand", lambda result: float(result.on_demand_usd)),
    ("interrupted pod-hours", lambda result: result.interrupted_pod_hours),
    ("pods interrupted", lambda result: result.pods_interrupted),
    ("pod-hours below minimum", lambda result: result.below_minimum_pod_hours),
    ("falls below minimum", lambda result: result.breaches),
    ("pods moved by itself", lambda result: result.pods_moved),
)


def table(rows: Sequence[tuple[str, Sequence[Result]]], baseline: Sequence[Result]) -> Iterator[str]:
    """Yield Markdown: median (least–most) over the mappings, and bill and hours over the baseline's."""
    names = [*(name for name, _ in COLUMNS), "bill ÷", "pod-hours ÷", "pods ÷"]
    yield f"| policy | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for label, results in rows:
        cells = [str(spread([figure(result) for result in results])) for _, figure in COLUMNS]
        cells += [str(over) for over in ratios(results, baseline)]
        yield f"| {label} | {' | '.join(cells)} |"


def ratios(results: Sequence[Result], baseline: Sequence[Result]) -> tuple[Spread, Spread, Spread]:
    """Return bill, interrupted pod-hours and interrupted pods over the baseline's, mapping by mapping."""
    pairs = list(zip(results, baseline, strict=True))
    return (
        spread([float(ours.usd / theirs.usd) for ours, theirs in pairs]),
        spread([ours.interrupted_pod_hours / theirs.interrupted_pod_hours for ours, theirs in pairs]),
        spread([ours.pods_interrupted / theirs.pods_interrupted for ours, theirs in pairs]),
    )
