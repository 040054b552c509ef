"""Every reason for leaving something alone has words for its page."""

from policies.domain.refusals import Code
from policies.selectors.reasons import refusal_groups


def test_given_any_refusal_code_when_shown_then_it_has_a_label_of_its_own() -> None:
    rows = [{"code": code.value, "subject": "n1", "reason": ""} for code in Code]

    labels = {group.code: group.label for group in refusal_groups(rows)}

    assert set(labels) == set(Code)
    assert len(set(labels.values())) == len(Code)
