import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.domain.diversification import allowances, pools_needed, within_share


@pytest.mark.parametrize(("replicas", "minimum", "pools"), [(4, 3, 4), (10, 5, 2), (10, 6, 3), (3, 0, 1)])
def test_given_a_minimum_when_spread_then_one_pool_less_still_leaves_it(replicas, minimum, pools):
    assert pools_needed(replicas, minimum) == pools


def test_given_no_pod_to_spare_when_spread_then_no_number_of_pools_is_enough():
    assert pools_needed(4, 4) is None


def test_given_pods_in_place_when_allowed_more_then_each_pool_takes_what_may_be_lost():
    left = allowances(np.array([10, 4]), np.array([6, 4]), np.array([[3, 0, 5], [0, 0, 1]]))

    assert left.tolist() == [[1, 4, 0], [0, 0, 0]]


@given(
    replicas=st.integers(1, 60),
    share=st.floats(0, 1),
    pods=st.lists(st.integers(0, 20), min_size=1, max_size=8),
)
def test_given_pools_filled_as_allowed_when_any_is_lost_then_the_minimum_stays(replicas, share, pods):
    minimum = int(replicas * share)
    placed = np.zeros((1, len(pods)), np.int64)

    for pool, wanted in enumerate(pods):
        unplaced = replicas - int(placed.sum())
        allowed = allowances(np.array([replicas]), np.array([minimum]), placed)[0, pool]
        placed[0, pool] = min(wanted, unplaced, allowed)

    assert replicas - placed.max() >= minimum


def test_given_shares_of_a_bill_when_a_node_is_added_then_only_pools_within_theirs_take_it():
    able = within_share(np.array([0.0, 1.0, 2.0]), np.array([9.0, 1.0, 1.0]), 0.25, 8.0)

    assert able.tolist() == [True, True, False]
