from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlregistry.domain.heuristic import MONTHLY_SHARE, daily, interruption_risk, label, relative_range


@pytest.mark.parametrize(
    ("bucket", "risk"),
    [(0, 0.000832), (1, 0.002560), (2, 0.004380), (3, 0.006305), (4, 0.009413), (None, 0.007309)],
)
def test_given_a_bucket_when_rated_then_its_monthly_share_becomes_a_daily_probability(bucket, risk):
    assert interruption_risk(bucket=bucket) == pytest.approx(risk, abs=1e-6)


@settings(deadline=None)
@given(st.sampled_from(MONTHLY_SHARE))
def test_given_a_daily_share_when_it_holds_for_a_month_then_it_is_the_monthly_share(monthly):
    assert 1 - (1 - daily(monthly)) ** (730 / 24) == pytest.approx(monthly)


def test_given_a_ranging_price_when_rated_then_up_to_a_fifth_is_added():
    calm = interruption_risk(bucket=0)

    assert interruption_risk(bucket=0, price_range=0.5) == pytest.approx(calm + 0.1)
    assert interruption_risk(bucket=0, price_range=7) == pytest.approx(calm + 0.2)


def test_given_a_flag_when_rated_then_the_pool_is_no_longer_safe():
    calm = interruption_risk(bucket=4)

    assert interruption_risk(bucket=4, is_flagged=True) == pytest.approx(calm + 0.3)
    assert (label(calm), label(calm + 0.3)) == ("SAFE", "CAUTION")
    assert label(interruption_risk(bucket=4, price_range=1, is_flagged=True)) == "AVOID"


@pytest.mark.parametrize(
    ("risk", "word"), [(0.1999, "SAFE"), (0.2, "CAUTION"), (0.5, "CAUTION"), (0.5001, "AVOID")]
)
def test_given_a_risk_when_labelled_then_the_borders_are_the_documented_ones(risk, word):
    assert label(risk) == word


@settings(deadline=None)
@given(st.none() | st.integers(0, 4), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_given_more_danger_when_rated_then_the_risk_never_falls_and_stays_a_probability(
    bucket, low, high, flag
):
    low, high = sorted((low, high))
    calm = interruption_risk(bucket=bucket, price_range=low, is_flagged=flag)

    assert 0 < calm <= interruption_risk(bucket=bucket, price_range=high, is_flagged=True) <= 0.99


@pytest.mark.parametrize(
    ("low", "high", "share"),
    [("0.08", "0.10", 0.2), ("0.10", "0.10", 0.0), (None, "0.10", 0.0), ("0.10", None, 0.0)],
)
def test_given_a_days_prices_when_compared_then_the_range_is_relative_to_the_highest(low, high, share):
    prices = [None if price is None else Decimal(price) for price in (low, high)]

    assert relative_range(*prices) == pytest.approx(share)
