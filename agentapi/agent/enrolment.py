"""How the agent becomes known to the product, and stays the same agent over restarts."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agentapi import protocol
from agentapi.agent import VERSION
from agentapi.agent.backend import Backend, Refused, Unreachable
from agentapi.agent.guard import KINDS
from agentapi.agent.kube import Kube, KubeError, KubeUnreachable
from agentapi.agent.memory import FileIdentity, Identity, IdentityStore, SecretIdentity
from agentapi.agent.pauses import spread
from agentapi.agent.settings import Settings

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""On the wall, between attempts to reach the product or the API server."""
_UNAUTHORIZED = 401


class Enrolment:
    """Loads the identity, registers it, and keeps the key and the signing key that it was given."""

    def __init__(self, settings: Settings, backend: Backend, kube: Kube) -> None:
        self._settings, self._backend, self._kube = settings, backend, kube
        self.identity = Identity()
        self._store: IdentityStore = FileIdentity(settings.state_dir / "identity.json")
        if settings.key_secret:
            self._store = SecretIdentity(kube, settings.namespace, settings.key_secret)

    async def register(self) -> protocol.Registered:
        """Register until the product agrees; a stored key goes before the configured token."""
        self.identity = await insist(self._store.load, "the stored identity")
        self._backend.token = self.identity.key or self._settings.token
        pause, registered = FIRST_PAUSE, None
        while registered is None:
            try:
                registered = await self.introduce(node_count=0)
                continue
            except Refused as error:
                logger.error("The product refuses this agent: %s", error)  # noqa: TRY400
                if error.status == _UNAUTHORIZED:
                    self._try_other_token()
                pause = LONGEST_PAUSE / 4
            except (Unreachable, KubeError, KubeUnreachable) as error:
                logger.warning("Cannot register yet: %s", error)
            await asyncio.sleep(spread(pause))
            pause = min(pause * 2, LONGEST_PAUSE)
        await self._remember(registered)
        if registered.upgrade_required:
            logger.error("The product asks for a newer agent than %s.", VERSION)
        return registered

    async def renew(self) -> None:
        """Register once with the other of the two keys, after the product refused the one in use."""
        self._try_other_token()
        await self._remember(await self.introduce(node_count=0))

    async def introduce(self, *, node_count: int) -> protocol.Registered:
        """Register once."""
        return await self._backend.register(
            protocol.Registration(
                agent_id=self.identity.agent_id,
                version=VERSION,
                k8s_version=(await self._kube.version())[:40],
                node_count=node_count,
                capabilities=KINDS,
            )
        )

    def _try_other_token(self) -> None:
        tokens = [token for token in (self.identity.key, self._settings.token) if token]
        others = [token for token in tokens if token != self._backend.token]
        self._backend.token = others[0] if others else self._backend.token

    async def _remember(self, registered: protocol.Registered) -> None:
        identity = self.identity
        identity.key = registered.agent_key or self._backend.token
        self._backend.token = identity.key
        if not identity.signing_public_key or registered.agent_key:
            identity.signing_public_key = registered.signing_public_key
        elif identity.signing_public_key != registered.signing_public_key:
            logger.error("The product's signing key changed; its commands are refused. Reinstall the agent.")
        await insist(lambda: self._store.save(identity), "the identity store")


async def insist(attempt: Callable[[], Awaitable[_T]], what: str) -> _T:
    """Return what the attempt returns, trying until the API server answers."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await attempt()
        except (KubeError, KubeUnreachable) as error:
            logger.warning("Cannot reach %s yet: %s", what, error)
        await asyncio.sleep(spread(pause))
        pause = min(pause * 2, LONGEST_PAUSE)
