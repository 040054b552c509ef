"""Plays one generated case: which laws its plan breaks, and which of its constraints bind."""

from dataclasses import dataclass

from policies.domain.checker import check
from policies.domain.optimizer import propose
from policies.domain.plan import PlanProposal
from spotopt.bench.cases import kinds, world
from spotopt.bench.cases.generator import Case, Inputs


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case."""

    faults: tuple[str, ...]
    """Laws broken, as ``law: what``; empty when all hold."""
    named: frozenset[str]
    """Kinds of constraint that the plan's refusals name."""
    plan: PlanProposal

    @property
    def is_unsafe(self) -> bool:
        """Tell whether no plan was proposed because the checker took none."""
        return any(refusal.code == "plan_unsafe" for refusal in self.plan.refusals)


def plan_of(inputs: Inputs) -> PlanProposal:
    """Return what the optimizer proposes for the inputs."""
    return propose(snapshot=inputs.snapshot, offers=inputs.offers, rules=inputs.rules, now=world.NOW)


def play(case: Case, *, twice: bool) -> Outcome:
    """Propose a plan for the case and test every law on it; ``twice`` also that the plan is repeatable."""
    inputs = case.inputs()
    plan = plan_of(inputs)
    found = check(snapshot=inputs.snapshot, proposal=plan, offers=inputs.offers, rules=inputs.rules)
    faults = [f"valid: {violation}" for violation in found]
    if plan.usd_per_hour_after > plan.usd_per_hour_before:
        faults.append("never_dearer: the plan costs more than doing nothing")
    if not 0 <= plan.lower_bound_usd_per_hour <= plan.usd_per_hour_after:
        faults.append("bound: the lower bound is not below the price after")
    if twice and plan_of(case.inputs()) != plan:
        faults.append("repeatable: the same case gave another plan")
    faults += _unexplained(case, inputs, plan)
    codes = {refusal.code for refusal in plan.refusals}
    named = {trait.kind.name for trait in case.traits if trait.kind.codes & codes}
    return Outcome(tuple(faults), frozenset(named), plan)


def binds(case: Case, kind: str, bound: PlanProposal) -> bool:
    """Tell whether a plan would cost less, refuse less or take fewer waves without a kind of constraint."""
    free = plan_of(case.inputs(without=kind))
    is_cheaper = free.usd_per_hour_after < bound.usd_per_hour_after
    return is_cheaper or _blocked(free) < _blocked(bound) or len(free.waves) < len(bound.waves)


def _blocked(plan: PlanProposal) -> int:
    return sum(refusal.subject_kind in ("node", "workload") for refusal in plan.refusals)


def _unexplained(case: Case, inputs: Inputs, plan: PlanProposal) -> list[str]:
    """Return the infeasible parts of the case for which no refusal names the binding constraint."""
    reasons = {(refusal.subject_kind, refusal.subject): refusal.code for refusal in plan.refusals}
    faults = []
    for trait in case.traits:
        if trait.kind in kinds.UNPLACEABLE:
            workload = inputs.snapshot.workloads[trait.index]
            code = reasons.get(("workload", f"{workload.namespace}/{workload.name}"), "nothing")
            if code not in trait.kind.codes:
                faults.append(f"explained: {workload.name} is pending for {trait.kind.name}, named is {code}")
    codes = {code for trait in case.traits if trait.kind in kinds.PINNING for code in trait.kind.codes}
    for node_id in sorted(_pinned(case)):
        code = reasons.get(("node", node_id), "nothing")
        if code not in codes:
            faults.append(f"explained: {node_id} must stay for one of {sorted(codes)}, named is {code}")
    return faults


def _pinned(case: Case) -> set[str]:
    """Return the nodes that must stay, for themselves or for the pods on them."""
    traits = [trait for trait in case.traits if trait.kind in kinds.PINNING]
    nodes = {case.nodes[trait.index].id for trait in traits if trait.part == "nodes"}
    workloads = {case.workloads[trait.index].id for trait in traits if trait.part == "workloads"}
    return nodes | {pods.node_id for pods in case.placements if pods.workload_id in workloads}
