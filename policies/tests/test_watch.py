import pytest

from policies.domain.optimizer import propose
from policies.domain.watch import part_of
from policies.tests.fleets import NOW, catalogue, demo, rules


class GivenUp(Exception):
    """Nobody waits any more."""


def test_given_a_watch_when_a_plan_is_searched_then_it_hears_each_step_in_order():
    heard = []

    propose(
        snapshot=demo(8),
        offers=catalogue(),
        rules=rules(),
        now=NOW,
        watch=lambda step, share: heard.append((step, share)),
    )

    shares = [share for _, share in heard]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert len({step for step, _ in heard}) > 1


def test_given_a_watch_that_gives_up_when_a_plan_is_searched_then_the_search_ends_there():
    heard = []

    def give_up(step, share):
        heard.append(step)
        if len(heard) == 3:
            raise GivenUp

    with pytest.raises(GivenUp):
        propose(snapshot=demo(8), offers=catalogue(), rules=rules(), now=NOW, watch=give_up)

    assert len(heard) == 3


def test_given_a_part_of_a_search_when_it_reports_then_its_share_is_of_the_whole():
    heard = []

    part_of(lambda step, share: heard.append((step, share)), 0.5, 1.0, "Spot +10 %: ")("Packing", 0.5)

    assert heard == [("Spot +10 %: Packing", 0.75)]
