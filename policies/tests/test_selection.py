"""Which pools are refused and why, which are worth a look, and what replaces a dry one."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from policies.domain.policy import TemplateRules
from policies.domain.selection import allowed_offers, effective_prices, substitutes, worthwhile
from policies.domain.shapes import CapacityType
from policies.tests.fleets import FAMILIES, NOW, ZONES, catalogue, offer, rules, workload


@pytest.mark.parametrize(
    ("changes", "policy", "code"),
    [
        ({"family": "x9"}, {}, "pool_family"),
        ({"instance_type": "m5.metal-24xl"}, {}, "pool_size"),
        ({"instance_type": "m5.micro"}, {}, "pool_size"),
        ({"arch": "arm64"}, {}, "pool_architecture"),
        (
            {},
            {"template": TemplateRules(frozenset(FAMILIES), capacity_type="on_demand")},
            "pool_capacity_type",
        ),
        ({"burstable": True}, {"block_burstable": True}, "pool_burstable"),
        ({}, {"excluded_instance_types": frozenset({"m5.xlarge"})}, "excluded_instance_type"),
        ({}, {"max_price_per_hour": Decimal("0.01")}, "pool_price"),
        ({"usd_per_hour": Decimal(0)}, {}, "pool_price"),
        ({"interruption_risk": 0.51}, {}, "pool_risk"),
        ({"back_off_until": NOW + timedelta(seconds=1)}, {}, "pool_back_off"),
    ],
)
def test_given_a_pool_outside_the_rules_when_selected_then_it_is_refused_with_its_code(
    changes: dict[str, Any], policy: dict[str, Any], code: str
) -> None:
    allowed, refusals = allowed_offers([replace(offer(), **changes)], rules(**policy), NOW)

    assert allowed == []
    assert [refusal.code for refusal in refusals] == [code]


@pytest.mark.parametrize(
    "changes",
    [{"interruption_risk": 0.5}, {"back_off_until": NOW}, {"burstable": True}, {"arch": "amd64"}],
)
def test_given_a_pool_just_inside_the_rules_when_selected_then_it_is_allowed(changes: dict[str, Any]) -> None:
    allowed, refusals = allowed_offers([replace(offer(), **changes)], rules(), NOW)

    assert (len(allowed), refusals) == (1, [])


def test_given_a_risky_cheaper_pool_when_priced_then_the_strategy_decides_which_is_better() -> None:
    pools = [
        offer(usd_per_hour=Decimal("0.100"), interruption_risk=0.5),
        offer(usd_per_hour=Decimal("0.105"), interruption_risk=0.0),
    ]

    def best(strategy: str) -> int:
        template = TemplateRules(frozenset(FAMILIES), strategy=strategy)
        return int(np.argmin(effective_prices(pools, rules(template=template))))

    assert (best("cheapest"), best("balanced")) == (0, 1)


def test_given_an_older_generation_when_priced_for_performance_then_the_newer_is_better() -> None:
    pools = [
        offer("m5.xlarge", usd_per_hour=Decimal("0.100")),
        offer("m6i.xlarge", usd_per_hour=Decimal("0.105")),
    ]
    performance = TemplateRules(frozenset(FAMILIES), strategy="performance")

    assert np.argmin(effective_prices(pools, rules(template=performance))) == 1


def test_given_dominated_offers_when_thinned_then_only_the_best_of_each_kind_stay() -> None:
    cheap, dear = offer(), replace(offer(), instance_type="m5.other", usd_per_hour=Decimal(9))
    elsewhere = offer(zone=ZONES[1], usd_per_hour=Decimal(9))

    kept = worthwhile([cheap, dear, elsewhere], [0.1, 9.0, 9.0], [], enough=1)

    assert kept == [cheap, elsewhere]


def test_given_a_workload_that_asks_for_a_type_when_thinned_then_that_type_stays() -> None:
    cheap, dear = offer(), replace(offer(), instance_type="m5.other", usd_per_hour=Decimal(9))
    picky = workload("picky", node_selector={"node.kubernetes.io/instance-type": "m5.other"})

    assert worthwhile([cheap, dear], [0.1, 9.0], [picky], enough=1) == [cheap, dear]


def test_given_equal_offers_when_thinned_then_exactly_one_stays() -> None:
    assert len(worthwhile([offer(), offer()], [1.0, 1.0], [], enough=1)) == 1


def test_given_a_chosen_pool_when_substituted_then_equals_come_cheapest_first_and_on_demand_last() -> None:
    pools, _ = allowed_offers(catalogue(), rules(), NOW)
    chosen = next(o for o in pools if o.instance_type == "m5.xlarge" and o.capacity_type is CapacityType.SPOT)
    holds = np.array([o.allocatable.cpu_millis >= chosen.allocatable.cpu_millis for o in pools])

    names = substitutes(chosen, pools, holds, rules())

    prices = {o.pool: o.usd_per_hour for o in pools}
    assert len(names) >= 3
    assert chosen.pool not in names
    assert [prices[name] for name in names[:-1]] == sorted(prices[name] for name in names[:-1])
    assert names[-1].endswith(":on_demand")
    families = {o.pool: (o.family, o.zone) for o in pools}
    cells = [families[name] for name in names[:-1]]
    assert len(set(cells)) == len(cells)
    assert (chosen.family, chosen.zone) not in cells


@pytest.mark.parametrize(
    ("strategy", "best"), [("lowest_price", 0), ("balanced", 0), ("capacity_optimized", 1)]
)
def test_given_a_somewhat_risky_pool_when_priced_then_the_policy_decides_what_a_restart_costs(
    strategy: str, best: int
) -> None:
    pools = [
        offer(usd_per_hour=Decimal("0.100"), interruption_risk=0.15),
        offer(usd_per_hour=Decimal("0.105"), interruption_risk=0.0),
    ]

    assert np.argmin(effective_prices(pools, rules(strategy=strategy))) == best
