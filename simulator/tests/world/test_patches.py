import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.kube.errors import StatusError
from simulator.kube.patches import json_patch, merge, strategic_merge
from simulator.kube.selectors import parse_label_selector

leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abcd"), trees, max_size=4)


def reference_merge(target, patch):
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = reference_merge(target.get(name), value)
    return target


@given(objects, objects)
def test_given_any_two_objects_when_merged_then_the_result_is_that_of_the_standard(target, patch):
    before = copy.deepcopy(target)

    assert merge(target, patch) == reference_merge(target, patch)
    assert target == before


@given(objects, objects)
def test_given_a_merge_when_repeated_then_nothing_more_changes(target, patch):
    once = merge(target, patch)

    assert merge(once, patch) == once


@given(objects)
def test_given_any_patch_when_strategically_merged_then_the_target_is_left_alone(patch):
    target = {"containers": [{"name": "a", "image": "1"}], "x": {"y": 1}}

    strategic_merge(target, patch)

    assert target == {"containers": [{"name": "a", "image": "1"}], "x": {"y": 1}}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ([{"key": "b", "value": "9"}], [{"key": "a", "value": "1"}, {"key": "b", "value": "9"}]),
        ([{"key": "a", "$patch": "delete"}], [{"key": "b", "value": "2"}]),
        ([{"$patch": "replace"}, {"key": "c"}], [{"key": "c"}]),
    ],
)
def test_given_a_list_of_named_things_when_patched_then_it_merges_by_name(patch, expected):
    target = {"taints": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]}

    assert strategic_merge(target, {"taints": patch})["taints"] == expected


def test_given_a_json_patch_when_applied_then_all_operations_work_in_order():
    target = {"a": [1, 2], "b": {"c/d": 1}}

    patched = json_patch(
        target,
        [
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "remove", "path": "/a/0"},
            {"op": "copy", "from": "/a/0", "path": "/first"},
            {"op": "move", "from": "/b/c~1d", "path": "/moved"},
            {"op": "test", "path": "/first", "value": 2},
        ],
    )

    assert patched == {"a": [2, 3], "b": {}, "first": 2, "moved": 1}
    assert target == {"a": [1, 2], "b": {"c/d": 1}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "remove", "path": "/a/9"},
        {"op": "test", "path": "/a", "value": 1},
        {"op": "add", "path": "/none/x", "value": 1},
    ],
)
def test_given_a_json_patch_that_does_not_apply_when_tried_then_422(operation):
    with pytest.raises(StatusError) as refused:
        json_patch({"a": []}, [operation])

    assert refused.value.code == 422


@pytest.mark.parametrize(
    ("selector", "labels", "selects"),
    [
        ("a=1,b!=2", {"a": "1"}, True),
        ("a=1,b!=2", {"a": "1", "b": "2"}, False),
        ("a in (1, 2),!c", {"a": "2"}, True),
        ("a in (1, 2),!c", {"a": "2", "c": ""}, False),
        ("a notin (1)", {}, True),
        ("a", {"a": ""}, True),
        ("a==1", {"a": "2"}, False),
    ],
)
def test_given_a_label_selector_when_tested_then_it_selects_as_kubernetes_does(selector, labels, selects):
    assert parse_label_selector(selector)(labels) is selects
