"""Every reason for leaving something alone has words for its page."""

from policies.domain.refusals import Code
from policies.selectors.reasons import label_of


def test_given_any_refusal_code_when_shown_then_it_has_a_label_of_its_own() -> None:
    labels = {code: label_of(code.value) for code in Code}

    assert len(set(labels.values())) == len(Code)
    assert not {code for code, label in labels.items() if "_" in label}
