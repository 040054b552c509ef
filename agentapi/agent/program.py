"""The agent's life: connect, register, watch, report, obey, and leave in good order."""

import asyncio
import logging
import random
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from agentapi import protocol
from agentapi.agent import VERSION
from agentapi.agent.backend import LONG_POLL_SECONDS, Backend, Refused, Unreachable
from agentapi.agent.clock import Clock
from agentapi.agent.collector import Collector
from agentapi.agent.executor import Executor
from agentapi.agent.guard import KINDS, Guard
from agentapi.agent.health import Health
from agentapi.agent.kube import Kube, KubeError, KubeUnreachable
from agentapi.agent.memory import FileIdentity, Identity, IdentityStore, Journal, SecretIdentity
from agentapi.agent.settings import Settings
from agentapi.agent.view import View

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""On the wall, between attempts to reach the product or the API server."""
_UNAUTHORIZED, _CONFLICT = 401, 409
_FAREWELL_SECONDS = 8.0


class Agent:
    """One agent of one cluster."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._started = clock.seconds()
        self._superseded = False
        self._errors: list[float] = []
        self._backend = Backend(
            api_url=settings.api_url,
            cluster_id=settings.cluster_id,
            token=settings.token,
            clock=clock,
        )
        self._kube: Kube | None = None
        self._view: View | None = None
        self._collector: Collector | None = None
        self._executor: Executor | None = None

    @property
    def is_ready(self) -> bool:
        """Tell whether the agent sees its cluster and has the product's ear."""
        return (
            self._view is not None
            and self._view.is_live
            and self._executor is not None
            and not self._superseded
            and not self._executor.is_safe_mode
        )

    async def run(self) -> None:
        """Work until cancelled, then leave in good order."""
        health = Health(lambda: self.is_ready)
        if self._settings.health_port:
            await health.start(self._settings.health_port)
        identity = Identity()
        try:
            kube = self._kube = await _insist(lambda: Kube.connect(self._settings), "the Kubernetes API")
            store = self._store(kube)
            identity = await _insist(store.load, "the stored identity")
            registered = await self._register(kube, store, identity)
            await self._work(kube, identity, registered)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._leave(identity)), _FAREWELL_SECONDS)
            await health.stop()
            await self._backend.close()
            if self._kube is not None:
                await self._kube.close()

    def _store(self, kube: Kube) -> IdentityStore:
        if self._settings.key_secret:
            return SecretIdentity(kube, self._settings.namespace, self._settings.key_secret)
        return FileIdentity(self._settings.state_dir / "identity.json")

    async def _register(self, kube: Kube, store: IdentityStore, identity: Identity) -> protocol.Registered:
        """Register until the product agrees; a stored key goes before the configured token."""
        self._backend.token = identity.key or self._settings.token
        pause, registered = _FIRST_PAUSE, None
        while registered is None:
            try:
                registered = await self._introduce(kube, identity)
                continue
            except Refused as error:
                logger.error("The product refuses this agent: %s", error)  # noqa: TRY400
                if error.status == _UNAUTHORIZED:
                    self._try_other_token(identity)
                pause = _LONGEST_PAUSE / 4
            except (Unreachable, KubeError, KubeUnreachable) as error:
                logger.warning("Cannot register yet: %s", error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
            pause = min(pause * 2, _LONGEST_PAUSE)
        await self._remember(store, identity, registered)
        if registered.upgrade_required:
            logger.error("The product asks for a newer agent than %s.", VERSION)
        return registered

    async def _introduce(self, kube: Kube, identity: Identity) -> protocol.Registered:
        return await self._backend.register(
            protocol.Registration(
                agent_id=identity.agent_id,
                version=VERSION,
                k8s_version=(await kube.version())[:40],
                node_count=len(self._view.nodes.items) if self._view else 0,
                capabilities=KINDS,
            )
        )

    def _try_other_token(self, identity: Identity) -> None:
        tokens = [token for token in (identity.key, self._settings.token) if token]
        others = [token for token in tokens if token != self._backend.token]
        self._backend.token = others[0] if others else self._backend.token

    async def _remember(
        self, store: IdentityStore, identity: Identity, registered: protocol.Registered
    ) -> None:
        identity.key = registered.agent_key or self._backend.token
        self._backend.token = identity.key
        if not identity.signing_public_key or registered.agent_key:
            identity.signing_public_key = registered.signing_public_key
        elif identity.signing_public_key != registered.signing_public_key:
            logger.error("The product's signing key changed; its commands are refused. Reinstall the agent.")
        await _insist(lambda: store.save(identity), "the identity store")

    async def _work(self, kube: Kube, identity: Identity, registered: protocol.Registered) -> None:
        journal = Journal(self._settings.state_dir / "journal.json")
        journal.load()
        self._view = View(kube, self._clock)
        self._collector = Collector(
            view=self._view,
            backend=self._backend,
            agent_id=identity.agent_id,
            clock=self._clock,
            period=self._settings.collection_seconds,
            resync=self._settings.resync_seconds,
        )
        guard = Guard(
            cluster_id=self._settings.cluster_id,
            agent_id=identity.agent_id,
            public_key=identity.signing_public_key,
            journal=journal,
            clock=self._clock,
        )
        self._executor = Executor(
            kube=kube,
            backend=self._backend,
            journal=journal,
            guard=guard,
            agent_id=identity.agent_id,
            clock=self._clock,
            show=self._collector.show,
            dry_run=self._settings.dry_run,
        )
        logger.info("Agent %s of cluster %s is at work.", identity.agent_id, registered.cluster_name)
        self._executor.resume()
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._view.reflectors:
                tasks.create_task(reflector.run())
            tasks.create_task(self._collector.run())
            tasks.create_task(self._executor.report())
            tasks.create_task(self._beat(kube, identity, registered.config_version))
            tasks.create_task(self._obey(identity, journal))

    async def _beat(self, kube: Kube, identity: Identity, config_version: int) -> None:
        while True:
            try:
                await self._backend.heartbeat(self._sign(identity, config_version))
                self._superseded = False
            except Refused as error:
                await self._answer_refusal(kube, identity, error)
            except Unreachable as error:
                self._note(error)
            await self._clock.sleep(self._settings.heartbeat_seconds * random.uniform(0.9, 1.0))  # noqa: S311

    def _sign(self, identity: Identity, config_version: int) -> protocol.Heartbeat:
        view, collector, executor = self._view, self._collector, self._executor
        now = self._clock.seconds()
        self._errors = [at for at in self._errors if now - at < 60]  # noqa: PLR2004  # a minute
        return protocol.Heartbeat(
            agent_id=identity.agent_id,
            version=VERSION,
            sent_at=self._clock.now(),
            node_count=len(view.nodes.items) if view else 0,
            uptime_seconds=max(0, int(now - self._started)),
            memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            errors_last_minute=len(self._errors),
            last_collection_at=collector.last_collection_at if collector else None,
            k8s_api_ok=view.is_live if view else False,
            config_version=config_version,
            running_actions=executor.running_actions if executor else (),
        )

    async def _answer_refusal(self, kube: Kube, identity: Identity, error: Refused) -> None:
        self._note(error)
        if error.status == _CONFLICT and error.code == "superseded":
            if not self._superseded:
                logger.error("Another agent has taken over this cluster; this one stands by.")
            self._superseded = True
        elif error.status == _CONFLICT:
            with suppress(Refused, Unreachable, KubeError, KubeUnreachable):
                await self._introduce(kube, identity)

    async def _obey(self, identity: Identity, journal: Journal) -> None:
        """Claim commands and begin them, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            executor = self._executor
            assert executor is not None  # noqa: S101  # made before this task
            if self._superseded or executor.free_slots <= 0:
                await asyncio.sleep(_FIRST_PAUSE)
                continue
            claim = protocol.Claim(
                agent_id=identity.agent_id,
                limit=executor.free_slots,
                wait_seconds=LONG_POLL_SECONDS,
                known_actions=journal.known_actions,
            )
            try:
                asked_at = time.monotonic()
                commands = await self._backend.claim(claim)
                for command in commands:
                    executor.accept(command)
                pause = _FIRST_PAUSE
                if not commands and time.monotonic() - asked_at < 1:
                    await asyncio.sleep(_FIRST_PAUSE)
            except (Refused, Unreachable) as error:
                self._note(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _note(self, error: Exception) -> None:
        logger.warning("The product: %s", error)
        self._errors.append(self._clock.seconds())

    async def _leave(self, identity: Identity) -> None:
        if self._executor is None:
            return
        await self._executor.stop()
        with suppress(Unreachable, Refused):
            await self._executor.send_results()
            await self._backend.deregister(identity.agent_id)


async def _insist(attempt: Callable[[], Awaitable[_T]], what: str) -> _T:
    """Return what the attempt returns, trying until the API server answers."""
    pause = _FIRST_PAUSE
    while True:
        try:
            return await attempt()
        except (KubeError, KubeUnreachable) as error:
            logger.warning("Cannot reach %s yet: %s", what, error)
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
        pause = min(pause * 2, _LONGEST_PAUSE)
