from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.domain.interruption_cost import (
    HALF_LIFE,
    Sight,
    expected_losses_per_hour,
    expected_usd_per_hour,
    losses_per_hour,
    unforetold_per_hour,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
rates = st.floats(1e-5, 2.0)
hours = st.floats(0.0, 500.0)


def test_given_a_risk_of_a_half_within_a_day_when_rated_then_the_half_life_is_a_day():
    assert losses_per_hour(0.5) == pytest.approx(0.693147 / 24, rel=1e-6)
    assert losses_per_hour(0.0) == 0.0


def test_given_nothing_seen_when_expected_then_the_rate_of_its_kind_stands():
    assert expected_losses_per_hour(0.25, Sight(NOON)) == 0.25


def test_given_four_calm_hours_at_a_loss_in_four_when_expected_then_the_rate_is_half():
    sight = Sight(NOON).later(NOON + timedelta(hours=4), held=True)

    assert expected_losses_per_hour(0.25, sight) == 0.125


def test_given_hours_in_which_no_node_was_held_when_looked_at_later_then_they_do_not_count():
    assert Sight(NOON).later(NOON + timedelta(hours=4), held=False).hours == 0.0


def test_given_a_loss_when_seen_then_the_hours_before_it_are_forgotten():
    sight = Sight(NOON).later(NOON + timedelta(hours=40), held=True).lost()

    assert (sight.losses, sight.hours) == (1.0, 0.0)


def test_given_a_loss_when_its_half_life_has_passed_then_it_counts_half():
    assert Sight(NOON).lost().later(NOON + HALF_LIFE, held=False).losses == 0.5


@given(rate=rates, calm=hours, longer=hours)
def test_given_more_calm_hours_when_expected_then_the_rate_never_rises(rate, calm, longer):
    shorter = expected_losses_per_hour(rate, Sight(NOON, 0.0, calm))

    assert expected_losses_per_hour(rate, Sight(NOON, 0.0, calm + longer)) <= shorter <= rate


@given(rate=rates, calm=hours, losses=st.floats(0.0, 50.0))
def test_given_a_loss_when_expected_then_the_rate_rises(rate, calm, losses):
    sight = Sight(NOON, losses, calm)

    assert expected_losses_per_hour(rate, sight.lost()) > expected_losses_per_hour(rate, sight)


@given(rate=rates, losses=st.floats(0.0, 50.0), wait=st.floats(0.1, 1000.0))
def test_given_a_lost_pool_when_time_passes_then_it_regains_its_good_name(rate, losses, wait):
    sight = Sight(NOON, losses).lost()
    later = sight.later(NOON + timedelta(hours=wait), held=False)

    assert rate < expected_losses_per_hour(rate, later) < expected_losses_per_hour(rate, sight)


def test_given_as_many_losses_as_foretold_when_compared_then_nothing_is_unforetold():
    assert unforetold_per_hour(losses=3, expected=3.5, hours=100) == 0.0


def test_given_twelve_losses_too_many_in_a_day_of_pool_hours_when_compared_then_a_quarter_an_hour():
    assert unforetold_per_hour(losses=12, expected=0, hours=24) == 0.25


def test_given_a_loss_in_four_hours_when_a_restart_costs_two_then_the_price_rises_by_half():
    assert expected_usd_per_hour(0.10, 0.25, 2.0) == pytest.approx(0.15)
