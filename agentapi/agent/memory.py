"""What the agent must not forget: its identity and key, and the commands it has taken on."""

import base64
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from agentapi import protocol
from agentapi.agent.kube import Kube

logger = logging.getLogger(__name__)

KEPT_RESULTS = 1000
"""Of more that the product takes none of, the oldest go."""


@dataclass(slots=True)
class Identity:
    """Who this agent is to the product."""

    agent_id: str = field(default_factory=lambda: uuid4().hex)
    key: str = ""
    """The long-lived key that a bootstrap key was exchanged for."""
    signing_public_key: str = ""
    """Pinned at the first registration."""


class IdentityStore(Protocol):
    """Where an identity is kept."""

    async def load(self) -> Identity:
        """Return the kept identity, or a new one."""

    async def save(self, identity: Identity) -> None:
        """Keep the identity."""


class FileIdentity:
    """Kept in a file that only its owner may read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> Identity:
        """Return the kept identity, or a new one."""
        if not self._path.exists():
            return Identity()
        return _identity(json.loads(self._path.read_text()))

    async def save(self, identity: Identity) -> None:
        """Keep the identity; the file is replaced in one step."""
        write_private(self._path, _document(identity))


class SecretIdentity:
    """Kept in a Secret of the agent's own namespace."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self._kube = kube
        self._path = f"/api/v1/namespaces/{namespace}/secrets/{name}"

    async def load(self) -> Identity:
        """Return the kept identity, or a new one."""
        data = (await self._kube.get(self._path)).get("data") or {}
        if not data.get("agent_id"):
            return Identity()
        return _identity({name: base64.b64decode(value).decode() for name, value in data.items()})

    async def save(self, identity: Identity) -> None:
        """Keep the identity."""
        data = {
            name: base64.b64encode(value.encode()).decode() for name, value in _document(identity).items()
        }
        await self._kube.patch(self._path, {"data": data})


class Journal:
    """The commands that were taken on: so that none runs twice, and none is forgotten in a crash.

    It outlives the process, not the machine, which takes the directory with it: no write waits for the disk.
    """

    def __init__(self, path: Path, term: int = 0) -> None:
        self._path, self._term = path, term
        """The term is the lease's: what was taken on under another may have been done by somebody else."""
        self.taken: dict[str, protocol.Command] = {}
        """Not yet finished, by action id."""
        self.finished: dict[str, protocol.Result] = {}
        """Finished, and not yet acknowledged by the product."""
        self.nonces: dict[str, float] = {}
        """Nonce → when its command expires, by the shared clock."""
        self.replayed: set[str] = set()
        """Came again after this process, or one before it, was done with them."""
        self._written: dict[str, dict[str, Any]] = {}
        """What is taken, as it is written."""

    def load(self) -> None:
        """Read what an earlier run left, of another term only the nonces; a damaged file counts as empty."""
        try:
            document = json.loads(self._path.read_text())
            self.nonces = {str(key): float(value) for key, value in document["nonces"].items()}
            if document.get("term", 0) != self._term:
                return
            self.taken = {
                each["action_id"]: protocol.parse(protocol.Command, each) for each in document["taken"]
            }
            self.finished = {
                key: protocol.parse(protocol.Result, each) for key, each in document["finished"].items()
            }
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.exception("%s is damaged; starting with an empty journal", self._path)

    def take(self, command: protocol.Command, now: float) -> None:
        """Take note of a command; it is kept by ``save``, which has to come before its first act."""
        self.nonces = {nonce: end for nonce, end in self.nonces.items() if end > now}
        self.nonces[command.nonce] = command.expires_at.timestamp()
        self.taken[command.action_id] = command

    def finish(self, action_id: str, result: protocol.Result) -> None:
        """Keep what became of a command."""
        self.taken.pop(action_id, None)
        self.finished[action_id] = result
        while len(self.finished) > KEPT_RESULTS:
            self.finished.pop(next(iter(self.finished)))
        self.save()

    def forget(self, action_id: str) -> None:
        """Let a result go that the product knows."""
        self.finished.pop(action_id, None)
        self.save()

    @property
    def known_actions(self) -> tuple[str, ...]:
        """Return the actions that the product need not deliver again."""
        return tuple(sorted(self.taken.keys() | self.finished.keys() | self.replayed))

    def save(self) -> None:
        """Write everything."""
        self._written = {
            key: self._written.get(key) or protocol.dump(command) for key, command in self.taken.items()
        }
        write_private(
            self._path,
            {
                "taken": list(self._written.values()),
                "finished": {key: protocol.dump(result) for key, result in self.finished.items()},
                "nonces": self.nonces,
                "term": self._term,
            },
            is_flushed=False,
        )


def write_private(path: Path, document: dict[str, Any], *, is_flushed: bool = True) -> None:
    """Replace a JSON file in one step, on the disk itself where asked; only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file)
        file.flush()
        if is_flushed:
            os.fsync(file.fileno())
    draft.replace(path)


def _identity(document: Mapping[str, str]) -> Identity:
    """Return the identity in a document, in which others may have put something of theirs."""
    return Identity(**{each.name: document[each.name] for each in fields(Identity) if each.name in document})


def _document(identity: Identity) -> dict[str, str]:
    return {
        "agent_id": identity.agent_id,
        "key": identity.key,
        "signing_public_key": identity.signing_public_key,
    }
