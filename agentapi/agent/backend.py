"""The agent's side of the product's API."""

import json
import logging
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from agentapi import protocol
from agentapi.agent.clock import Clock

logger = logging.getLogger(__name__)

LONG_POLL_SECONDS = 25
"""On the wall, below the 30 seconds that the server allows."""
_CURABLE = frozenset({401, 403, 407, 409})
"""Refusals that another key, proxy or registration ends."""
_BUSY = frozenset({408, 425, 429})
_TIMEOUT = httpx.Timeout(30, connect=10)
_Answer = TypeVar("_Answer")


class Refused(Exception):
    """The product refused: ``status`` is the HTTP code, ``code`` says why where the product does."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{status} {code} {detail}")
        self.status = status
        self.code = code

    @property
    def is_final(self) -> bool:
        """Tell whether what was sent is refused for good; else who sent it has to become trusted again."""
        return self.status not in _CURABLE


class Unreachable(Exception):
    """The product did not answer, or could not."""


class Backend:
    """One cluster's view of the product."""

    def __init__(self, *, api_url: str, cluster_id: str, token: str, clock: Clock) -> None:
        self.token = token
        self.last_contact = clock.seconds()
        """When the product last answered anything, by the shared clock."""
        self._clock = clock
        self.socket_url = f"{api_url}/ws/agent/{cluster_id}".replace("http", "ws", 1)
        self._http = httpx.AsyncClient(
            base_url=f"{api_url}/api/v1/clusters/{cluster_id}/",
            timeout=_TIMEOUT,
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
        )

    @property
    def authorization(self) -> dict[str, str]:
        """Return the header that proves who calls."""
        return {"Authorization": f"Bearer {self.token}"}

    def heard(self) -> None:
        """Note that the product lives."""
        self.last_contact = self._clock.seconds()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def register(self, registration: protocol.Registration) -> protocol.Registered:
        """Introduce the agent."""
        return await self._ask("agent/register", registration, protocol.Registered)

    async def deregister(self, agent_id: str) -> None:
        """Say that the agent stops."""
        await self._post("agent/deregister", protocol.Goodbye(agent_id))

    async def heartbeat(self, sign: protocol.Heartbeat) -> protocol.HeartbeatAnswer:
        """Say that the agent lives."""
        return await self._ask("heartbeat", sign, protocol.HeartbeatAnswer)

    async def send_snapshot(self, snapshot: protocol.Snapshot) -> tuple[protocol.SnapshotAnswer, int]:
        """Tell what the agent sees; return the answer and the bytes that were sent."""
        body = protocol.encode(snapshot)
        return await self._ask("metrics", body, protocol.SnapshotAnswer), len(body)

    async def claim(self, claim: protocol.Claim) -> tuple[protocol.Command, ...]:
        """Ask for commands, waiting for some as long as the claim says."""
        timeout = httpx.Timeout(claim.wait_seconds + 15, connect=10)
        return (await self._ask("actions/claim", claim, protocol.Commands, timeout=timeout)).actions

    async def send_result(self, action_id: str, result: protocol.Result) -> None:
        """Say what became of a command."""
        await self._post(f"actions/{quote(action_id, safe='')}/result", result)

    async def send_events(self, events: protocol.Events) -> None:
        """Say what happened in the cluster."""
        await self._post("events", events)

    async def send_interruptions(self, notices: protocol.Interruptions) -> protocol.InterruptionsAnswer:
        """Say which nodes AWS takes or may take; return what became of each notice."""
        return await self._ask("interruptions", notices, protocol.InterruptionsAnswer)

    async def _ask(self, path: str, document: Any, kind: type[_Answer], **options: Any) -> _Answer:
        answer = await self._post(path, document, **options)
        try:
            return protocol.parse(kind, answer.json())
        except ValueError as error:
            raise Unreachable(f"{path}: the answer makes no sense: {error}") from error

    async def _post(self, path: str, document: Any, **options: Any) -> httpx.Response:
        body = document if isinstance(document, bytes) else protocol.encode(document)
        try:
            answer = await self._http.post(path, content=body, headers=self.authorization, **options)
        except httpx.HTTPError as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        is_understood = answer.is_success or answer.is_client_error
        if not is_understood or answer.status_code in _BUSY:  # who redirects has not taken it in
            raise Unreachable(f"{path}: the product answered {answer.status_code}")
        self.heard()
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _refusal(answer: httpx.Response) -> Refused:
    try:
        problem = answer.json()
    except json.JSONDecodeError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    detail = str(problem.get("detail", answer.reason_phrase))
    if "errors" in problem:
        detail = f"{detail} {problem['errors']}"
    return Refused(answer.status_code, str(problem.get("code", "")), detail)
