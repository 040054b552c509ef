"""IAM policy evaluation: actions, resources, principals and the conditions that role templates use."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

Context = Mapping[str, str | list[str]]
Document = Mapping[str, Any]


def allows(documents: list[Document], action: str, resource: str, context: Context) -> bool:
    """Whether these identity policies together permit the action: an explicit deny wins, silence denies."""
    matching = [
        statement["Effect"]
        for document in documents
        for statement in _statements(document)
        if _covers(statement, action, resource, context)
    ]
    return "Allow" in matching and "Deny" not in matching


def trusts(document: Document, action: str, principals: set[str], context: Context) -> bool:
    """Whether a trust policy lets one of these principals (ARNs or account ids of the caller) in."""
    matching = [
        statement["Effect"]
        for statement in _statements(document)
        if _covers_action(statement, action)
        and _covers_principal(statement, principals)
        and _conditions_hold(statement, context)
    ]
    return "Allow" in matching and "Deny" not in matching


def _statements(document: Document) -> list[dict[str, Any]]:
    found = document.get("Statement", [])
    return [found] if isinstance(found, dict) else list(found)


def _covers(statement: dict[str, Any], action: str, resource: str, context: Context) -> bool:
    return (
        _covers_action(statement, action)
        and _covers_resource(statement, resource)
        and _conditions_hold(statement, context)
    )


def _covers_action(statement: dict[str, Any], action: str) -> bool:
    if "NotAction" in statement:
        return not _any_like(_listed(statement["NotAction"]), action, ignore_case=True)
    return _any_like(_listed(statement.get("Action")), action, ignore_case=True)


def _covers_resource(statement: dict[str, Any], resource: str) -> bool:
    if "NotResource" in statement:
        return not _any_like(_listed(statement["NotResource"]), resource)
    patterns = _listed(statement.get("Resource"))
    return "*" in patterns or (resource != "*" and _any_like(patterns, resource))


def _covers_principal(statement: dict[str, Any], principals: set[str]) -> bool:
    principal = statement.get("Principal")
    if principal == "*":
        return True
    named = set(_listed(principal.get("AWS"))) if isinstance(principal, dict) else set()
    return "*" in named or bool(named & principals)


def _conditions_hold(statement: dict[str, Any], context: Context) -> bool:
    lowered = {key.lower(): _listed(value) for key, value in context.items()}
    return all(
        _condition_holds(operator, _listed(expected), lowered.get(key.lower()))
        for operator, keys in statement.get("Condition", {}).items()
        for key, expected in keys.items()
    )


def _condition_holds(operator: str, expected: list[str], actual: list[str] | None) -> bool:
    """One condition; an operator this simulator does not know never holds, so mistakes deny."""
    quantifier, _, name = operator.rpartition(":")
    name, optional = (name.removesuffix("IfExists"), name.endswith("IfExists"))
    if name == "Null":
        return (actual is None) == (expected == ["true"])
    if name not in OPERATORS:
        return False
    compare, negated = OPERATORS[name]
    if actual is None:
        return optional or negated or quantifier == "ForAllValues"
    hits = [any(compare(pattern, value) for pattern in expected) != negated for value in actual]
    return any(hits) if quantifier == "ForAnyValue" else all(hits)


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    values = value if isinstance(value, list) else [value]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in values]


def _any_like(patterns: list[str], value: str, *, ignore_case: bool = False) -> bool:
    if ignore_case:
        return any(_like(pattern.lower(), value.lower()) for pattern in patterns)
    return any(_like(pattern, value) for pattern in patterns)


def _like(pattern: str, value: str) -> bool:
    return _pattern(pattern).fullmatch(value) is not None


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    wildcards = {"*": ".*", "?": "."}
    return re.compile("".join(wildcards.get(letter) or re.escape(letter) for letter in text), re.DOTALL)


def _equal(expected: str, actual: str) -> bool:
    return expected == actual


def _equal_ignoring_case(expected: str, actual: str) -> bool:
    return expected.lower() == actual.lower()


OPERATORS: dict[str, tuple[Callable[[str, str], bool], bool]] = {
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "StringEqualsIgnoreCase": (_equal_ignoring_case, False),
    "StringNotEqualsIgnoreCase": (_equal_ignoring_case, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    "ArnEquals": (_like, False),
    "ArnLike": (_like, False),
    "ArnNotEquals": (_like, True),
    "ArnNotLike": (_like, True),
    "Bool": (_equal_ignoring_case, False),
}
