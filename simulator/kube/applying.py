"""Server-side apply: each manager owns the fields that it set, and nobody takes them over unasked."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from simulator.kube import patches, writing
from simulator.kube.cluster import Cluster
from simulator.kube.errors import Body, StatusError, bad_request
from simulator.kube.writing import Target

CONTENT_TYPE = "application/apply-patch+yaml"
UNAPPLIED = "before-first-apply"
"""The manager of what was written by other means than an apply."""
IDENTITY = frozenset({("metadata", "name"), ("metadata", "namespace")})
Path = tuple[str, ...]


def apply(cluster: Cluster, target: Target, intent: Body, *, manager: str, is_forced: bool) -> Body:
    """Create the object or set the intent's fields; 409 when another manager owns one with another value.

    Fields that the manager set before and leaves out now are removed. Lists are taken as a whole.
    """
    if not manager:
        raise bad_request("fieldManager: Required value: is required for apply patch")
    fields = _fields(intent)
    old = cluster.store.get(target.resource.plural, target.namespace, target.name)
    if old is None:
        metadata = {**(intent.get("metadata") or {}), "name": target.name}
        fresh = intent | {"metadata": _marked(metadata, {}, manager, fields)}
        return writing.create(cluster, replace(target, name=""), fresh)
    owners = _owners(old)
    taken = _taken(old, fields, owners, manager)
    if taken and not is_forced:
        raise _conflict(taken)
    others = {name: paths - fields.keys() for name, paths in owners.items() if name != manager}
    dropped = owners.get(manager, frozenset()) - fields.keys() - frozenset().union(*others.values())
    new = patches.copy_tree(old)
    for path in dropped:
        _remove(new, path)
    for path, value in fields.items():
        _set(new, path, value)
    new["metadata"] = _marked(new["metadata"], others, manager, fields)
    return writing.store(cluster, target, old, new)


def _fields(intent: Body) -> dict[Path, Any]:
    """Return the leaves of an intent apart from its identity."""
    return {
        path: value
        for path, value in _leaves(intent, ())
        if path[0] not in {"apiVersion", "kind"} and path[:2] not in IDENTITY
    }


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _leaves(each, (*path, key))
    elif path:
        yield path, value


def _taken(
    old: Body, fields: dict[Path, Any], owners: dict[str, frozenset[Path]], manager: str
) -> dict[Path, str]:
    """Return the fields that hold another value of another manager, with that manager."""
    held = dict(_leaves(old, ()))
    mine = owners.get(manager, frozenset())
    owner_of = {path: name for name, paths in owners.items() if name != manager for path in paths}
    return {
        path: owner_of.get(path, UNAPPLIED)
        for path, value in fields.items()
        if path in held and held[path] != value and (path in owner_of or path not in mine)
    }


def _conflict(taken: dict[Path, str]) -> StatusError:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{name}"',
            "field": "." + ".".join(path),
        }
        for path, name in sorted(taken.items())
    ]
    said = "; ".join(f"{each['message']}: {each['field']}" for each in causes)
    message = f"Apply failed with {len(causes)} conflict{'s' * (len(causes) > 1)}: {said}"
    return StatusError(409, message, reason="Conflict", details={"causes": causes})


def _owners(body: Body) -> dict[str, frozenset[Path]]:
    entries = body["metadata"].get("managedFields") or ()
    return {each["manager"]: frozenset(_paths(each["fieldsV1"], ())) for each in entries}


def _paths(node: Body, path: Path) -> Iterator[Path]:
    for key, below in node.items():
        here = (*path, key.removeprefix("f:"))
        if below:
            yield from _paths(below, here)
        else:
            yield here


def _marked(
    metadata: Body, others: dict[str, frozenset[Path]], manager: str, fields: dict[Path, Any]
) -> Body:
    owned: dict[str, Iterable[Path]] = {name: paths for name, paths in others.items() if paths}
    owned[manager] = fields
    entries = [
        {"manager": name, "operation": "Apply", "fieldsV1": _tree(paths)} for name, paths in owned.items()
    ]
    return metadata | {"managedFields": entries}


def _tree(paths: Iterable[Path]) -> Body:
    tree: Body = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(f"f:{step}", {})
    return tree


def _set(body: Body, path: Path, value: Any) -> None:
    for step in path[:-1]:
        below = body.get(step)
        body[step] = below if isinstance(below, dict) else {}
        body = body[step]
    body[path[-1]] = patches.copy_tree(value)


def _remove(body: Body, path: Path) -> None:
    for step in path[:-1]:
        if not isinstance(body.get(step), dict):
            return
        body = body[step]
    body.pop(path[-1], None)
