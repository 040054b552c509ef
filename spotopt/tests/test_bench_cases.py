"""Generated clusters: each law of plans holds for every kind of constraint."""

import pytest

from spotopt.bench.cases import kinds
from spotopt.bench.cases.__main__ import main
from spotopt.bench.cases.generator import generate
from spotopt.bench.cases.trial import play

ROUNDS = 3
SEED = 20


@pytest.mark.parametrize("position", range(len(kinds.ALL)), ids=[kind.name for kind in kinds.ALL])
def test_given_clusters_under_a_constraint_when_planned_then_every_law_holds(position: int) -> None:
    cases = [generate(SEED, position + len(kinds.ALL) * i) for i in range(ROUNDS)]

    faults = [fault for number, case in enumerate(cases) for fault in play(case, twice=number == 0).faults]

    assert {case.focus.name for case in cases} == {kinds.ALL[position].name}
    assert faults == []


def test_given_a_seed_and_a_number_when_generated_twice_then_the_cases_are_equal() -> None:
    assert generate(3, 5) == generate(3, 5)
    assert generate(3, 5) != generate(4, 5)


def test_given_a_kind_when_taken_off_then_only_its_traits_are_gone() -> None:
    case = generate(1, [kind.name for kind in kinds.ALL].index("zone_cover"))

    bound, free = case.inputs(), case.inputs(without="zone_cover")

    assert (bound.rules.az_spread, free.rules.az_spread) == (True, False)
    assert bound.snapshot == free.snapshot


def test_given_a_few_cases_when_the_bench_runs_then_it_counts_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["--count", "4", "--seed", "9"])

    assert status == 0
    assert capsys.readouterr().out.startswith("4 cases in ")
