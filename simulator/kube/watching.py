"""Watches: each follows the shared history from its own version, so none copies the world."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from simulator.kube.cluster import Cluster
from simulator.kube.errors import Body, StatusError, expired
from simulator.kube.resources import Resource
from simulator.kube.store import Change, Entry

BOOKMARK_SECONDS = 10.0
LONGEST_SECONDS = (1800, 3600)


@dataclass(frozen=True, slots=True)
class Watch:
    """What one client follows, and from where ("" or "0": from now, after all there is)."""

    resource: Resource
    namespace: str | None
    selects: Callable[[Body], bool] | None
    version: str
    sends_bookmarks: bool
    sends_initial: bool
    timeout_seconds: float | None


def head_of(resource: Resource) -> bytes:
    """The opening of an object's JSON: kind and apiVersion."""
    return f'{{"kind":"{resource.kind}","apiVersion":"{resource.group_version}",'.encode()


async def follow(cluster: Cluster, watch: Watch, stopping: asyncio.Event) -> AsyncGenerator[bytes, None]:
    """The lines of a watch until its time is over; an ERROR with 410 when its version is too old."""
    loop = asyncio.get_running_loop()
    seconds = watch.timeout_seconds or random.uniform(*LONGEST_SECONDS)  # noqa: S311 - jitter
    ends_at = loop.time() + seconds
    collection = cluster.store.collections[watch.resource.plural]
    version = cluster.store.version if watch.version in {"", "0"} else int(watch.version)
    if watch.version in {"", "0"} or watch.sends_initial:
        version = cluster.store.version
        yield _existing(cluster, watch)
    waiter = asyncio.Event()
    collection.waiters.add(waiter)
    try:
        while loop.time() < ends_at and not stopping.is_set():
            if version < collection.compacted:
                yield _too_old(version, collection.compacted)
                return
            waiter.clear()
            reached = cluster.store.version
            lines = b"".join(_line(watch, change) for change in collection.since(version))
            version = reached
            if lines:
                yield lines
            pause = min(BOOKMARK_SECONDS, ends_at - loop.time())
            if not await _wait(waiter, pause) and watch.sends_bookmarks:
                yield _bookmark(watch.resource, max(version, cluster.store.version))
                version = max(version, cluster.store.version)
    finally:
        collection.waiters.discard(waiter)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), max(0.0, seconds))
    except TimeoutError:
        return False
    return True


def _existing(cluster: Cluster, watch: Watch) -> bytes:
    entries = (entry for _, entry in cluster.store.page(watch.resource.plural, namespace=watch.namespace))
    lines = [_event(watch.resource, "ADDED", entry) for entry in entries if _shows(watch, entry)]
    if watch.sends_initial:
        lines.append(_bookmark(watch.resource, cluster.store.version, is_end=True))
    return b"".join(lines)


def _line(watch: Watch, change: Change) -> bytes:
    """The event that this watch sees: objects that leave its selection are deleted for it."""
    showed = change.before is not None and _shows(watch, change.before)
    shows = not change.deleted and _shows(watch, change.after)
    if not showed and not shows:
        return b""
    kind = "DELETED" if not shows else "MODIFIED" if showed else "ADDED"
    return _event(watch.resource, kind, change.after)


def _shows(watch: Watch, entry: Entry) -> bool:
    if watch.namespace is not None and entry.body["metadata"].get("namespace", "") != watch.namespace:
        return False
    return watch.selects is None or watch.selects(entry.body)


def _event(resource: Resource, kind: str, entry: Entry) -> bytes:
    return b'{"type":"%s","object":%s%s}\n' % (kind.encode(), head_of(resource), entry.json[1:])


def _bookmark(resource: Resource, version: int, *, is_end: bool = False) -> bytes:
    metadata: Body = {"resourceVersion": str(version), "creationTimestamp": None}
    if is_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    body = {"kind": resource.kind, "apiVersion": resource.group_version, "metadata": metadata}
    return json.dumps({"type": "BOOKMARK", "object": body}).encode() + b"\n"


def _too_old(version: int, compacted: int) -> bytes:
    error: StatusError = expired(f"too old resource version: {version} ({compacted})")
    return json.dumps({"type": "ERROR", "object": error.body()}).encode() + b"\n"
