"""The agent's life: connect, be elected, register, watch, report, obey, and leave in good order."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agentapi import protocol
from agentapi.agent.backend import Backend, Refused, Unreachable
from agentapi.agent.claims import Claims
from agentapi.agent.clock import Clock
from agentapi.agent.collector import Collector
from agentapi.agent.enrolment import Enrolment, insist
from agentapi.agent.executor import Executor
from agentapi.agent.facts import NodeFact
from agentapi.agent.guard import Guard
from agentapi.agent.health import Health
from agentapi.agent.heart import Heart
from agentapi.agent.kube import Kube
from agentapi.agent.lease import Lease
from agentapi.agent.lifted import Lifted
from agentapi.agent.memory import Journal
from agentapi.agent.metrics import exposition
from agentapi.agent.need import Need
from agentapi.agent.nodes import Nodes
from agentapi.agent.notices import Notices
from agentapi.agent.outbox import Outbox
from agentapi.agent.push import Push
from agentapi.agent.settings import Settings
from agentapi.agent.view import View

logger = logging.getLogger(__name__)

_FAREWELL_SECONDS = 8.0
_Seen = NodeFact | None


class LeaseLost(Exception):
    """Another replica may lead now; this process has to begin anew."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What works together while this agent leads."""

    view: View
    collector: Collector
    executor: Executor
    outbox: Outbox
    heart: Heart
    push: Push
    claims: Claims
    lifted: Lifted


class Agent:
    """One agent of one cluster."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._backend = Backend(
            api_url=settings.api_url, cluster_id=settings.cluster_id, token=settings.token, clock=clock
        )
        self._kube: Kube | None = None
        self._lease: Lease | None = None
        self._parts: _Parts | None = None

    @property
    def is_ready(self) -> bool:
        """Tell whether the agent sees its cluster and has the product's ear, or stands by for the leader."""
        parts = self._parts
        if parts is None:
            return self._lease is not None and not self._lease.is_held
        return parts.view.is_live and not parts.heart.is_superseded and not parts.executor.is_safe_mode

    async def run(self) -> None:
        """Work until cancelled, then leave in good order; raise LeaseLost when another replica leads."""
        health = Health(lambda: self.is_ready, self._metrics)
        if self._settings.health_port:
            await health.start(self._settings.health_port)
        try:
            kube = self._kube = await insist(lambda: Kube.connect(self._settings), "the Kubernetes API")
            lease = await self._elect(kube)
            async with asyncio.TaskGroup() as tasks:
                if lease is not None:
                    tasks.create_task(_hold(lease))
                await self._lead(kube)
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._leave()), _FAREWELL_SECONDS)
            await health.stop()
            await self._backend.close()
            if self._kube is not None:
                await self._kube.close()

    async def _elect(self, kube: Kube) -> Lease | None:
        """Return the lease once this replica leads; None where there is only one."""
        if not self._settings.replica:
            return None
        lease = self._lease = Lease(kube, self._settings.namespace, self._settings.replica)
        await lease.acquire()
        return lease

    async def _lead(self, kube: Kube) -> None:
        enrolment = Enrolment(self._settings, self._backend, kube)
        registered = await enrolment.register()
        parts = self._parts = self._assemble(kube, enrolment, registered)
        agent_id, name = enrolment.identity.agent_id, registered.cluster_name
        logger.info("Agent %s of cluster %s is at work.", agent_id, name)
        await self._work(parts)

    def _assemble(self, kube: Kube, enrolment: Enrolment, registered: protocol.Registered) -> _Parts:
        settings, clock, backend = self._settings, self._clock, self._backend
        agent_id, lease = enrolment.identity.agent_id, self._lease
        journal = Journal(settings.state_dir / "journal.json", lease.term if lease else 0)
        journal.load()
        heart = Heart(backend, clock, enrolment, settings.namespace)
        heart.learn(registered.config_version, registered.config)
        push = Push(backend)
        outbox = Outbox(backend, agent_id, clock, on_warned=push.bell.set)
        notices = Notices(clock, outbox.warn, settings.namespace)
        obedient = kube.while_allowed(lambda: lease.is_held) if lease else kube
        lifted = Lifted(Nodes(obedient))
        view = View(kube, clock, _all(notices.look, lifted.look), notices.look_at_pod)
        collector = Collector(
            view=view, backend=backend, agent_id=agent_id, clock=clock,
            period=settings.collection_seconds, resync=settings.resync_seconds,
        )  # fmt: skip
        guard = Guard(
            cluster_id=settings.cluster_id, agent_id=agent_id, journal=journal, clock=clock,
            public_key=enrolment.identity.signing_public_key,
        )  # fmt: skip
        executor = Executor(
            kube=obedient, backend=backend, journal=journal, guard=guard, agent_id=agent_id, clock=clock,
            show=collector.show, tell=outbox.tell, exclusions=lambda: heart.exclusions,
            need=Need(clock, notices.is_taken, lambda: len(view.nodes.items)), dry_run=settings.dry_run,
            stands_by=lambda: heart.is_superseded,
        )  # fmt: skip
        claims = Claims(backend, executor, journal, heart, push)
        return _Parts(view, collector, executor, outbox, heart, push, claims, lifted)

    async def _work(self, parts: _Parts) -> None:
        parts.executor.resume()
        beats = parts.heart.run(parts.view, parts.collector, parts.executor, self._settings.heartbeat_seconds)
        async with asyncio.TaskGroup() as tasks:
            for reflector in parts.view.reflectors:
                tasks.create_task(reflector.run())
            for work in (
                parts.collector.run(),
                parts.executor.report(),
                parts.outbox.run(),
                parts.claims.run(),
            ):
                tasks.create_task(work)
            if not self._settings.dry_run:
                tasks.create_task(parts.lifted.run())
            tasks.create_task(beats)
            if self._settings.has_websocket:
                tasks.create_task(parts.push.run())

    def _metrics(self) -> str:
        parts = self._parts
        if parts is None:
            return ""
        return exposition(
            clock=self._clock, backend=self._backend, view=parts.view, collector=parts.collector,
            executor=parts.executor, push=parts.push, heart=parts.heart,
        )  # fmt: skip

    async def _leave(self) -> None:
        """Break off and report; who lost the lease says nothing, for the next leader goes on."""
        if self._parts is None:
            return
        executor = self._parts.executor
        if self._lease is not None and not self._lease.is_held:
            await executor.abandon()
            return
        await executor.stop()
        with suppress(Unreachable, Refused, TimeoutError):  # the next leader need not wait for the product
            async with asyncio.timeout(_FAREWELL_SECONDS / 2):
                await executor.send_results()
                await self._backend.deregister(executor.agent_id)
        if self._lease is not None:
            await self._lease.give_up()


def _all(*looks: Callable[[_Seen, _Seen], None]) -> Callable[[_Seen, _Seen], None]:
    """Return one look that takes all of them."""

    def look(before: _Seen, after: _Seen) -> None:
        for each in looks:
            each(before, after)

    return look


async def _hold(lease: Lease) -> None:
    await lease.keep()
    raise LeaseLost
