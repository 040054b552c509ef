from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.domain.contact import Contact
from clusters.domain.health import Health, band_score, fleet_health, health
from clusters.selectors.metrics import percentages


@pytest.mark.parametrize(
    ("percent", "score"), [(0, 0), (10, 0.5), (20, 1), (50, 1), (80, 1), (90, 0.5), (100, 0), (120, 0)]
)
def test_given_utilisation_when_scored_then_the_band_is_one_and_falls_linearly(percent, score):
    assert band_score(percent) == pytest.approx(score)


def test_given_measures_when_the_fleet_is_rated_then_the_weights_are_40_30_30():
    assert fleet_health(spot_risk=0.0, cpu_percent=50, memory_percent=50) == pytest.approx(100)
    assert fleet_health(spot_risk=0.5, cpu_percent=10, memory_percent=90) == pytest.approx(20 + 15 + 15)
    assert fleet_health(spot_risk=0.0, cpu_percent=None, memory_percent=50) is None


@pytest.mark.parametrize(("unready", "expected"), [(1, Health.HEALTHY), (2, Health.DEGRADED)])
def test_given_ten_nodes_when_over_a_tenth_are_unready_then_the_cluster_is_degraded(unready, expected):
    found = health(
        contact=Contact.CONNECTED, has_error=False, pending_pods=0, nodes=10, unready_nodes=unready
    )

    assert found is expected


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), st.integers(1, 10_000), min_size=1, max_size=12))
def test_given_counts_when_shared_out_then_they_sum_to_exactly_a_hundred(counts):
    shares = percentages(Counter(counts))

    assert sum(round(share * 10) for share in shares.values()) == 1000
    assert all(
        abs(shares[name] - 100 * count / sum(counts.values())) <= 0.1 for name, count in counts.items()
    )
