"""The checker accepts valid plans and rejects each spoilt copy for exactly what is wrong with it."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest

from policies.domain import checker, replay, replay_rules, replay_topology
from policies.domain.plan import PlanProposal
from policies.domain.policy import Rules, TemplateRules
from policies.domain.shapes import Node, Offer, PodTerm, Resources, SpreadRule, Workload
from policies.tests.mutants import CATALOGUE
from policies.tests.scenes import Mutant

BESIDE_THE_POINT = {
    "Workload": {"id", "kind", "name", "replicas", "request"},
    "Node": {
        "id", "instance_id", "instance_type", "zone", "zone_id", "capacity_type", "usd_per_hour",
        "allocatable", "daemon_overhead", "labels", "group_kind", "cpu_used_millis", "memory_used_mib",
    },
    "Offer": {
        "instance_type", "family", "zone", "zone_id", "capacity_type", "allocatable", "labels", "burstable",
        "prepaid",
    },
    "Rules": {
        "template", "fallback_on_demand", "min_saving_percent", "min_saving_usd_per_month",
        "min_saving_usd_per_hour", "min_saving_per_disruption", "spot_to_spot_pools",
        "spot_to_spot_saving_percent", "strategy", "spread_over_pools",
    },
    "template": {"strategy"},
    "PlanProposal": {"quoted_at"},
}  # fmt: skip
"""Fields that name or describe, are stated by another field, or are wishes that no plan can break."""


@pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda mutant: mutant.name)
def test_given_a_valid_plan_when_one_rule_is_broken_then_it_is_rejected_for_that_rule(mutant: Mutant) -> None:
    assert mutant.valid.codes() == set()

    assert mutant.spoilt.codes() == mutant.codes


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        (Workload, "Workload"),
        (Resources, "Resources"),
        (SpreadRule, "SpreadRule"),
        (PodTerm, "PodTerm"),
        (Node, "Node"),
        (Offer, "Offer"),
        (Rules, "Rules"),
        (TemplateRules, "template"),
        (PlanProposal, "PlanProposal"),
    ],
)
def test_given_every_field_that_states_a_constraint_when_looked_up_then_a_mutant_breaks_it(
    kind: Any, prefix: str
) -> None:
    covered = {mutant.covers for mutant in CATALOGUE}

    missing = {field.name for field in fields(kind) if f"{prefix}.{field.name}" not in covered}

    assert missing == BESIDE_THE_POINT.get(prefix, set())


def test_given_every_violation_that_the_checker_knows_when_looked_up_then_a_mutant_provokes_it() -> None:
    known = {code for module in (checker, replay, replay_rules, replay_topology) for code in _codes(module)}
    known |= set(replay_rules.RESOURCES)

    assert known == {code for mutant in CATALOGUE for code in mutant.codes}


def _codes(module: ModuleType) -> Iterator[str]:
    """Yield the codes at the start of what the module's functions yield."""
    for found in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(found, ast.Yield) and found.value is not None:
            value = found.value.elts[0] if isinstance(found.value, ast.Tuple) else found.value
            text = value.values[0] if isinstance(value, ast.JoinedStr) else value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield text.value.partition(":")[0]
