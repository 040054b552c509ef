"""What the API server fills in and what it refuses before an object is stored."""

import json
import re
from typing import Any

from simulator.kube.errors import Body, cause, invalid
from simulator.kube.resources import Resource
from simulator.kube.seeding import default_tolerations
from simulator.kube.selectors import matches
from simulator.kube.store import value_at

LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
LABEL_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_LENGTH = 63
BAD_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
    "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
BAD_NAME = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
BAD_OBJECT_NAME = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
TIMES_METADATA_IS_CHECKED = {"Node": 4}
SELECTING = frozenset({"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"})
MUTABLE_POD_FIELDS = frozenset({"tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds"})
COUNTS_GENERATIONS = SELECTING | {"PodDisruptionBudget"}


def with_defaults(resource: Resource, body: Body) -> Body:
    """The object as the API server completes it."""
    if resource.kind == "Pod":
        return body | {"spec": _pod_defaults(body.get("spec") or {}), "status": {"phase": "Pending"}}
    if resource.kind not in COUNTS_GENERATIONS:
        return body
    spec, metadata = dict(body.get("spec") or {}), body["metadata"] | {"generation": 1}
    if resource.kind in {"Deployment", "ReplicaSet", "StatefulSet"}:
        spec.setdefault("replicas", 1)
    if resource.kind == "Deployment":
        rolling = {"maxUnavailable": "25%", "maxSurge": "25%"}
        spec.setdefault("strategy", {"type": "RollingUpdate", "rollingUpdate": rolling})
    if resource.kind in SELECTING and isinstance(spec.get("template"), dict):
        template = spec["template"]
        completed = {
            "metadata": template.get("metadata") or {},
            "spec": _pod_defaults(template.get("spec") or {}),
        }
        spec["template"] = template | completed
    return body | {"metadata": metadata, "spec": spec, "status": {}}


def _pod_defaults(spec: Body) -> Body:
    defaults = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "serviceAccountName": "default",
    }
    given = spec.get("tolerations") or []
    known = {(each.get("key"), each.get("effect")) for each in given}
    missing = [each for each in default_tolerations() if (each["key"], each["effect"]) not in known]
    tolerates_all = any(each.get("operator") == "Exists" and not each.get("key") for each in given)
    return defaults | spec | {"tolerations": [*given, *([] if tolerates_all else missing)]}


def check(resource: Resource, body: Body, old: Body | None = None) -> None:
    """Refuse an object that the API server would refuse, with a 422 that names each cause."""
    causes = _metadata_causes(resource, body)
    if resource.kind in SELECTING:
        causes += _controller_causes(body, old)
    if resource.kind == "Pod":
        causes += _pod_causes(body, old)
    if resource.kind == "PodDisruptionBudget" and {"minAvailable", "maxUnavailable"} <= body["spec"].keys():
        shown = json.dumps(body["spec"], separators=(",", ":"))
        message = f"Invalid value: {shown}: minAvailable and maxUnavailable cannot be both set"
        causes.append(cause("spec", message))
    if causes:
        raise invalid(resource.kind, resource.group, body["metadata"].get("name", ""), causes)


def _metadata_causes(resource: Resource, body: Body) -> list[Body]:
    metadata = body["metadata"]
    causes = []
    if resource.group != "rbac.authorization.k8s.io" and not OBJECT_NAME.fullmatch(metadata["name"]):
        causes.append(cause("metadata.name", f'Invalid value: "{metadata["name"]}": {BAD_OBJECT_NAME}'))
    for key, value in (metadata.get("labels") or {}).items():
        problem = _label_problem(key, value)
        if problem:
            causes += [cause("metadata.labels", problem)] * TIMES_METADATA_IS_CHECKED.get(resource.kind, 1)
    return causes


def _label_problem(key: str, value: str) -> str | None:
    if not LABEL_NAME.fullmatch(key.rsplit("/", 1)[-1]):
        return f'Invalid value: "{key}": {BAD_NAME}'
    if len(value) > LABEL_LENGTH:
        return f'Invalid value: "{value}": must be no more than {LABEL_LENGTH} bytes'
    return None if LABEL_VALUE.fullmatch(value) else f'Invalid value: "{value}": {BAD_VALUE}'


def _controller_causes(body: Body, old: Body | None) -> list[Body]:
    spec, causes = body["spec"], []
    selector = spec.get("selector")
    labels = value_at(spec, "template", "metadata", "labels", default={})
    if spec.get("replicas", 0) < 0:
        message = f"Invalid value: {spec['replicas']}: must be greater than or equal to 0"
        causes.append(cause("spec.replicas", message))
    if not selector:
        causes.append(cause("spec.selector", "Required value", reason="FieldValueRequired"))
    elif not matches(selector, labels):
        message = f"Invalid value: {_compact(labels)}: `selector` does not match template `labels`"
        causes.append(cause("spec.template.metadata.labels", message))
    if old is not None and selector != old["spec"].get("selector"):
        message = f"Invalid value: {_compact(selector)}: field is immutable"
        causes.append(cause("spec.selector", message))
    if not value_at(spec, "template", "spec", "containers"):
        field = "spec.template.spec.containers"
        causes.append(cause(field, "Required value", reason="FieldValueRequired"))
    return causes


def _pod_causes(body: Body, old: Body | None) -> list[Body]:
    if not body["spec"].get("containers"):
        return [cause("spec.containers", "Required value", reason="FieldValueRequired")]
    if old is None:
        return []
    fixed_new, fixed_old = _without_mutable(body["spec"]), _without_mutable(old["spec"])
    if fixed_new == fixed_old:
        return []
    message = (
        "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
        "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
        "previously negative)"
    )
    return [cause("spec", message, reason="FieldValueForbidden")]


def _without_mutable(spec: Body) -> Body:
    fixed = {key: value for key, value in spec.items() if key not in MUTABLE_POD_FIELDS}
    containers = [
        {key: value for key, value in each.items() if key != "image"} for each in spec["containers"]
    ]
    return fixed | {"containers": containers}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
