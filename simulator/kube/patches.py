"""JSON patch, merge patch and strategic merge patch."""

from typing import Any

from simulator.kube.errors import Body, StatusError, bad_request

MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "env": "name",
    "volumes": "name", "volumeMounts": "mountPath", "ports": "containerPort", "imagePullSecrets": "name",
    "taints": "key", "conditions": "type", "addresses": "type", "ownerReferences": "uid",
    "topologySpreadConstraints": "topologyKey", "hostAliases": "ip",
}  # fmt: skip
UNIONS = frozenset({"finalizers"})
DIRECTIVES = ("$patch", "$setElementOrder/", "$deleteFromPrimitiveList/", "$retainKeys")


def copy_tree(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {key: copy_tree(each) for key, each in value.items()}
    if isinstance(value, list):
        return [copy_tree(each) for each in value]
    return value


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, all else replaces. The target is left as it was."""
    if not isinstance(patch, dict):
        return copy_tree(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic_merge(target: Any, patch: Any) -> Any:
    """Kubernetes' own merge: lists of named things merge by their key, `$patch` replaces or deletes."""
    if not isinstance(patch, dict):
        return copy_tree(patch)
    if patch.get("$patch") == "replace":
        return {key: copy_tree(value) for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.split("/", 1)[1]
            result[field] = [each for each in result.get(field, []) if each not in value]
        elif key.startswith(DIRECTIVES):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list):
            result[key] = _merge_list(key, result.get(key) or [], value)
        else:
            result[key] = strategic_merge(result.get(key), value)
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    return result


def _merge_list(field: str, current: list[Any], patch: list[Any]) -> list[Any]:
    if field in UNIONS:
        return list(dict.fromkeys([*current, *patch]))
    key = MERGE_KEYS.get(field)
    if key is None or not all(isinstance(each, dict) for each in patch):
        return [copy_tree(each) for each in patch]
    if {"$patch": "replace"} in patch:
        return [copy_tree(each) for each in patch if each != {"$patch": "replace"}]
    result = list(current)
    for item in patch:
        if key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        index = next((at for at, each in enumerate(result) if each.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            result = [each for each in result if each.get(key) != item[key]]
        elif index is None:
            result.append(strategic_merge({}, item))
        else:
            result[index] = strategic_merge(result[index], item)
    return result


def json_patch(target: Body, operations: list[Body]) -> Body:
    """RFC 6902; a failed test or missing path is a 422 Invalid, as the API server answers it."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    document: Any = copy_tree(target)
    for operation in operations:
        document = _apply(document, operation)
    if not isinstance(document, dict):
        raise _unprocessable("the patched document is not an object")
    return document


def _unprocessable(problem: str) -> StatusError:
    return StatusError(422, f"the server rejected our request due to an error in our request: {problem}",
                       reason="Invalid", details={})  # fmt: skip


def _apply(document: Any, operation: Body) -> Any:
    kind, path = operation.get("op"), _pointer(operation.get("path", ""))
    if kind == "test":
        if _read(document, path) != operation.get("value"):
            raise _unprocessable(f"testing path {operation['path']} failed")
        return document
    if kind in {"move", "copy"}:
        source = _pointer(operation["from"])
        value = copy_tree(_read(document, source))
        document = _edit(document, source, "remove", None) if kind == "move" else document
        return _edit(document, path, "add", value)
    if kind not in {"add", "remove", "replace"}:
        raise bad_request(f"Unexpected kind: {kind}")
    return _edit(document, path, kind, operation.get("value"))


def _pointer(path: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _read(document: Any, path: list[str]) -> Any:
    try:
        for step in path:
            document = document[int(step)] if isinstance(document, list) else document[step]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise _unprocessable(f"missing path: /{'/'.join(path)}") from error
    return document


def _edit(document: Any, path: list[str], kind: str, value: Any) -> Any:
    if not path:
        return value
    parent, last = _read(document, path[:-1]), path[-1]
    if kind == "replace" and isinstance(parent, dict) and last not in parent:
        raise _unprocessable(f"replace operation does not apply: doc is missing key: /{'/'.join(path)}")
    try:
        if isinstance(parent, list):
            _edit_list(parent, last, kind, value)
        elif kind == "remove":
            del parent[last]
        else:
            parent[last] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise _unprocessable(
            f"{kind} operation does not apply: doc is missing path: /{'/'.join(path)}"
        ) from error
    return document


def _edit_list(items: list[Any], step: str, kind: str, value: Any) -> None:
    index = len(items) if step == "-" else int(step)
    if kind == "add" and index <= len(items):
        items.insert(index, value)
    elif kind == "remove":
        del items[index]
    else:
        items[index] = value
