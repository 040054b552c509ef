"""Label and field selectors, as strings of a query and as objects of a spec."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from simulator.kube.errors import Body, bad_request

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]
SET_TERM = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^)]*)\)$")


def matches(selector: Body | None, labels: Labels) -> bool:
    """Whether labels satisfy a LabelSelector object; None selects nothing, an empty one everything."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(holds(term, labels) for term in selector.get("matchExpressions") or ())


def holds(term: Body, labels: Labels) -> bool:
    """Whether one requirement (key, operator, values) is true for these labels."""
    value = labels.get(term["key"])
    values: list[str] = term.get("values") or []
    match term["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and value.isdigit() and int(value) > int(values[0])
        case "Lt":
            return value is not None and value.isdigit() and int(value) < int(values[0])
    raise bad_request(f'"{term["operator"]}" is not a valid selector operator')


def parse_label_selector(text: str) -> Test | None:
    """The test behind `labelSelector=`; None when it selects everything."""
    terms = [term.strip() for term in re.split(r",(?![^(]*\))", text) if term.strip()]
    requirements = [_label_requirement(term) for term in terms]
    if not requirements:
        return None
    return lambda labels: all(holds(requirement, labels) for requirement in requirements)


def _label_requirement(term: str) -> Body:
    if found := SET_TERM.match(term):
        key, word, values = found.groups()
        operator = "In" if word == "in" else "NotIn"
        return {"key": key, "operator": operator, "values": re.split(r"\s*,\s*", values.strip())}
    for mark, operator in (("!=", "NotIn"), ("==", "In"), ("=", "In")):
        if mark in term:
            key, value = term.split(mark, 1)
            return {"key": key.strip(), "operator": operator, "values": [value.strip()]}
    if term.startswith("!"):
        return {"key": term[1:].strip(), "operator": "DoesNotExist"}
    if " " in term:
        raise bad_request(f"unable to parse requirement: found '{term}', expected: in, notin, =, ==, !=")
    return {"key": term, "operator": "Exists"}


FIELDS: dict[str, frozenset[str]] = {
    "pods": frozenset(
        {f"spec.{field}" for field in ("nodeName", "restartPolicy", "schedulerName", "serviceAccountName")}
        | {"status.phase", "status.podIP", "status.nominatedNodeName"}
    ),
    "nodes": frozenset({"spec.unschedulable"}),
    "events": frozenset(
        {f"involvedObject.{field}" for field in ("kind", "name", "namespace", "uid")}
        | {"reason", "type", "source"}
    ),
    "namespaces": frozenset({"status.phase"}),
    "replicasets": frozenset({"status.replicas"}),
}


def parse_field_selector(resource: str, text: str) -> list[tuple[tuple[str, ...], str, bool]]:
    """The terms (path, value, equal) behind `fieldSelector=`; an unknown field is a 400."""
    terms = []
    for term in filter(None, (part.strip() for part in text.split(","))):
        mark = next((mark for mark in ("!=", "==", "=") if mark in term), None)
        if mark is None:
            raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
        field, value = term.split(mark, 1)
        if field not in {"metadata.name", "metadata.namespace"} and field not in FIELDS.get(resource, ()):
            raise bad_request(f"field label not supported: {field}")
        terms.append((tuple(field.split(".")), value, mark != "!="))
    return terms


def field_text(body: Body, path: tuple[str, ...]) -> str:
    """The field as a selector sees it: missing is empty, booleans are words."""
    value: Any = body
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "false" if path == ("spec", "unschedulable") else ""
    return str(value)
