"""Keep a copy of a collection by listing it once and watching it from there."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from agentapi.agent.clock import Clock
from agentapi.agent.kube import Body, Kube, KubeError, KubeUnreachable
from agentapi.agent.pauses import spread

logger = logging.getLogger(__name__)

Key = tuple[str, str]
_Fact = TypeVar("_Fact")
_GONE = 410
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""On the wall, between attempts to reach the API server."""


class Reflector(Generic[_Fact]):
    """The facts of one collection by (namespace, name), as new as the API server's last word."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        path: str,
        convert: Callable[[Body], _Fact],
        on_change: Callable[[_Fact | None, _Fact | None], None] | None = None,
    ) -> None:
        self.path = path
        self.items: dict[Key, _Fact] = {}
        self.synced = asyncio.Event()
        self.failing_since: float | None = None
        self._kube, self._clock, self._convert, self._on_change = kube, clock, convert, on_change
        self._version = ""
        self._pause = _FIRST_PAUSE

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                pause = _FIRST_PAUSE
            except (KubeError, KubeUnreachable, ValueError) as error:
                if isinstance(error, KubeError) and error.status == _GONE:
                    self._version = ""
                if self.failing_since is None:
                    self.failing_since = self._clock.seconds()
                logger.warning("%s: %s; trying again", self.path, error)
                pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(spread(pause))

    async def _list(self) -> None:
        fresh: dict[Key, _Fact] = {}
        version = ""
        async for page, read_at in self._kube.pages(self.path):
            fresh.update((_key(body), self._convert(body)) for body in page)
            version = read_at
        for key in self.items.keys() - fresh.keys():
            self._change(key, None)
        for key, fact in fresh.items():
            self._change(key, fact)
        self._version = version
        self.synced.set()

    async def _watch(self) -> None:
        async with self._kube.watch(self.path, self._version) as events:
            self.failing_since = None
            async for event in events:
                self._take(event["type"], event["object"])

    def _take(self, kind: str, body: Body) -> None:
        if kind == "ERROR":
            raise KubeError(int(body.get("code") or _GONE), str(body.get("message", "")))
        self._pause = _FIRST_PAUSE
        self._version = body["metadata"]["resourceVersion"]
        if kind == "DELETED":
            self._change(_key(body), None)
        elif kind != "BOOKMARK":
            self._change(_key(body), self._convert(body))

    def _change(self, key: Key, fact: _Fact | None) -> None:
        before = self.items.get(key)
        if fact is None:
            self.items.pop(key, None)
        else:
            self.items[key] = fact
        if self._on_change is not None and before != fact:
            self._on_change(before, fact)


def _key(body: Body) -> Key:
    metadata: dict[str, Any] = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
