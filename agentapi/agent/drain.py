"""Empty a node through the eviction API.

Pods of daemon sets and static pods stay, finished pods are ignored. A voluntary drain is as polite as the
pods' owners ask for: nothing is evicted from a node that carries a pod of a protected or excluded namespace,
one that asks not to be disrupted, that nothing would start again, whose volume cannot follow it, or that
keeps data on the node (unless the command allows the loss of that data), and nothing more once somebody has
opened the node. When AWS takes the node (a deadline), such pods are moved too, as late as their grace allows:
what they would lose by the eviction they lose with the node. Budgets hold always.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from agentapi.agent.clock import Clock
from agentapi.agent.eviction import Evictor
from agentapi.agent.kube import Body, Kube, KubeError, KubeUnreachable, is_passing
from agentapi.agent.nodes import Failed, Nodes, Target
from agentapi.agent.pauses import spread
from agentapi.agent.pods import grace_of, is_leaving, name_of, objection, priority_of, stays
from agentapi.agent.rollout import Rollout
from agentapi.agent.rules import PROTECTED_NAMESPACES
from agentapi.agent.volumes import Volumes

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

EVICTIONS_AT_ONCE, RESCUES_AT_ONCE = 10, 4
"""Asked for at the same moment; fewer when the order matters."""
_POLL_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 20.0
"""Seconds between attempts to evict a pod whose budget allows none yet."""
_LONGEST_RESCUE_PAUSE = 4.0
_RELEASE_ATTEMPTS = 5
_MARGIN_SECONDS = 5.0
"""A pod's end begins this long before the last moment at which its grace still fits."""
URGENT = "Something more urgent came up for the node."
"""Says, in the cancellation of a drain, that a command follows which wants the node closed."""
_FAREWELL_SECONDS = 10.0
"""What the agent's own pod needs, to report and to give up its lease."""


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """What a drain may do; ``deadline`` is by the shared clock."""

    target: Target
    action_id: str
    deadline: float
    grace_seconds: int | None = None
    allow_local_data_loss: bool = False
    is_rescue: bool = False
    """AWS takes the node at the deadline: move what can be moved, leave the node closed."""
    surges: bool = False
    """Replace a deployment's only pod by its rolling update instead of evicting it."""
    kept_namespaces: Callable[[], frozenset[str]] = lambda: PROTECTED_NAMESPACES
    """Returns those whose pods stay, as the policy is now; in a rescue they leave as late as they can."""
    own_namespace: str = ""
    """The agent's: in a rescue its pods go last, for every rescue of the cluster ends with them."""


class Drainer:
    """Drains one node."""

    def __init__(
        self,
        kube: Kube,
        nodes: Nodes,
        clock: Clock,
        order: DrainOrder,
        may_go_on: Callable[[], bool],
        *,
        turns: asyncio.Semaphore | None = None,
    ) -> None:
        self._kube, self._nodes, self._clock, self._order = kube, nodes, clock, order
        self._may_go_on = may_go_on
        self._slots = asyncio.Semaphore(RESCUES_AT_ONCE if order.is_rescue else EVICTIONS_AT_ONCE)
        self._evictor = Evictor(kube, turns)
        self._rollout = Rollout(kube, order.action_id)
        self._volumes = Volumes(kube)

    async def run(self) -> dict[str, Any]:
        """Empty the node and return what was done; release it when that fails, for whatever reason.

        A node that somebody else had cordoned is left cordoned, and so is one that AWS takes.
        """
        cordoned = False
        try:
            target, action_id = self._order.target, self._order.action_id
            cordoned = await self._insist(lambda: self._nodes.cordon(target, action_id))
            await (self._rescue() if self._order.is_rescue else self._empty())
        except BaseException as error:
            released = URGENT not in error.args and await self._release(cordoned)
            if isinstance(error, Failed):
                error.facts |= {**self._done(), "uncordoned": released}
            raise
        return self._done()

    def _done(self) -> dict[str, Any]:
        done: dict[str, Any] = {"evicted": len(self._evictor.evicted)}
        if self._rollout.moved:
            done["rolled"] = len(self._rollout.moved)
        return done

    # --- in peace ------------------------------------------------------------------------------------

    async def _empty(self) -> None:
        while pods := await self._movable():
            await self._insist(lambda: self._require_leave(*pods))
            moves = [asyncio.ensure_future(self._move(pod)) for pod in pods]
            try:
                await asyncio.gather(*moves)
            finally:
                await _stop(moves)

    async def _require_leave(self, *pods: Body) -> None:
        """Raise Failed when a pod must stay, or the node is open again: its pods would come back to it."""
        if not await self._nodes.is_closed_or_gone(self._order.target):
            raise Failed("cordon_lifted", f"Somebody opened {self._order.target.name} during its drain.")
        for pod in pods:
            if is_leaving(pod):
                continue
            objected = self._objection(pod) or await self._volumes.objection(pod)
            if objected is not None:
                raise Failed(*objected, pod=name_of(pod))

    def _objection(self, pod: Body) -> tuple[str, str] | None:
        return objection(
            pod,
            namespaces=self._order.kept_namespaces(),
            allow_local_data_loss=self._order.allow_local_data_loss,
        )

    async def _move(self, pod: Body) -> None:
        """Evict the pod, or have it replaced, and wait until it is gone."""
        may_roll = self._order.surges and not is_leaving(pod)
        if not (may_roll and await self._insist(lambda: self._rollout.start(pod))):
            await self._evict(pod)
        while not await self._evictor.is_gone(pod):
            await self._pause(_POLL_SECONDS)

    async def _evict(self, pod: Body) -> None:
        """Ask for the eviction until it is granted, looking each time whether it may still be asked for."""
        pause, current = _FIRST_PAUSE, pod
        while not is_leaving(current):
            async with self._slots:
                if await self._evictor.evict(current, self._order.grace_seconds):
                    return
            await self._pause(spread(pause))
            pause = min(pause * 2, _LONGEST_PAUSE)
            seen = await self._insist(lambda: self._evictor.read(pod))
            if seen is None:
                return
            current = seen
            await self._insist(partial(self._require_leave, seen))

    # --- when AWS takes the node -----------------------------------------------------------------------

    async def _rescue(self) -> None:
        """Move what can be moved before the deadline: important and slow pods first."""
        moves: dict[str, asyncio.Task[None]] = {}
        try:
            while pods := await self._movable():
                for pod in sorted(pods, key=lambda each: (-priority_of(each), -grace_of(each))):
                    uid = pod["metadata"]["uid"]
                    if uid not in moves:
                        moves[uid] = asyncio.ensure_future(self._save(pod))
                if self._left <= 0:
                    raise self._left_behind(pods)
                await self._clock.sleep(min(_POLL_SECONDS, self._left))
                for move in moves.values():
                    if move.done():
                        move.result()
        finally:
            await _stop(list(moves.values()))

    def _left_behind(self, pods: list[Body]) -> Failed:
        names = sorted(name_of(pod) for pod in pods)
        message = f"{len(names)} pods were still on the node when its time was over."
        return Failed("deadline_passed", message, left=names[:20], left_count=len(names))

    async def _save(self, pod: Body) -> None:
        """Evict the pod, asking until it is granted; one that would rather stay, as late as it can."""
        if is_leaving(pod):
            return
        await self._clock.sleep(self._patience(pod))
        pause = _FIRST_PAUSE / 2
        while True:
            async with self._slots:
                if await self._granted(pod):
                    return
            await self._clock.sleep(spread(pause))
            pause = min(pause * 2, _LONGEST_RESCUE_PAUSE)

    def _patience(self, pod: Body) -> float:
        """Return for how many seconds the pod may stay: none, unless it would rather, or is the agent's."""
        if pod["metadata"]["namespace"] == self._order.own_namespace:
            return max(0.0, self._left - _FAREWELL_SECONDS)
        if self._objection(pod) is not None:
            return max(0.0, self._left - grace_of(pod) - _MARGIN_SECONDS)
        return 0.0

    async def _granted(self, pod: Body) -> bool:
        grace = max(1, min(grace_of(pod), int(self._left - 1)))
        try:
            return await self._evictor.evict(pod, grace if grace < grace_of(pod) else None)
        except Failed as error:
            self._evictor.blocked[name_of(pod)] = error.message
            return False

    # --- both --------------------------------------------------------------------------------------------

    @property
    def _left(self) -> float:
        return self._order.deadline - self._clock.seconds()

    async def _movable(self) -> list[Body]:
        """Return the pods that have to leave, the ones on their way out included."""
        selector = f"spec.nodeName={self._order.target.name}"
        pods, _ = await self._insist(lambda: self._kube.list("/api/v1/pods", fieldSelector=selector))
        return [pod for pod in pods if not stays(pod)]

    async def _insist(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Return the API server's answer, asking until it gives one."""
        while True:
            try:
                return await ask()
            except (KubeUnreachable, KubeError) as error:
                if not is_passing(error):
                    raise
            await self._pause(_POLL_SECONDS)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not past the deadline; raise Failed there, and while the product is silent."""
        if not self._order.is_rescue and not self._may_go_on():
            raise Failed(
                "backend_silent", "The product is silent or follows another agent: the drain stopped."
            )
        left = self._left
        if left <= 0:
            raise self._out_of_time()
        await self._clock.sleep(min(seconds, left))

    def _out_of_time(self) -> Failed:
        blocked = self._evictor.blocked
        if blocked:
            pod, reason = next(iter(blocked.items()))
            message = f"{len(blocked)} pods could not be evicted in time; {pod}: {reason}"
            return Failed("eviction_blocked", message, blocked=sorted(blocked)[:10])
        return Failed("timeout", "The pods did not leave the node in time.")

    async def _release(self, cordoned: bool) -> bool:
        """Open the node again if we closed it and it stays; tell whether we did."""
        if self._order.is_rescue:
            return False
        for _ in range(_RELEASE_ATTEMPTS):
            try:
                if cordoned or await self._nodes.is_cordoned_by_us(self._order.target):
                    return await asyncio.shield(self._nodes.uncordon(self._order.target))
            except (Failed, KubeError, KubeUnreachable) as error:
                logger.warning("Node %s could not be released: %s", self._order.target.name, error)
                if not is_passing(error):
                    return False
                await self._clock.sleep(_POLL_SECONDS)
            else:
                return False
        return False


async def _stop(moves: list[asyncio.Task[None]]) -> None:
    for move in moves:
        move.cancel()
    await asyncio.gather(*moves, return_exceptions=True)
