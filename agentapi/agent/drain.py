"""Empty a node through the eviction API, as politely as its pods' owners ask for.

Pods of daemon sets and static pods stay, finished pods are ignored. Pods of kube-system are evicted like any
others, within their budgets, as ``kubectl drain`` does; the product plans no voluntary drain of a node that
carries them. Nothing is evicted from a node with a pod that asks not to be disrupted, that nothing would
start again, or that keeps data on the node (unless the command allows the loss of that data).
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentapi.agent.clock import Clock
from agentapi.agent.facts import MIRROR
from agentapi.agent.kube import Body, Kube, KubeError, KubeUnreachable
from agentapi.agent.nodes import Failed, Nodes, Target
from agentapi.agent.shapes import is_protected, keeps_local_data

logger = logging.getLogger(__name__)

EVICTIONS_AT_ONCE = 10
_POLL_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 20.0
"""Seconds between attempts to evict a pod whose budget allows none yet."""
_NOT_FOUND, _CONFLICT, _TOO_MANY, _FORBIDDEN, _SERVER_ERROR = 404, 409, 429, 403, 500


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """What a drain may do; ``deadline`` is by the shared clock."""

    target: Target
    action_id: str
    deadline: float
    grace_seconds: int | None = None
    allow_local_data_loss: bool = False


@dataclass(slots=True)
class _Progress:
    evicted: set[str] = field(default_factory=set)
    blocked: dict[str, str] = field(default_factory=dict)
    """Pod → why the API server last refused to evict it."""


class Drainer:
    """Drains one node."""

    def __init__(
        self, kube: Kube, nodes: Nodes, clock: Clock, order: DrainOrder, may_go_on: Callable[[], bool]
    ) -> None:
        self._kube, self._nodes, self._clock, self._order = kube, nodes, clock, order
        self._may_go_on = may_go_on
        self._slots = asyncio.Semaphore(EVICTIONS_AT_ONCE)
        self._progress = _Progress()

    async def run(self) -> dict[str, Any]:
        """Empty the node and return what was done; on failure release it and raise Failed.

        A node that somebody else had cordoned is left cordoned.
        """
        cordoned = await self._nodes.cordon(self._order.target, self._order.action_id)
        try:
            await self._empty()
        except (Failed, KubeError, KubeUnreachable, asyncio.CancelledError) as error:
            released = await self._release(cordoned)
            if isinstance(error, Failed):
                error.facts |= {"evicted": len(self._progress.evicted), "uncordoned": released}
            raise
        return {"evicted": len(self._progress.evicted)}

    async def _empty(self) -> None:
        while pods := await self._movable():
            self._require_movable(pods)
            moves = [asyncio.ensure_future(self._move(pod)) for pod in pods]
            try:
                await asyncio.gather(*moves)
            finally:
                for move in moves:
                    move.cancel()
                await asyncio.gather(*moves, return_exceptions=True)

    async def _movable(self) -> list[Body]:
        """Return the pods that have to leave, the ones on their way out included."""
        selector = f"spec.nodeName={self._order.target.name}"
        while True:
            try:
                pods, _ = await self._kube.list("/api/v1/pods", fieldSelector=selector)
            except KubeUnreachable:
                await self._pause(_POLL_SECONDS)
                continue
            return [pod for pod in pods if not _stays(pod)]

    def _require_movable(self, pods: list[Body]) -> None:
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                continue
            annotations = pod["metadata"].get("annotations") or {}
            if is_protected(annotations):
                raise Failed("do_not_disrupt", f"Pod {_name(pod)} asks not to be disrupted.", pod=_name(pod))
            if not _has_controller(pod):
                raise Failed("bare_pod", f"Nothing would start pod {_name(pod)} again.", pod=_name(pod))
            loses = keeps_local_data(annotations, pod["spec"]) and not self._order.allow_local_data_loss
            if loses:
                raise Failed("local_storage", f"Pod {_name(pod)} keeps data on the node.", pod=_name(pod))

    async def _move(self, pod: Body) -> None:
        """Evict the pod and wait until it is gone."""
        pause = _FIRST_PAUSE
        while "deletionTimestamp" not in pod["metadata"]:
            async with self._slots:
                if await self._evict(pod):
                    break
            await self._pause(pause * random.uniform(0.5, 1.5))  # noqa: S311  # jitter
            pause = min(pause * 2, _LONGEST_PAUSE)
        while not await self._is_gone(pod):
            await self._pause(_POLL_SECONDS)

    async def _evict(self, pod: Body) -> bool:
        """Ask for the eviction; tell whether it was granted, or was not needed any more."""
        metadata = pod["metadata"]
        options: Body = {"preconditions": {"uid": metadata["uid"]}}
        if self._order.grace_seconds is not None:
            options["gracePeriodSeconds"] = self._order.grace_seconds
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "deleteOptions": options,
        }
        try:
            await self._kube.create(f"{_path(pod)}/eviction", eviction)
        except KubeUnreachable as error:
            self._progress.blocked[_name(pod)] = str(error)
            return False
        except KubeError as error:
            return self._refused(pod, error)
        self._progress.evicted.add(metadata["uid"])
        self._progress.blocked.pop(_name(pod), None)
        return True

    def _refused(self, pod: Body, error: KubeError) -> bool:
        if error.status in (_NOT_FOUND, _CONFLICT):  # gone, or another pod by the same name
            return True
        if error.status == _SERVER_ERROR and "more than one PodDisruptionBudget" in error.message:
            message = f"Pod {_name(pod)} has several disruption budgets."
            raise Failed("several_budgets", message, pod=_name(pod)) from error
        if error.status == _TOO_MANY or error.status >= _SERVER_ERROR:
            self._progress.blocked[_name(pod)] = error.message
            return False
        code = "forbidden" if error.status == _FORBIDDEN else "eviction_refused"
        raise Failed(code, f"Pod {_name(pod)} cannot be evicted: {error.message}", pod=_name(pod)) from error

    async def _is_gone(self, pod: Body) -> bool:
        try:
            current = await self._kube.get(_path(pod))
        except KubeUnreachable:
            return False
        except KubeError as error:
            return error.status == _NOT_FOUND
        return bool(current["metadata"]["uid"] != pod["metadata"]["uid"])

    async def _pause(self, seconds: float) -> None:
        """Wait, but not past the deadline; raise Failed there, and while the product is silent."""
        if not self._may_go_on():
            raise Failed("backend_silent", "The product has been silent for too long; the drain was stopped.")
        left = self._order.deadline - self._clock.seconds()
        if left <= 0:
            raise self._out_of_time()
        await self._clock.sleep(min(seconds, left))

    def _out_of_time(self) -> Failed:
        blocked = self._progress.blocked
        if blocked:
            pod, reason = next(iter(blocked.items()))
            message = f"{len(blocked)} pods could not be evicted in time; {pod}: {reason}"
            return Failed("eviction_blocked", message, blocked=sorted(blocked)[:10])
        return Failed("timeout", "The pods did not leave the node in time.")

    async def _release(self, cordoned: bool) -> bool:
        """Open the node again if we closed it; tell whether we did."""
        try:
            if cordoned or await self._nodes.is_cordoned_by_us(self._order.target):
                return await asyncio.shield(self._nodes.uncordon(self._order.target))
        except (Failed, KubeError, KubeUnreachable) as error:
            logger.warning("Node %s could not be released: %s", self._order.target.name, error)
        return False


def _stays(pod: Body) -> bool:
    """Tell whether a drain leaves the pod alone: it is finished, or it lives and dies with its node."""
    metadata = pod["metadata"]
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    owners = metadata.get("ownerReferences") or ()
    is_daemon = any(each.get("controller") and each["kind"] == "DaemonSet" for each in owners)
    return is_daemon or MIRROR in (metadata.get("annotations") or {})


def _has_controller(pod: Body) -> bool:
    return any(each.get("controller") for each in pod["metadata"].get("ownerReferences") or ())


def _path(pod: Body) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _name(pod: Body) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
