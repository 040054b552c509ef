"""Carry out commands: check, note, act, let the product see the effect, report."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentapi import protocol
from agentapi.agent.backend import Backend, Refused, Unreachable
from agentapi.agent.clock import Clock
from agentapi.agent.drain import Drainer, DrainOrder
from agentapi.agent.guard import Guard
from agentapi.agent.kube import Kube, KubeError, KubeUnreachable
from agentapi.agent.memory import Journal
from agentapi.agent.nodes import Failed, Nodes, Target

logger = logging.getLogger(__name__)

AT_ONCE = 10
SILENCE_SECONDS = 600.0
"""After this long without the product, nothing new is begun (local safe mode)."""
_DRAIN_SECONDS = 600
_MARGIN_SECONDS = 20.0
"""A drain ends this long before its command expires, so that there is time to release the node."""
_GONE_STATES = (404, 409, 410)


class Executor:
    """Runs commands, one at a time for each node."""

    def __init__(
        self,
        *,
        kube: Kube,
        backend: Backend,
        journal: Journal,
        guard: Guard,
        agent_id: str,
        clock: Clock,
        show: Callable[[], Awaitable[bool]],
        dry_run: bool = False,
    ) -> None:
        self._kube, self._backend, self._journal, self._guard = kube, backend, journal, guard
        self._agent_id, self._clock, self._dry_run = agent_id, clock, dry_run
        self._show = show
        """Makes the product see the cluster as it is now; tells whether it did."""
        self._is_seen = False
        self._nodes = Nodes(kube)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._has_results = asyncio.Event()

    @property
    def running_actions(self) -> tuple[str, ...]:
        """Return the ids of the actions under way."""
        return tuple(sorted(self._running))

    @property
    def free_slots(self) -> int:
        """Return how many more commands may be taken on."""
        return AT_ONCE - len(self._running)

    @property
    def is_safe_mode(self) -> bool:
        """Tell whether the product has been silent for too long to begin anything."""
        return self._clock.seconds() - self._backend.last_contact > SILENCE_SECONDS

    def resume(self) -> None:
        """Take up again what a crash interrupted: every command may be run twice to the same effect."""
        for command in list(self._journal.taken.values()):
            self._begin(command)
        if self._journal.finished:
            self._has_results.set()

    def accept(self, command: protocol.Command) -> None:
        """Begin a command, or refuse it and say so."""
        refusal = self._guard.refusal(command)
        if refusal is None:
            self._journal.take(command, self._clock.seconds())
            self._begin(command)
            return
        logger.warning("Refused command %s (%s): %s", command.action_id, command.action_type, refusal[1])
        if refusal[0] != "replayed":  # the first one reports for both
            self._finish(command, self._failure(Failed(*refusal), 0))

    async def stop(self) -> None:
        """Break off what is under way, releasing nodes; each command is reported as interrupted."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def report(self) -> None:
        """Send results until cancelled, each until the product has it."""
        pause = 1.0
        while True:
            await self._has_results.wait()
            self._is_seen = self._is_seen or await self._show()  # effects first, then the word about them
            try:
                await self.send_results()
                pause = 1.0
            except Unreachable as error:
                logger.warning("Results wait: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)

    async def send_results(self) -> None:
        """Send every result that waits; raise Unreachable."""
        self._has_results.clear()
        for action_id, result in list(self._journal.finished.items()):
            try:
                await self._backend.send_result(action_id, result)
            except Unreachable:
                self._has_results.set()
                raise
            except Refused as error:
                if error.status not in _GONE_STATES:
                    logger.error("The product refuses the result of %s: %s", action_id, error)  # noqa: TRY400
            self._journal.forget(action_id)

    def _begin(self, command: protocol.Command) -> None:
        task = asyncio.get_running_loop().create_task(self._run(command))
        self._running[command.action_id] = task
        task.add_done_callback(lambda _: self._running.pop(command.action_id, None))

    async def _run(self, command: protocol.Command) -> None:
        started = self._clock.seconds()
        try:
            async with self._locks[str(command.payload.get("node_name", ""))]:
                facts = await self._act(command)
            result = self._success(facts, started)
        except asyncio.CancelledError:
            self._finish(command, self._failure(Failed("interrupted", "The agent was stopped."), started))
            raise
        except Failed as error:
            result = self._failure(error, started)
        except KubeError as error:
            result = self._failure(Failed("kubernetes_error", error.message, status=error.status), started)
        except KubeUnreachable as error:
            result = self._failure(Failed("kubernetes_unreachable", str(error)), started)
        logger.info(
            "%s %s: %s %s",
            command.action_type,
            command.payload.get("node_name"),
            result.status,
            result.error_message,
        )
        self._is_seen = await self._show()
        self._finish(command, result)

    async def _act(self, command: protocol.Command) -> Mapping[str, Any]:
        target = _target(command.payload)
        if command.expires_at <= self._clock.now():
            await self._clean_up(target)
            raise Failed("interrupted", "The agent was restarted after the command had expired.")
        if self._dry_run:
            raise Failed("dry_run", "The agent only watches: DRY_RUN is set.")
        if self.is_safe_mode:
            raise Failed("backend_silent", "The product has been silent for too long to begin anything.")
        match command.action_type:
            case "cordon_node":
                return {"changed": await self._nodes.cordon(target, command.action_id)}
            case "soft_cordon_node":
                return {"changed": await self._nodes.soft_cordon(target)}
            case "uncordon_node":
                return await self._uncordon(target)
            case _:
                return await self._drain(command, target)

    async def _uncordon(self, target: Target) -> Mapping[str, Any]:
        try:
            return {"changed": await self._nodes.uncordon(target)}
        except Failed as error:
            if error.code != "node_gone":
                raise
            return {"changed": False, "node_gone": True}

    async def _drain(self, command: protocol.Command, target: Target) -> Mapping[str, Any]:
        payload = command.payload
        seconds = _whole(payload, "timeout_seconds", _DRAIN_SECONDS)
        has_grace = payload.get("grace_period_seconds") is not None
        latest = command.expires_at.timestamp() - _MARGIN_SECONDS
        order = DrainOrder(
            target=target,
            action_id=command.action_id,
            deadline=min(self._clock.seconds() + seconds, latest),
            grace_seconds=_whole(payload, "grace_period_seconds", 0) if has_grace else None,
            allow_local_data_loss=payload.get("delete_local_data") is True,
        )
        drainer = Drainer(self._kube, self._nodes, self._clock, order, lambda: not self.is_safe_mode)
        return await drainer.run()

    async def _clean_up(self, target: Target) -> None:
        """Leave no cordon of ours behind when a command ended without its agent."""
        try:
            if await self._nodes.is_cordoned_by_us(target):
                await self._nodes.uncordon(target)
        except Failed as error:
            logger.info("Nothing to release: %s", error)

    def _finish(self, command: protocol.Command, result: protocol.Result) -> None:
        self._journal.finish(command.action_id, result)
        self._has_results.set()

    def _success(self, facts: Mapping[str, Any], started: float) -> protocol.Result:
        return protocol.Result(
            agent_id=self._agent_id,
            status="completed",
            result=dict(facts),
            duration_seconds=round(self._clock.seconds() - started, 3),
        )

    def _failure(self, error: Failed, started: float) -> protocol.Result:
        return protocol.Result(
            agent_id=self._agent_id,
            status="failed",
            result=error.facts,
            error_code=error.code,
            error_message=error.message[:1024],
            duration_seconds=round(self._clock.seconds() - started, 3) if started else 0.0,
        )


def _target(payload: Mapping[str, Any]) -> Target:
    name, instance_id = payload.get("node_name"), payload.get("instance_id")
    if not (isinstance(name, str) and name and isinstance(instance_id, str) and instance_id):
        raise Failed("invalid_payload", "The command names no node and instance.")
    if not set(name) <= _NODE_NAME:
        raise Failed("invalid_payload", "The node's name is not a name of Kubernetes.")
    return Target(name, instance_id)


_NODE_NAME = set("abcdefghijklmnopqrstuvwxyz0123456789.-")


def _whole(payload: Mapping[str, Any], name: str, default: int) -> int:
    value = payload.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Failed("invalid_payload", f"{name} must be a number of seconds.")
    return value
