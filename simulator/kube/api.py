"""The API server of one cluster: authenticate, authorise, answer."""

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from simulator.kube import applying, listing, patches, resources, writing
from simulator.kube.cluster import Cluster
from simulator.kube.disruption import evict
from simulator.kube.errors import (
    Body,
    StatusError,
    bad_request,
    forbidden,
    method_not_allowed,
    no_such_path,
    unauthorized,
)
from simulator.kube.rbac import Access, may, token_of, user_of
from simulator.kube.resources import Resource
from simulator.kube.usage import UsageModel
from simulator.kube.watching import Watch, follow, head_of
from simulator.kube.writing import Target
from simulator.web import Request, Response

OPEN_PATHS = frozenset({"version", "healthz", "livez", "readyz"})
VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
ANONYMOUS = "system:anonymous"
METRICS = "metrics.k8s.io"


@dataclass(slots=True)
class Faults:
    """Errors that the API invents, and how often each struck."""

    error_rate: float = 0.0
    codes: tuple[int, ...] = (500, 503)
    struck: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class ApiServer:
    """Serves one cluster; `settle` is called after each change, before anything else is answered."""

    cluster: Cluster
    usage: UsageModel
    settle: Callable[[], None]
    stopping: asyncio.Event
    faults: Faults
    accesses: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)

    def handle(self, request: Request, path: tuple[str, ...]) -> Response:
        """Answer a request for a path below the cluster's root."""
        try:
            response = self._answer(request, path)
        except StatusError as error:
            response = _json(error.body(), error.code)
        headers = {"audit-id": str(uuid.uuid4())} | response.headers
        return Response(response.status, response.body, headers)

    def _answer(self, request: Request, path: tuple[str, ...]) -> Response:
        user = self._authenticate(request)
        self._maybe_fail()
        if path and path[0] in OPEN_PATHS:
            return self._about(path[0])
        if user == ANONYMOUS and (len(path) <= 1 or path[0] not in {"api", "apis"}):
            raise unauthorized()
        document = _discovery(path)
        if document is not None:
            return _json(document)
        access, resource = _parse(request, path)
        self._authorise(user, access)
        if "karpenter" in access.group and not self.cluster.has_karpenter:
            raise no_such_path()
        return self._serve(request, access, resource)

    def _authenticate(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not token:
            return ANONYMOUS
        user = user_of(self.cluster, token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise unauthorized()
        return user

    def _authorise(self, user: str, access: Access) -> None:
        self.accesses[user, access.verb, access.group, access.path] += 1
        if not may(self.cluster, user, access):
            raise forbidden(
                user=user,
                verb=access.verb,
                plural=access.resource,
                group=access.group,
                name=access.name,
                namespace=access.namespace,
                subresource=access.subresource,
            )

    def _maybe_fail(self) -> None:
        if self.faults.error_rate and random.random() < self.faults.error_rate:  # noqa: S311 - invented faults
            code = random.choice(self.faults.codes)  # noqa: S311 - invented faults
            self.faults.struck[str(code)] += 1
            reason = {
                409: "Conflict",
                429: "TooManyRequests",
                500: "InternalError",
                503: "ServiceUnavailable",
            }
            raise StatusError(code, "the server is asked to fail", reason=reason.get(code, "InternalError"))

    def _about(self, name: str) -> Response:
        if name != "version":
            return Response(HTTPStatus.OK, b"ok", {"content-type": "text/plain; charset=utf-8"})
        major, minor = self.cluster.k8s_version.split(".")
        version = {"major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.0-eks-1a2b3c4"}
        build = {
            "gitTreeState": "clean",
            "goVersion": "go1.24.5",
            "compiler": "gc",
            "platform": "linux/amd64",
        }
        return _json(version | build)

    def _serve(self, request: Request, access: Access, resource: Resource) -> Response:
        if resource.group == METRICS:
            return self._metrics(request, access, resource)
        target = Target(
            resource=resource,
            namespace=access.namespace or "",
            name=access.name,
            subresource=access.subresource,
            is_dry_run=request.query.get("dryRun") == "All",
        )
        if access.verb == "watch":
            return self._watch(request, access, resource)
        if access.verb == "list":
            return _raw(listing.list_page(self.cluster, resource, access.namespace, request.query))
        if access.verb == "get":
            return self._read(target)
        try:
            return self._write(request, access, target)
        finally:
            self.settle()

    def _read(self, target: Target) -> Response:
        body = writing.existing(self.cluster, target)
        if target.subresource == "scale":
            return _json({"kind": "Scale", "apiVersion": "autoscaling/v1"} | writing.scale_of(body))
        entry = self.cluster.store.entry(target.resource.plural, target.namespace, target.name)
        return _raw(head_of(target.resource) + entry.json[1:]) if entry else _json({}, HTTPStatus.NOT_FOUND)

    def _write(self, request: Request, access: Access, target: Target) -> Response:
        if access.verb == "create":
            return self._create(request, target)
        if access.verb in {"delete", "deletecollection"}:
            return self._delete(request, access, target)
        if target.subresource == "scale":
            return self._scale(request, target)
        if access.verb == "update":
            return _object(
                target.resource, writing.replace(self.cluster, target, writing.parse(request.body))
            )
        kind = request.headers.get("content-type", "")
        if kind == applying.CONTENT_TYPE:
            return self._apply(request, access, target)
        return _object(target.resource, writing.patch(self.cluster, target, kind, request.body))

    def _apply(self, request: Request, access: Access, target: Target) -> Response:
        is_new = self.cluster.store.get(target.resource.plural, target.namespace, target.name) is None
        if is_new:
            self._authorise(self._authenticate(request), replace(access, verb="create"))
        applied = applying.apply(
            self.cluster,
            target,
            writing.parse(request.body),
            manager=request.query.get("fieldManager", ""),
            is_forced=request.query.get("force") == "true",
        )
        return _object(target.resource, applied, HTTPStatus.CREATED if is_new else HTTPStatus.OK)

    def _create(self, request: Request, target: Target) -> Response:
        body = writing.parse(request.body)
        if target.subresource == "eviction":
            answer = evict(
                self.cluster,
                namespace=target.namespace,
                name=target.name,
                eviction=body,
                is_dry_run=target.is_dry_run,
            )
            return _json(answer, HTTPStatus.CREATED)
        if target.subresource == "token":
            writing.existing(self.cluster, target)
            user = f"system:serviceaccount:{target.namespace}:{target.name}"
            status = {"token": token_of(self.cluster, user), "expirationTimestamp": None}
            answer = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}}
            return _json(answer | {"spec": body.get("spec") or {}, "status": status}, HTTPStatus.CREATED)
        if target.name:
            raise method_not_allowed()
        return _object(target.resource, writing.create(self.cluster, target, body), HTTPStatus.CREATED)

    def _delete(self, request: Request, access: Access, target: Target) -> Response:
        options = writing.parse(request.body) if request.body.strip() else {}
        for name in ("gracePeriodSeconds", "propagationPolicy"):
            if name in request.query:
                value = request.query[name]
                options = {name: int(value) if value.isdigit() else value} | options
        if access.verb == "deletecollection":
            return self._delete_all(request, target, options)
        last, remains = writing.delete(self.cluster, target, options)
        if remains or target.resource.kind == "Pod":
            return _object(target.resource, last)
        details = {"name": target.name, "kind": target.resource.plural, "uid": last["metadata"]["uid"]}
        if target.resource.group:
            details["group"] = target.resource.group
        success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return _json(success | {"details": details})

    def _delete_all(self, request: Request, target: Target, options: Body) -> Response:
        plural, test = target.resource.plural, listing.selection(target.resource, request.query)
        page = self.cluster.store.page(plural, namespace=target.namespace or None)
        found = [(key, entry.body) for key, entry in page if test is None or test(entry.body)]
        for (namespace, name), _ in found:
            each = Target(target.resource, namespace, name, is_dry_run=target.is_dry_run)
            writing.delete(self.cluster, each, options)
        head = {"kind": f"{target.resource.kind}List", "apiVersion": target.resource.group_version}
        return _json(head | {"metadata": {}, "items": [body for _, body in found]})

    def _scale(self, request: Request, target: Target) -> Response:
        body = writing.existing(self.cluster, target)
        changes = writing.parse(request.body)
        current = writing.scale_of(body)
        if request.method == "PATCH":
            changes = patches.merge(current, changes)
        scale = writing.write_scale(self.cluster, target, changes)
        return _json({"kind": "Scale", "apiVersion": "autoscaling/v1"} | scale)

    def _watch(self, request: Request, access: Access, resource: Resource) -> Response:
        query = request.query
        version = query.get("resourceVersion", "")
        if not version.isdigit() and version:
            raise bad_request(
                f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: invalid syntax'
            )
        if version and int(version) > self.cluster.store.version:
            message = f"Timeout: Too large resource version: {version}, current: {self.cluster.store.version}"
            raise StatusError(504, message, reason="Timeout", details={"retryAfterSeconds": 1})
        watch = Watch(
            resource=resource,
            namespace=access.namespace,
            selects=listing.selection(resource, query, access.name),
            version=version,
            sends_bookmarks=query.get("allowWatchBookmarks") in {"true", "1", "True"},
            sends_initial=query.get("sendInitialEvents") in {"true", "1", "True"},
            timeout_seconds=float(query.get("timeoutSeconds") or 0) or None,
        )
        return Response(HTTPStatus.OK, follow(self.cluster, watch, self.stopping))

    def _metrics(self, request: Request, access: Access, resource: Resource) -> Response:
        if access.verb == "list":
            page = listing.metrics_page(self.cluster, self.usage, resource, access.namespace, request.query)
            return _raw(page)
        if access.verb != "get":
            raise method_not_allowed()
        key = (access.namespace or "", access.name)
        return _object(resource, listing.metrics_of(self.cluster, self.usage, resource, key))


def _discovery(path: tuple[str, ...]) -> Body | None:
    if path == ("api",):
        return resources.core_versions()
    if path == ("apis",):
        return resources.group_list()
    if path == ("api", "v1"):
        return resources.resource_list("", "v1")
    groups = dict(resources.GROUPS)
    if path[:1] == ("apis",) and len(path) > 1 and path[1] not in groups:
        raise no_such_path()
    if path[:1] == ("apis",) and len(path) == 2:  # noqa: PLR2004 - /apis/<group>
        head = {"kind": "APIGroup", "apiVersion": "v1"}
        return head | resources.group_document(path[1], groups[path[1]])
    if path[:1] == ("apis",) and len(path) == 3:  # noqa: PLR2004 - /apis/<group>/<version>
        return resources.resource_list(path[1], path[2])
    return None


def _parse(request: Request, path: tuple[str, ...]) -> tuple[Access, Resource]:
    """What the request wants, from its path and method; 404 for a path that means nothing."""
    group, version, rest = _group_of(path)
    namespace = None
    is_inside = len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in {"status", "finalize"}  # noqa: PLR2004
    if is_inside:
        namespace, rest = rest[1], rest[2:]
    resource = resources.BY_PATH.get((group, version, rest[0])) if rest else None
    name, subresource = (*rest[1:3], "", "")[:2]
    if resource is None or len(rest) > 3 or (is_inside and not resource.is_namespaced):  # noqa: PLR2004
        raise no_such_path()
    if subresource and subresource not in resource.subresources:
        raise no_such_path()
    verb = VERBS.get(request.method)
    if verb is None:
        raise method_not_allowed()
    is_watch = request.query.get("watch") in {"true", "1", "True"}
    if not name:
        verb = {"get": "watch" if is_watch else "list", "delete": "deletecollection"}.get(verb, verb)
        if verb in {"update", "patch"} or (verb == "create" and resource.is_namespaced and namespace is None):
            raise method_not_allowed()
    elif verb == "get" and is_watch:
        verb = "watch"
    return Access(verb, group, resource.plural, subresource, namespace, name), resource


def _group_of(path: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
    if path[:2] == ("api", "v1"):
        return "", "v1", path[2:]
    if path[:1] == ("apis",) and len(path) > 3:  # noqa: PLR2004 - /apis/<group>/<version>/<resource>
        return path[1], path[2], path[3:]
    raise no_such_path()


def _object(resource: Resource, body: Body, status: int = HTTPStatus.OK) -> Response:
    return _json({"kind": resource.kind, "apiVersion": resource.group_version} | body, status)


def _json(value: Any, status: int = HTTPStatus.OK) -> Response:
    return _raw(json.dumps(value, separators=(",", ":")).encode() + b"\n", status)


def _raw(content: bytes, status: int = HTTPStatus.OK) -> Response:
    return Response(status, content)
