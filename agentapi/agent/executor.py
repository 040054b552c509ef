"""Carry out commands: check, note, act, let the product see the effect, report."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from agentapi import protocol
from agentapi.agent.acts import Acts
from agentapi.agent.backend import Backend, Refused, Unreachable
from agentapi.agent.clock import Clock
from agentapi.agent.drain import URGENT
from agentapi.agent.guard import Guard
from agentapi.agent.kube import Kube, KubeError, KubeUnreachable, is_passing
from agentapi.agent.memory import Journal
from agentapi.agent.need import Need
from agentapi.agent.nodes import Failed
from agentapi.agent.rules import Exclusions

logger = logging.getLogger(__name__)

AT_ONCE = 64
"""Enough for AWS to take many nodes in the same minute; plans stay within their disruption budget."""
SILENCE_SECONDS = 600.0
"""After this long without the product, nothing new is begun (local safe mode)."""
_CONFLICT = 409
_GONE_STATES = (404, _CONFLICT, 410)
_TOLD_AT_ONCE = frozenset({"cordon_node"})
"""Reactions on whose effect nothing is decided: the word about them need not wait for a snapshot."""


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
        tell: Callable[[str, str, Mapping[str, Any]], None],
        need: Need,
        exclusions: Callable[[], Exclusions] = Exclusions,
        stands_by: Callable[[], bool] = lambda: False,
        dry_run: bool = False,
    ) -> None:
        self._backend, self._journal, self._guard = backend, journal, guard
        self.agent_id, self._clock, self._dry_run = agent_id, clock, dry_run
        self._show = show
        """Makes the product see the cluster as it is now; tells whether it did."""
        self._tell = tell
        """Puts an event, by type, severity and payload, on its way to the product."""
        self._stands_by = stands_by
        """Tells whether another agent has taken over the cluster."""
        self._acts = Acts(kube, clock, lambda: not (self.is_safe_mode or stands_by()), exclusions, need)
        self.finished_count: Counter[tuple[str, str]] = Counter()
        """Commands by type and status, since the start."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._commands: dict[str, protocol.Command] = {}
        self._has_results = asyncio.Event()
        self._is_abandoned = False

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
            self._begin(command, is_resumed=True)
        if self._journal.finished:
            self._has_results.set()

    def accept(self, *commands: protocol.Command) -> None:
        """Begin commands; refuse those that cannot be trusted, and say so."""
        trusted = [command for command in commands if self._takes(command)]
        self._journal.save()
        for command in trusted:
            self._begin(command)

    def _takes(self, command: protocol.Command) -> bool:
        refusal = self._guard.refusal(command)
        if refusal is None:
            self._journal.take(command, self._clock.seconds())
            return True
        code, sentence = refusal
        logger.warning("Refused command %s (%s): %s", command.action_id, command.action_type, sentence)
        facts = {"action_id": command.action_id, "action_type": command.action_type, "code": code}
        self._tell("command_refused", "critical", {**facts, "cluster_id": command.cluster_id})
        if code == "replayed":  # the first one reports for both
            self._journal.replayed.add(command.action_id)
        elif command.action_id not in self._journal.known_actions:  # whatever claims the name of another
            self._finish(command, self._failure(Failed(*refusal), 0))
        return False

    async def stop(self) -> None:
        """Break off what is under way, releasing nodes; each command is reported as interrupted."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def abandon(self) -> None:
        """Break off what is under way and say nothing of it: somebody else goes on with it."""
        self._is_abandoned = True
        await self.stop()

    async def report(self) -> None:
        """Send results until cancelled, each until the product has it."""
        pause = 1.0
        if self._journal.finished:
            await self._show()  # what an earlier run did: effects first, then the word about them
        while True:
            await self._has_results.wait()
            try:
                await self.send_results()
                pause = 1.0
            except (Refused, Unreachable) as error:
                logger.warning("Results wait: %s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)

    async def send_results(self) -> None:
        """Send every result that waits; raise Unreachable or Refused and keep what may be taken later."""
        self._has_results.clear()
        for action_id, result in list(self._journal.finished.items()):
            try:
                await self._backend.send_result(action_id, result)
            except Unreachable:
                self._has_results.set()
                raise
            except Refused as error:
                if not error.is_final and error.status != _CONFLICT:
                    self._has_results.set()
                    raise
                if error.status not in _GONE_STATES:
                    logger.error("The product refuses the result of %s: %s", action_id, error)  # noqa: TRY400
            self._journal.forget(action_id)

    def _begin(self, command: protocol.Command, *, is_resumed: bool = False) -> None:
        if not command.is_voluntary:
            self._make_way(str(command.payload.get("node_name", "")))
        task = asyncio.get_running_loop().create_task(self._run(command, is_resumed=is_resumed))
        self._running[command.action_id] = task
        self._commands[command.action_id] = command
        task.add_done_callback(lambda task: self._ended(command, task))

    def _ended(self, command: protocol.Command, task: asyncio.Task[None]) -> None:
        """Report a command that was broken off, be it before its first step."""
        self._running.pop(command.action_id, None)
        self._commands.pop(command.action_id, None)
        if not task.cancelled() or self._is_abandoned or command.action_id not in self._journal.taken:
            return
        try:
            task.result()
        except asyncio.CancelledError as error:
            why = str(error) or "The agent was stopped."
            self._finish(command, self._failure(Failed("interrupted", why), 0))

    def _make_way(self, node_name: str) -> None:
        """Break off what is voluntary on a node that has to be dealt with now."""
        for action_id, command in self._commands.items():
            if command.is_voluntary and command.payload.get("node_name") == node_name:
                self._running[action_id].cancel(URGENT)

    async def _run(self, command: protocol.Command, *, is_resumed: bool) -> None:
        result = await self._outcome(command, is_resumed=is_resumed)
        logger.info(
            "%s %s: %s %s",
            command.action_type,
            command.payload.get("node_name", ""),
            result.status,
            result.error_message,
        )
        try:
            if command.is_voluntary or command.action_type not in _TOLD_AT_ONCE:
                await self._show()  # effects first, then the word about them
        finally:
            if not self._is_abandoned:
                self._finish(command, result)

    async def _outcome(self, command: protocol.Command, *, is_resumed: bool) -> protocol.Result:
        started = self._clock.seconds()
        lock = self._locks.setdefault(_subject(command), asyncio.Lock())
        try:
            async with lock:
                facts = await self._act(command, is_resumed=is_resumed)
            return self._success(facts, started)
        except Failed as error:
            return self._failure(error, started)
        except KubeError as error:
            code = "kubernetes_unreachable" if is_passing(error) else "kubernetes_error"
            return self._failure(Failed(code, error.message, status=error.status), started)
        except KubeUnreachable as error:
            return self._failure(Failed("kubernetes_unreachable", str(error)), started)
        except Exception as error:
            logger.exception("%s %s broke off", command.action_type, command.action_id)
            return self._failure(Failed("internal", f"{type(error).__name__}: {error}"), started)

    async def _act(self, command: protocol.Command, *, is_resumed: bool) -> Mapping[str, Any]:
        if self._dry_run:
            raise Failed("dry_run", "The agent only watches: DRY_RUN is set.")
        if command.expires_at <= self._clock.now():
            if not is_resumed:
                raise Failed("expired", "The command expired while it waited for its turn.")
            await self._clean_up(command)
            raise Failed("interrupted", "The agent was restarted after the command had expired.")
        if self._stands_by():
            raise Failed("superseded", "Another agent has taken over this cluster.")
        if self.is_safe_mode:
            raise Failed("backend_silent", "The product has been silent for too long to begin anything.")
        return await self._acts.carry_out(command)

    async def _clean_up(self, command: protocol.Command) -> None:
        try:
            await self._acts.clean_up(command)
        except Failed as error:
            logger.info("Nothing to release: %s", error)

    def _finish(self, command: protocol.Command, result: protocol.Result) -> None:
        self.finished_count[command.action_type, result.status] += 1
        self._journal.finish(command.action_id, result)
        self._has_results.set()

    def _success(self, facts: Mapping[str, Any], started: float) -> protocol.Result:
        return protocol.Result(
            agent_id=self.agent_id,
            status="completed",
            result=dict(facts),
            duration_seconds=round(self._clock.seconds() - started, 3),
        )

    def _failure(self, error: Failed, started: float) -> protocol.Result:
        return protocol.Result(
            agent_id=self.agent_id,
            status="failed",
            result=error.facts,
            error_code=error.code,
            error_message=error.message[:1024],
            duration_seconds=round(self._clock.seconds() - started, 3) if started else 0.0,
        )


def _subject(command: protocol.Command) -> str:
    """Return what only one command at a time may touch."""
    payload = command.payload
    named = payload.get("node_name") or f"{payload.get('namespace')}/{payload.get('name')}"
    return str(named)
