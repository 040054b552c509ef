"""Changing objects: create, update, patch, delete, scale, with optimistic concurrency and dry run."""

import json
from dataclasses import dataclass
from typing import Any

from simulator.kube import patches
from simulator.kube.cluster import Cluster
from simulator.kube.errors import (
    Body,
    already_exists,
    bad_request,
    conflict,
    not_found,
    precondition_failed,
    unsupported_media_type,
)
from simulator.kube.podindex import controller_of
from simulator.kube.resources import Resource
from simulator.kube.validation import COUNTS_GENERATIONS, check, with_defaults

MERGE, STRATEGIC, JSON_PATCH = (
    f"application/{kind}+json" for kind in ("merge-patch", "strategic-merge-patch", "json-patch")
)
SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
HAS_STATUS = COUNTS_GENERATIONS | {"Node", "Pod", "Namespace"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a write is about; `name` is empty for a collection."""

    resource: Resource
    namespace: str
    name: str = ""
    subresource: str = ""
    is_dry_run: bool = False


def parse(content: bytes) -> Any:
    """The JSON of a request body; 400 when it is none."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def create(cluster: Cluster, target: Target, body: Body) -> Body:
    """Store a new object and return it; 404 without its namespace, 409 when its name is taken."""
    resource = target.resource
    metadata = dict(body.get("metadata") or {})
    if metadata.get("namespace", target.namespace) != target.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if resource.is_namespaced:
        metadata["namespace"] = target.namespace
        if cluster.store.get("namespaces", "", target.namespace) is None:
            raise not_found("namespaces", "", target.namespace)
    if not metadata.get("name"):
        if not metadata.get("generateName"):
            raise bad_request("name or generateName is required")
        metadata["name"] = metadata["generateName"] + cluster.store.make_suffix()
    for field in ("uid", "resourceVersion", *SERVER_OWNED):
        metadata.pop(field, None)
    content = {key: value for key, value in body.items() if key not in {"kind", "apiVersion"}}
    fresh = with_defaults(resource, content | {"metadata": metadata})
    check(resource, fresh)
    if cluster.store.get(resource.plural, target.namespace, metadata["name"]) is not None:
        raise already_exists(resource.plural, resource.group, metadata["name"])
    return fresh if target.is_dry_run else cluster.store.create(resource.plural, fresh, now=cluster.now)


def existing(cluster: Cluster, target: Target) -> Body:
    """The object that a request names; 404 when there is none."""
    body = cluster.store.get(target.resource.plural, target.namespace, target.name)
    if body is None:
        raise not_found(target.resource.plural, target.resource.group, target.name)
    return body


def replace(cluster: Cluster, target: Target, body: Body) -> Body:
    """PUT: the whole object, refused with 409 when its resourceVersion is not the latest."""
    old = existing(cluster, target)
    if body.get("metadata", {}).get("name") != target.name:
        shown = body.get("metadata", {}).get("name", "")
        raise bad_request(
            f"the name of the object ({shown}) does not match the name on the URL ({target.name})"
        )
    return store(cluster, target, old, body)


def patch(cluster: Cluster, target: Target, content_type: str, content: bytes) -> Body:
    """PATCH by merge, strategic merge or JSON patch; 415 for any other kind."""
    old, changes = existing(cluster, target), parse(content)
    kind = content_type.partition(";")[0].strip()
    if kind == JSON_PATCH:
        new = patches.json_patch(old, changes)
    elif not isinstance(changes, dict):
        raise bad_request("json: cannot unmarshal array into Go value of type map[string]interface {}")
    elif kind == MERGE:
        new = patches.merge(old, changes)
    elif kind == STRATEGIC:
        new = patches.strategic_merge(old, changes)
    else:
        raise unsupported_media_type(", ".join((JSON_PATCH, MERGE, STRATEGIC)))
    return store(cluster, target, old, new)


def store(cluster: Cluster, target: Target, old: Body, new: Body) -> Body:
    """Store a changed object as the server completes and checks it; one that stays equal is not written."""
    resource = target.resource
    metadata = _metadata(target, old["metadata"], new.get("metadata") or {})
    fixed = {key: value for key, value in new.items() if key not in {"kind", "apiVersion"}}
    if target.subresource == "status":
        fixed = old | {"status": new.get("status", {})}
    elif resource.kind in HAS_STATUS:
        fixed |= {"status": old.get("status", {})}
    fresh = fixed | {"metadata": metadata}
    if resource.kind in HAS_STATUS and "spec" not in fresh:
        fresh["spec"] = {}
    check(resource, fresh, old)
    if fresh == old:
        return old
    if resource.kind in COUNTS_GENERATIONS and fresh["spec"] != old["spec"]:
        fresh["metadata"] = metadata | {"generation": old["metadata"].get("generation", 1) + 1}
    return fresh if target.is_dry_run else cluster.store.put(resource.plural, fresh)


def _metadata(target: Target, old: Body, new: Body) -> Body:
    """The metadata of an update: what the server owns stays, a stale version or another uid is a 409."""
    resource = target.resource
    if new.get("resourceVersion") and new["resourceVersion"] != old["resourceVersion"]:
        raise conflict(resource.plural, resource.group, target.name)
    if new.get("uid") and new["uid"] != old["uid"]:
        problem = f"Precondition failed: UID in precondition: {new['uid']}, UID in object meta: {old['uid']}"
        raise precondition_failed(resource.plural, resource.group, target.name, problem)
    metadata = {key: value for key, value in new.items() if key not in SERVER_OWNED}
    if target.subresource == "status":
        metadata = {key: value for key, value in old.items() if key not in SERVER_OWNED}
    owned = {key: old[key] for key in SERVER_OWNED if key in old}
    identity = {"name": old["name"], "resourceVersion": old["resourceVersion"]}
    namespace = {"namespace": old["namespace"]} if "namespace" in old else {}
    return metadata | owned | identity | namespace


def delete(cluster: Cluster, target: Target, options: Body) -> tuple[Body, bool]:
    """Delete an object and what it owns; return it and whether it still exists (a pod in its grace)."""
    resource, old = target.resource, existing(cluster, target)
    wanted = (options.get("preconditions") or {}).get("uid")
    if wanted and wanted != old["metadata"]["uid"]:
        found = old["metadata"]["uid"]
        problem = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        raise precondition_failed(resource.plural, resource.group, target.name, problem)
    if target.is_dry_run:
        return old, True
    if resource.kind == "Pod":
        grace = options.get("gracePeriodSeconds")
        last = cluster.delete_pod(target.namespace, target.name, cause="api-deletion", grace_seconds=grace)
        return last, cluster.store.get("pods", target.namespace, target.name) is not None
    last = cluster.store.remove(resource.plural, target.namespace, target.name)
    if resource.kind == "Namespace":
        _empty_namespace(cluster, target.name)
    elif options.get("propagationPolicy") != "Orphan" and not options.get("orphanDependents"):
        _delete_owned(cluster, old)
    return last, False


def _delete_owned(cluster: Cluster, owner: Body) -> None:
    uid, namespace = owner["metadata"]["uid"], owner["metadata"].get("namespace", "")
    for _, entry in list(cluster.store.page("replicasets", namespace=namespace)):
        reference = controller_of(entry.body)
        if reference and reference["uid"] == uid:
            cluster.store.remove("replicasets", namespace, entry.body["metadata"]["name"])
            _delete_owned(cluster, entry.body)
    for pod in cluster.index.pods_of(uid):
        cluster.delete_pod(namespace, pod["metadata"]["name"], cause="owner-deleted")


def _empty_namespace(cluster: Cluster, namespace: str) -> None:
    for plural in [name for name in cluster.store.collections if name != "namespaces"]:
        for key, _ in list(cluster.store.page(plural, namespace=namespace)):
            if plural == "pods":
                cluster.delete_pod(*key, cause="owner-deleted", grace_seconds=0)
            else:
                cluster.store.remove(plural, *key)


def scale_of(body: Body) -> Body:
    """The Scale subresource of a workload."""
    metadata = body["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    labels = (body["spec"].get("selector") or {}).get("matchLabels") or {}
    return {
        "metadata": {key: metadata[key] for key in kept},
        "spec": {"replicas": body["spec"].get("replicas", 0)},
        "status": {
            "replicas": body.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        },
    }


def write_scale(cluster: Cluster, target: Target, scale: Body) -> Body:
    """Set a workload's replicas through its Scale; 409 when the Scale's version is stale."""
    old = existing(cluster, target)
    version = (scale.get("metadata") or {}).get("resourceVersion")
    metadata = old["metadata"] | ({"resourceVersion": version} if version else {})
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    spec = old["spec"] | {"replicas": replicas}
    return scale_of(store(cluster, target, old, old | {"metadata": metadata, "spec": spec}))
