import pytest

from audit.domain.diff import Change, changes


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [Change("a", 1, 2, "modified")]),
        ({}, {"a": None}, [Change("a", None, None, "added")]),
        (None, {"a": 1}, [Change("a", None, 1, "added")]),
        ({"a": 1}, None, [Change("a", 1, None, "removed")]),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, [Change("a.b.c", 1, 2, "modified")]),
        ({"n": ["x", "y"]}, {"n": ["y", "z"]}, [
            Change("n[x]", "x", None, "removed"), Change("n[z]", None, "z", "added")]),
        ({"n": [{"k": 1}]}, {"n": [{"k": 2}]}, [Change("n[0].k", 1, 2, "modified")]),
        ({"n": []}, {"n": ["x"]}, [Change("n", [], None, "removed"), Change("n[x]", None, "x", "added")]),
        ({"w": [1] * 168}, {"w": [1] * 25 + [0] + [1] * 142}, [Change("w[Tue 01:00]", 1, 0, "modified")]),
    ],
)  # fmt: skip
def test_given_two_documents_when_compared_then_each_field_that_differs_is_named(before, after, expected):
    assert changes(before, after) == expected
