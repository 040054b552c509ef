"""A thin client of the Kubernetes API: credentials and transport by kr8s, plain JSON in and out."""

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import kr8s.asyncio
from kr8s import APITimeoutError, ServerError

from agentapi.agent.pauses import spread
from agentapi.agent.settings import Settings

Body = dict[str, Any]
PAGE = 250
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_TIMEOUT = httpx.Timeout(30, connect=10)
_UNAUTHORIZED, _TOO_MANY, _SERVER_ERROR = 401, 429, 500
_PAUSES = (0.2, 0.4, 0.8)
"""On the wall, before another try of a request that the API server was too busy for."""
_REPEATABLE = frozenset({"GET", "PATCH"})
"""An eviction is asked for again only after its budget was looked at again."""
AT_ONCE = 24
"""Requests under way, watches apart: what waits in the transport costs it time for each pair of them."""
WATCH_SECONDS = 300
"""On the wall: how long one watch lasts before it is opened again."""
QUIET_SECONDS = 150.0
"""On the wall: two bookmarks that did not come mean that the connection of a watch is dead."""


class KubeError(Exception):
    """The API server refused: ``status`` is the HTTP code, ``reason`` and ``causes`` come from its Status."""

    def __init__(self, status: int, message: str, reason: str = "", causes: tuple[str, ...] = ()) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message
        self.reason = reason
        self.causes = causes


class KubeUnreachable(Exception):
    """The API server did not answer."""


def is_passing(error: Exception) -> bool:
    """Tell whether the same request may well be answered later."""
    if isinstance(error, KubeError):
        return error.status == _TOO_MANY or error.status >= _SERVER_ERROR
    return isinstance(error, KubeUnreachable)


class Kube:
    """One API server."""

    def __init__(
        self,
        api: Any,
        may_write: Callable[[], bool] = lambda: True,
        slots: asyncio.Semaphore | None = None,
    ) -> None:
        self._api, self._may_write = api, may_write
        self._slots = slots or asyncio.Semaphore(AT_ONCE)

    def while_allowed(self, may_write: Callable[[], bool]) -> "Kube":
        """Return the same client, which asks before each write and raises KubeUnreachable when told no."""
        return Kube(self._api, may_write, self._slots)

    @classmethod
    async def connect(cls, settings: Settings) -> "Kube":
        """Return a client by server and token, kubeconfig or service account; raise KubeUnreachable."""
        config: Any = settings.kubeconfig or None
        if settings.kube_server:
            config = _kubeconfig(settings.kube_server, settings.kube_token)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of versions newer than the library
                return cls(await kr8s.asyncio.api(kubeconfig=config))
        except (httpx.HTTPError, APITimeoutError, ServerError) as error:
            raise KubeUnreachable(str(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        session = self._api._session  # noqa: SLF001  # the library offers no other way
        if session is not None:
            await session.aclose()

    async def version(self) -> str:
        """Return the API server's version, such as ``v1.33.0``."""
        answer = await self.get("/version")
        return str(answer.get("gitVersion", ""))

    async def get(self, path: str, **params: str) -> Body:
        """Return one object."""
        return await self._request("GET", path, params=params)

    async def get_lean(self, path: str, shrink: Callable[[Body], Any]) -> Body:
        """Return one object whose parts were shrunk as they were read, so that it is never held in full."""
        return await self._request("GET", path, shrink=shrink)

    async def patch(self, path: str, change: Body, kind: str = MERGE_PATCH, **params: str) -> Body:
        """Change an object by a patch of the kind and return the object."""
        return await self._write("PATCH", path, change, headers={"Content-Type": kind}, params=params)

    async def create(self, path: str, body: Body) -> Body:
        """Post an object and return the answer."""
        return await self._write("POST", path, body)

    async def replace(self, path: str, body: Body) -> Body:
        """Put an object in the place of the version that it names and return it."""
        return await self._write("PUT", path, body)

    async def list(self, path: str, **params: str) -> tuple[list[Body], str]:
        """Return all objects of a collection and the resource version to watch from."""
        items: list[Body] = []
        version = ""
        async for page, read_at in self.pages(path, **params):
            items.extend(page)
            version = read_at
        return items, version

    async def pages(self, path: str, **params: str) -> AsyncIterator[tuple[Sequence[Body], str]]:
        """Yield a collection page by page, so that it is never held as a whole, each with its version."""
        query = {"limit": str(PAGE)} | params
        while True:
            page = await self.get(path, **query)
            yield page.get("items") or [], page["metadata"]["resourceVersion"]
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    @asynccontextmanager
    async def watch(self, path: str, version: str) -> AsyncIterator[AsyncIterator[Body]]:
        """Open a watch and give its events after a resource version, until the server ends it."""
        params = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = httpx.Timeout(QUIET_SECONDS, connect=10)
        async with self._call("GET", path, stream=True, params=params, timeout=timeout) as response:
            yield (_decoded(line) async for line in _lines(response))

    async def _write(self, method: str, path: str, body: Body, **options: Any) -> Body:
        return await self._request(method, path, content=json.dumps(body), **options)

    async def _request(self, method: str, path: str, **options: Any) -> Body:
        for pause in _PAUSES:
            try:
                return await self._once(method, path, **options)
            except KubeError as error:
                is_busy = is_passing(error) and method in _REPEATABLE
                if not is_busy and error.status != _UNAUTHORIZED:
                    raise
            await asyncio.sleep(spread(pause))
        return await self._once(method, path, **options)

    async def _once(
        self, method: str, path: str, shrink: Callable[[Body], Any] | None = None, **options: Any
    ) -> Body:
        async with self._slots:
            if method != "GET" and not self._may_write():
                raise KubeUnreachable("This replica does not lead any more; it writes nothing.")
            async with self._call(method, path, timeout=_TIMEOUT, **options) as response:
                return _decoded(response.content, shrink)

    @asynccontextmanager
    async def _call(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx.Response]:
        base, _, last = path.rpartition("/")
        base, last = (base, last) if base else (path, "")
        options |= {"version": "", "base": base, "url": last}
        try:
            # told of a refusal, the library would close the session, and with it every other request's
            async with self._api.call_api(method, raise_for_status=False, **options) as response:
                if response.is_error:
                    await response.aread()
                    if response.status_code == _UNAUTHORIZED:
                        await self._read_token()
                    raise _refusal(response)
                yield response
        except (httpx.HTTPError, APITimeoutError) as error:
            raise KubeUnreachable(f"{type(error).__name__}: {error}") from error

    async def _read_token(self) -> None:
        """Take over the token that Kubernetes has put in the place of the one that ran out."""
        try:
            await self._api.auth.reauthenticate()
        except (OSError, ValueError) as error:
            raise KubeUnreachable(f"There are no credentials: {error}") from error
        if self._api.auth.token:
            session = self._api._session  # noqa: SLF001  # as above
            session.headers["Authorization"] = f"Bearer {self._api.auth.token}"


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield what newlines part; other separators of lines may stand in the texts of an object."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _decoded(text: bytes, shrink: Callable[[Body], Any] | None = None) -> Body:
    """Return the JSON value; raise KubeUnreachable for what a proxy in between may have said instead."""
    try:
        value: Body = json.loads(text, object_hook=shrink)
    except ValueError as error:
        raise KubeUnreachable(f"The answer makes no sense: {error}") from error
    return value


def _kubeconfig(server: str, token: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": {"server": server}}],
        "users": [{"name": "agent", "user": {"token": token}}],
        "contexts": [{"name": "agent", "context": {"cluster": "cluster", "user": "agent"}}],
        "current-context": "agent",
    }


def _refusal(response: httpx.Response) -> KubeError:
    try:
        status = response.json()
    except ValueError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    causes = (status.get("details") or {}).get("causes") or ()
    return KubeError(
        response.status_code,
        str(status.get("message") or response.reason_phrase),
        str(status.get("reason", "")),
        tuple(str(cause.get("reason", "")) for cause in causes),
    )
