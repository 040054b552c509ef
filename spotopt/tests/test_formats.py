from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from spotopt.core import formats, template_tags

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "places", "text"),
    [("1234.565", 2, "$1,234.57"), ("-3.1", 2, "−$3.10"), ("0.08424", 4, "$0.0842"), ("-0.001", 2, "$0.00")],
)
def test_given_an_amount_when_shown_then_it_is_rounded_half_up_with_its_sign(amount, places, text):
    assert formats.usd(Decimal(amount), places) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 %"), (0.019, "<0.1 %"), (0.05, "0.1 %"), (4.25, "4.2 %"), (54.4, "54 %"), (-12, "−12 %")],
)
def test_given_a_percentage_when_shown_then_only_small_ones_have_a_decimal(value, text):
    assert formats.percent(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12, "12 s"), (240, "4 min"), (7500, "2 h 5 min"), (7200, "2 h"), (90_000, "1 d 1 h"), (-5, "0 s")],
)
def test_given_a_span_when_shown_then_two_units_are_enough(seconds, text):
    assert formats.duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "just now"), (12, "12 s ago"), (-180, "in 3 min")])
def test_given_a_moment_when_shown_then_its_age_is_said(seconds, text):
    assert formats.age(NOW - timedelta(seconds=seconds), NOW) == text


def test_given_nothing_known_when_shown_then_it_says_so_and_never_zero():
    filters = (template_tags.usd, template_tags.monthly, template_tags.hourly, template_tags.cores)

    assert [show(None) for show in filters] == ["n/a"] * 4
    assert template_tags.percent_of(Decimal(1), Decimal(0)) == "n/a"


def test_given_a_part_of_a_whole_when_drawn_then_the_bar_never_leaves_its_track():
    shares = [template_tags.permille(part, 10) for part in (-1, 0, 5, 10, 12, None)]

    assert shares == [0, 0, 500, 1000, 1000, 0]


def test_given_fewer_than_two_values_when_drawn_as_a_line_then_there_is_none():
    assert template_tags.sparkline([Decimal(1)]) == ""
    assert 'points="0.0,22.0 96.0,2.0"' in template_tags.sparkline([Decimal(1), Decimal(2)])
