"""The wire between the agents and the product: loses, repeats, delays and forges what passes."""

import asyncio
import gzip
import json
import random
import re
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import uvicorn

from simulator.web import Receive, Send

_PASSED_ON = ("authorization", "content-type", "content-encoding", "user-agent")
_ROAD = re.compile(r"/api/v1/clusters/([0-9a-f-]{36})/(.+)")
SKEWED_SECONDS = 60
_LOOK_SECONDS = 0.02
REFUSED = frozenset({"expired", "bad_signature", "wrong_cluster", "wrong_agent"})
"""Codes of results that say that nothing was done."""


@dataclass(slots=True)
class Rates:
    """Shares of the messages that meet each fault; all 0 is a perfect wire."""

    dropped_request: float = 0.0
    dropped_answer: float = 0.0
    duplicated_request: float = 0.0
    delayed: float = 0.0
    forged: float = 0.0
    replayed: float = 0.0


@dataclass(slots=True)
class Witness:
    """What passed: how often each fault struck, and what the agents did that they must not."""

    struck: Counter[str] = field(default_factory=Counter)
    delivered: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Genuine commands by action id."""
    obeyed_forgeries: set[str] = field(default_factory=set)
    run_twice: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The two different things that an agent said about one action."""
    results: dict[str, str] = field(default_factory=dict)
    """What the agent said first about each action."""


class Wire:
    """An HTTP proxy in front of the product, in a thread of its own."""

    def __init__(self, *, target: str, port: int, seed: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.rates = Rates()
        self.witness = Witness()
        self._cut_until: dict[str, float] = {}
        self._noticed: set[str] = set()
        self._held: set[str] = set()
        self._under_way: defaultdict[str, set[asyncio.Task[httpx.Response | None]]] = defaultdict(set)
        self._random = random.Random(seed)  # reproducible
        self._http = httpx.AsyncClient(
            base_url=target, timeout=60, limits=httpx.Limits(max_connections=None), trust_env=False
        )
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            host="127.0.0.1",
            port=port,
            log_level="error",
            access_log=False,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="wire", daemon=True)

    def start(self) -> None:
        """Listen; return when messages pass."""
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop listening."""
        self._held.clear()
        for cluster_id in list(self._under_way):
            self._break_off(cluster_id)
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)

    def cut(self, cluster_id: str, seconds: float) -> None:
        """Let nothing pass between one agent and the product for so long, by the wall."""
        self._noticed.discard(cluster_id)
        self._cut_until[cluster_id] = time.monotonic() + seconds
        self._break_off(cluster_id)

    def hold(self, cluster_id: str) -> None:
        """Keep what one agent says from the product until its release."""
        self._held.add(cluster_id)
        self._break_off(cluster_id)

    def release(self, cluster_id: str) -> None:
        """Let what was held arrive, at once."""
        self._held.discard(cluster_id)

    def _break_off(self, cluster_id: str) -> None:
        """End what hangs, as a network that breaks does; a claim would be answered across the gap."""
        for exchange in list(self._under_way[cluster_id]):
            exchange.get_loop().call_soon_threadsafe(exchange.cancel)

    def _is_cut(self, cluster_id: str) -> bool:
        if time.monotonic() > self._cut_until.get(cluster_id, 0):
            return False
        if cluster_id not in self._noticed:
            self._noticed.add(cluster_id)
            self.witness.struck["partition"] += 1
        return True

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a socket: the agents do without
            await send({"type": "websocket.close", "code": 1013})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        headers = {name: headers[name] for name in _PASSED_ON if name in headers}
        answer = await self._pass_on(scope["method"], scope["path"], headers, body)
        if answer is None:  # the connection breaks
            answer = httpx.Response(504)
        await send(
            {
                "type": "http.response.start",
                "status": answer.status_code,
                "headers": [(b"content-type", answer.headers.get("content-type", "text/plain").encode())],
            }
        )
        await send({"type": "http.response.body", "body": answer.content})

    async def _pass_on(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> httpx.Response | None:
        """Return the product's answer, perhaps touched; None when the message or its answer got lost."""
        road = _ROAD.fullmatch(path)
        cluster_id = road[1] if road else ""
        while cluster_id in self._held:
            await asyncio.sleep(_LOOK_SECONDS)
        if self._is_cut(cluster_id):
            return None
        exchange = asyncio.ensure_future(self._exchange(method, path, headers, body))
        self._under_way[cluster_id].add(exchange)
        try:
            await asyncio.wait({exchange})
        finally:
            exchange.cancel()
            self._under_way[cluster_id].discard(exchange)
        return None if self._is_cut(cluster_id) or exchange.cancelled() else exchange.result()

    async def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> httpx.Response | None:
        """Return what comes of one request on a wire that is not cut."""
        if self._strikes("dropped_request"):
            return None
        if self._strikes("delayed"):
            await asyncio.sleep(self._random.uniform(0.5, 3))
        try:
            times = 2 if self._strikes("duplicated_request") else 1  # at the same moment
            sent = [self._http.request(method, path, headers=headers, content=body) for _ in range(times)]
            answer = self._random.choice(await asyncio.gather(*sent))
        except httpx.HTTPError:
            return None
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self.witness.struck["expired_key"] += 1
        answer = self._look(path, body, answer)
        return None if self._strikes("dropped_answer") else answer

    def _look(self, path: str, body: bytes, answer: httpx.Response) -> httpx.Response:
        road = _ROAD.fullmatch(path)
        if road is not None and road[2].endswith("/result"):
            self._note_result(road[2].split("/")[1], body)
        if road is None or answer.status_code != httpx.codes.OK:
            return answer
        if road[2] == "actions/claim":
            return self._touch_commands(road[1], answer)
        if road[2] == "heartbeat" and abs(answer.json().get("clock_skew_seconds", 0)) >= SKEWED_SECONDS:
            self.witness.struck["clock_skew"] += 1
        return answer

    def _note_result(self, action_id: str, body: bytes) -> None:
        """Notice results of forged commands, and different results of one command."""
        said = json.loads(gzip.decompress(body))
        if action_id not in self.witness.delivered:
            if said["status"] == "completed":
                self.witness.obeyed_forgeries.add(action_id)
            return
        if said.get("error_code") in REFUSED:
            return
        told = json.dumps([said["status"], said.get("error_code"), said.get("duration_seconds")])
        first = self.witness.results.setdefault(action_id, told)
        if first != told:
            self.witness.run_twice[action_id] = (first, told)

    def _touch_commands(self, cluster_id: str, answer: httpx.Response) -> httpx.Response:
        document = answer.json()
        actions = document["actions"]
        for command in actions:
            self.witness.delivered[command["action_id"]] = command
        earlier = [c for c in self.witness.delivered.values() if c["cluster_id"] == cluster_id]
        if earlier and self._strikes("replayed"):
            actions.append(self._random.choice(earlier))
        if earlier and self._strikes("forged"):
            actions.append(self._forge(self._random.choice(earlier)))
        return httpx.Response(200, json=document)

    def _forge(self, genuine: dict[str, Any]) -> dict[str, Any]:
        """A command that nobody signed: the words of a genuine one under another id."""
        return {**genuine, "action_id": str(uuid4()), "nonce": uuid4().hex, "action_type": "cordon_node",
                "expires_at": "2099-01-01T00:00:00Z"}  # fmt: skip

    def _strikes(self, fault: str) -> bool:
        struck = self._random.random() < getattr(self.rates, fault)
        self.witness.struck[fault] += struck
        return struck
