"""The objects of one cluster: versions, history for watches, and the journal behind them."""

import asyncio
import hashlib
import json
import uuid
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from simulator.journal import Journal
from simulator.kube.errors import Body
from simulator.kube.quantities import stamp

HISTORY = 8192
RESTART_GAP = 10_000
EPHEMERAL = frozenset({"events"})
SAFE_LETTERS = "bcdfghjklmnpqrstvwxz2456789"

Key = tuple[str, str]
Listener = Callable[[str, Body | None, Body | None], None]


class Entry:
    """One version of one object. The body is shared and never changed; its JSON is made once."""

    __slots__ = ("_json", "body", "version")

    def __init__(self, body: Body, version: int, text: bytes | None = None) -> None:
        self.body = body
        self.version = version
        self._json = text

    @property
    def json(self) -> bytes:
        """The body without kind and apiVersion, compact."""
        if self._json is None:
            self._json = json.dumps(self.body, separators=(",", ":")).encode()
        return self._json


class Change(NamedTuple):
    """One step of history: the entry before (None: added) and after (for a deletion, its last state)."""

    version: int
    deleted: bool
    before: Entry | None
    after: Entry


class Collection:
    """All objects of one resource, in key order, and what happened to them lately."""

    def __init__(self, version: int) -> None:
        self.entries: dict[Key, Entry] = {}
        self.keys: list[Key] = []
        self.history: list[Change] = []
        self.compacted = version
        self.waiters: set[asyncio.Event] = set()

    def put(self, key: Key, entry: Entry) -> Entry | None:
        before = self.entries.get(key)
        if before is None:
            insort(self.keys, key)
        self.entries[key] = entry
        return before

    def drop(self, key: Key) -> Entry:
        del self.keys[bisect_left(self.keys, key)]
        return self.entries.pop(key)

    def record(self, change: Change) -> None:
        if len(self.history) >= HISTORY:
            self.compacted = self.history[HISTORY // 2 - 1].version
            del self.history[: HISTORY // 2]
        self.history.append(change)
        for waiter in self.waiters:
            waiter.set()

    def since(self, version: int) -> list[Change]:
        """The changes after a version."""
        return self.history[bisect_right(self.history, version, key=lambda change: change.version) :]


def key_of(body: Body) -> Key:
    """(namespace, name); the namespace of a cluster-wide object is empty."""
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Store:
    """Objects by resource, with one growing version for all. Not thread-safe: one loop owns a cluster."""

    def __init__(self, *, cluster: str, journal: Journal, seed: int) -> None:
        self._prefix = f"kube/{cluster}/"
        self._seed = f"{seed}/{cluster}"
        self._journal = journal
        self._dirty: dict[str, Entry | None] = {}
        self.listeners: list[Listener] = []
        saved = journal.read(f"kube-version/{cluster}").get(f"kube-version/{cluster}")
        self._version_key = f"kube-version/{cluster}"
        self.is_new = saved is None
        self.version = 1 if saved is None else saved + RESTART_GAP
        self.collections: dict[str, Collection] = defaultdict(lambda: Collection(self.version))
        self._load()

    def _load(self) -> None:
        for key, text in self._journal.texts(self._prefix):
            resource = key[len(self._prefix) :].split("/", 1)[0]
            body = json.loads(text)
            version = int(body["metadata"]["resourceVersion"])
            collection = self.collections[resource]
            collection.entries[key_of(body)] = Entry(body, version, text.encode())
        for collection in self.collections.values():
            collection.keys = sorted(collection.entries)
            collection.compacted = self.version

    def get(self, resource: str, namespace: str, name: str) -> Body | None:
        entry = self.collections[resource].entries.get((namespace, name))
        return entry.body if entry else None

    def entry(self, resource: str, namespace: str, name: str) -> Entry | None:
        return self.collections[resource].entries.get((namespace, name))

    def bodies(self, resource: str) -> Iterator[Body]:
        """Every object of a resource, in no order; do not change the collection while reading."""
        for entry in self.collections[resource].entries.values():
            yield entry.body

    def page(
        self, resource: str, *, namespace: str | None = None, after: Key | None = None
    ) -> Iterator[tuple[Key, Entry]]:
        """The entries in key order, of one namespace or all, after a key."""
        collection = self.collections[resource]
        start = bisect_right(collection.keys, after) if after else 0
        if namespace is not None:
            start = max(start, bisect_left(collection.keys, (namespace, "")))
        for at in range(start, len(collection.keys)):
            key = collection.keys[at]
            if namespace is not None and key[0] != namespace:
                return
            yield key, collection.entries[key]

    def count_after(self, resource: str, namespace: str | None, key: Key) -> int:
        """How many entries of a namespace or of all follow a key."""
        keys = self.collections[resource].keys
        end = len(keys) if namespace is None else bisect_left(keys, (namespace + "\0", ""))
        return end - bisect_right(keys, key)

    def create(self, resource: str, body: Body, *, now: datetime) -> Body:
        """Store a new object: uid, creation time and version are given here."""
        metadata = dict(body["metadata"])
        metadata.setdefault("uid", self.make_uid(resource))
        metadata.setdefault("creationTimestamp", stamp(now))
        return self.put(
            resource, {"metadata": metadata, **{k: v for k, v in body.items() if k != "metadata"}}
        )

    def put(self, resource: str, body: Body) -> Body:
        """Store a body (the store keeps it: do not change it afterwards) under a new version."""
        self.version += 1
        stored = dict(body)
        stored["metadata"] = body["metadata"] | {"resourceVersion": str(self.version)}
        entry, key = Entry(stored, self.version), key_of(stored)
        collection = self.collections[resource]
        before = collection.put(key, entry)
        collection.record(Change(self.version, False, before, entry))
        self._mark(resource, key, entry)
        self._tell(resource, before.body if before else None, stored)
        return stored

    def remove(self, resource: str, namespace: str, name: str) -> Body:
        """Forget an object; its last state, with the version of its deletion, is returned."""
        self.version += 1
        collection = self.collections[resource]
        before = collection.drop((namespace, name))
        metadata = before.body["metadata"] | {"resourceVersion": str(self.version)}
        last = Entry(before.body | {"metadata": metadata}, self.version)
        collection.record(Change(self.version, True, before, last))
        self._mark(resource, (namespace, name), None)
        self._tell(resource, before.body, None)
        return last.body

    def make_uid(self, resource: str) -> str:
        """A uid that the same history always gives."""
        digest = hashlib.blake2b(f"{self._seed}/{resource}/{self.version}".encode(), digest_size=16)
        return str(uuid.UUID(bytes=digest.digest(), version=4))

    def make_suffix(self, length: int = 5) -> str:
        """Random-looking letters for generated names; the same history gives the same ones."""
        digest = hashlib.blake2b(f"{self._seed}/name/{self.version}".encode(), digest_size=length).digest()
        return "".join(SAFE_LETTERS[byte % len(SAFE_LETTERS)] for byte in digest)

    def wake_watches(self) -> None:
        """Make every watch look up, though nothing changed."""
        for collection in self.collections.values():
            for waiter in collection.waiters:
                waiter.set()

    def flush(self) -> None:
        """Write what changed since the last flush, in one transaction."""
        if not self._dirty:
            return
        texts = {key: entry.json.decode() if entry else None for key, entry in self._dirty.items()}
        texts[self._version_key] = str(self.version)
        self._dirty = {}
        self._journal.write_texts(texts)
        self.is_new = False

    def _mark(self, resource: str, key: Key, entry: Entry | None) -> None:
        if resource not in EPHEMERAL:
            self._dirty[f"{self._prefix}{resource}/{key[0]}/{key[1]}"] = entry

    def _tell(self, resource: str, before: Body | None, after: Body | None) -> None:
        for listener in self.listeners:
            listener(resource, before, after)


def value_at(body: Body, *path: str, default: Any = None) -> Any:
    """A nested field, or the default where a step is missing or null."""
    value: Any = body
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return default if value is None else value
