from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from policies.domain.reversion import may_revert, worth_reverting

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PACE = timedelta(minutes=5)


@pytest.mark.parametrize(
    ("wait", "elapsed", "rested"),
    [
        (HOUR, timedelta(minutes=59), False),
        (HOUR, HOUR, True),
        (timedelta(0), timedelta(minutes=29), False),
        (timedelta(0), timedelta(minutes=30), True),
    ],
)
def test_given_a_fallback_when_time_passes_then_it_rests_its_wait_and_never_less_than_the_floor(
    wait, elapsed, rested
):
    assert may_revert(since=NOON, last_reversion=None, now=NOON + elapsed, wait=wait, pace=PACE) is rested


def test_given_a_reversion_just_now_when_asked_again_then_the_next_waits_its_turn():
    now = NOON + 2 * HOUR

    assert not may_revert(since=NOON, last_reversion=now - PACE / 2, now=now, wait=HOUR, pace=PACE)
    assert may_revert(since=NOON, last_reversion=now - PACE, now=now, wait=HOUR, pace=PACE)


@pytest.mark.parametrize(("replacement", "worth"), [("0.85", True), ("0.851", False)])
def test_given_a_replacement_when_compared_then_it_must_save_fifteen_percent(replacement, worth):
    answer = worth_reverting(usd_per_hour=Decimal(1), replacement_usd_per_hour=Decimal(replacement))

    assert answer is worth
