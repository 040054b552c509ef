"""The price of diversification and of the strategies, in whole nodes."""

import csv
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from policies.domain.model import FloatArray, IntArray
from policies.domain.solver.problem import Answer, share_caps
from policies.domain.solver.solve import Effort, solve
from spotopt.bench.packing.data import Case, load_case
from spotopt.bench.packing.recount import faults

WORKLOAD, CATALOGUE = "log60-10000", "GP32"
POOL_SHARE, FAMILY_SHARE = 0.10, 0.25
AIM = 1.05
_SECONDS = 120.0
"""No kind of node is dominated when each pool has a share of its own: the work is larger."""
RISK_PRICE = 0.25
"""What one interruption bucket adds to a price under the strategy capacity-optimized, as a share of it."""
COREMARK_FILE = Path("../product/A_ec2_catalogue/instance_types.csv")


def report(data: Path, effort: Effort) -> list[str]:
    """Print both tables; return the aims missed."""
    case = load_case(data, [WORKLOAD], CATALOGUE)
    free = solve(case.problem, time.process_time, effort)
    missed = _caps(case, free, effort)
    _strategies(data, case, effort)
    return missed


def _caps(case: Case, free: Answer, effort: Effort) -> list[str]:
    problem, patient = case.problem, replace(effort, seconds=_SECONDS, proof_seconds=None)
    pools = share_caps("pool", problem.pools, POOL_SHARE, problem.prices)
    families = share_caps("family", problem.families, FAMILY_SHARE, problem.prices)
    sys.stdout.write(
        f"\nShares of the cost in whole nodes, {WORKLOAD} on {CATALOGUE}\n\n"
        "| caps | cost USD/h | over bound without caps | largest pool | largest family | nodes | CPU s |\n"
        "|---|--:|--:|--:|--:|--:|--:|\n"
    )
    missed: list[str] = []
    for name, rules in (("none", ()), ("pool 10 %", pools), ("pool 10 %, family 25 %", (*pools, *families))):
        answer = free if not rules else solve(replace(problem, rules=rules), time.process_time, patient)
        pool, family = _largest(case, answer, problem.pools), _largest(case, answer, problem.families)
        over = answer.cost / free.bound
        sys.stdout.write(
            f"| {name} | {answer.cost:,.3f} | {over - 1:+.2%} | {pool:.1%} | {family:.1%} | {answer.nodes} | "
            f"{answer.first_seconds:.1f} |\n"
        )
        missed += [f"{name}: {fault}" for fault in faults(case, answer.columns, answer.cost)]
        if rules and (over > AIM or pool > POOL_SHARE + 1e-9):
            missed.append(f"{name}: {over - 1:+.2%}, aim {AIM - 1:+.0%}")
    return missed


def _largest(case: Case, answer: Answer, groups: IntArray) -> float:
    """Return the largest part of the cost that one group of kinds has."""
    by_group = np.zeros(int(np.max(groups)) + 1)
    for column in answer.columns:
        by_group[groups[column.kind]] += case.problem.prices[column.kind] * column.copies
    return float(by_group.max() / answer.cost)


def _strategies(data: Path, case: Case, effort: Effort) -> None:
    """Print what each strategy costs, how often it is interrupted, and the CoreMark that it buys."""
    marks = _coremarks(data, case)
    spot = case.spot()
    prices = case.problem.prices
    per_vcpu = marks / np.maximum(case.column("vcpu"), 1)
    objectives = {
        "cheapest": prices,
        "performance": prices * float(per_vcpu.max()) / np.maximum(per_vcpu, 1e-9),
        "capacity-optimized": prices * (1 + RISK_PRICE * case.column("risk") * spot),
    }
    sys.stdout.write(
        f"\nStrategies, {WORKLOAD} on {CATALOGUE} (*performance*: types with a CoreMark figure only)\n\n"
        "| strategy | cost USD/h | mean interruption bucket (by cost) | CoreMark/s per USD/h |\n"
        "|---|--:|--:|--:|\n"
    )
    for name, objective in objectives.items():
        known = (marks > 0) | (name != "performance")
        problem = replace(case.problem, prices=objective, accepted=case.problem.accepted & known)
        answer = solve(problem, time.process_time, replace(effort, proof_seconds=None))
        used = np.zeros(len(prices))
        for column in answer.columns:
            used[column.kind] += column.copies
        cost = float(used @ prices)
        bucket = float(used @ (prices * case.column("risk") * spot)) / cost
        sys.stdout.write(f"| {name} | {cost:,.3f} | {bucket:.2f} | {float(used @ marks) / cost:,.0f} |\n")


def _coremarks(data: Path, case: Case) -> FloatArray:
    """Return CoreMark iterations a second of each kind, 0 where unknown (column coremark_iter_per_s)."""
    with (data / COREMARK_FILE).open(newline="") as lines:
        known = {
            row["instance_type"]: float(row["coremark_iter_per_s"] or 0) for row in csv.DictReader(lines)
        }
    return np.array([known.get(case.types[number]["name"], 0.0) for number, *_ in case.kinds])
