"""From a trusted command to the one act that it asks for."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agentapi import protocol
from agentapi.agent.clock import Clock
from agentapi.agent.drain import Drainer, DrainOrder
from agentapi.agent.eviction import AT_ONCE as EVICTIONS_AT_ONCE
from agentapi.agent.eviction import Evictor
from agentapi.agent.karpenter import Karpenter
from agentapi.agent.kube import Body, Kube, KubeError
from agentapi.agent.need import Need, instant
from agentapi.agent.nodes import Failed, Nodes, Target, labels_of
from agentapi.agent.pods import name_of, objection
from agentapi.agent.rules import Exclusions
from agentapi.agent.volumes import Volumes
from agentapi.agent.workloads import NAME, Workloads

_DRAIN_SECONDS = 600
_MARGIN_SECONDS = 20.0
"""A drain ends this long before its command expires, so that there is time to release the node."""
_NOT_FOUND = 404
_POLL_SECONDS = 2.0
_INSTANCE_ID = re.compile(r"i-[0-9a-f]{8,17}")
Facts = Mapping[str, Any]


class Acts:
    """All that a command can make this agent do; no command carries code, a shell or a path."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        may_go_on: Callable[[], bool],
        exclusions: Callable[[], Exclusions],
        need: Need,
    ) -> None:
        self._kube, self._clock, self._may_go_on, self._exclusions = kube, clock, may_go_on, exclusions
        self._need = need
        self._nodes = Nodes(kube)
        self._turns = asyncio.Semaphore(EVICTIONS_AT_ONCE)
        self._acts: Mapping[str, Callable[[protocol.Command], Awaitable[Facts]]] = {
            "soft_cordon_node": self._soft_cordon,
            "cordon_node": self._cordon,
            "uncordon_node": self._uncordon,
            "drain_node": self._drain,
            "evict_pod": self._evict,
            "label_node": self._label,
            "update_deployment": self._set_resources,
            "apply_karpenter": self._apply,
        }

    async def carry_out(self, command: protocol.Command) -> Facts:
        """Do it and return what was done; raise Failed, KubeError or KubeUnreachable."""
        return await self._acts[command.action_type](command)

    async def clean_up(self, command: protocol.Command) -> None:
        """Leave no cordon of ours behind when a command ended without its agent; raise Failed.

        A node that AWS takes stays closed.
        """
        if command.action_type not in ("cordon_node", "drain_node") or "deadline" in command.payload:
            return
        target = target_of(command.payload)
        if await self._nodes.is_cordoned_by_us(target):
            await self._nodes.uncordon(target)

    async def _soft_cordon(self, command: protocol.Command) -> Facts:
        target = await self._open_target(command)
        return {"changed": await self._nodes.soft_cordon(target)}

    async def _cordon(self, command: protocol.Command) -> Facts:
        target = await self._target_to_close(command)
        return {"changed": await self._nodes.cordon(target, command.action_id)}

    async def _uncordon(self, command: protocol.Command) -> Facts:
        target = target_of(command.payload)
        try:
            changed = await self._nodes.uncordon(target)
            return {"changed": changed, "kept_cordoned": await self._nodes.is_cordoned(target)}
        except Failed as error:
            if error.code != "node_gone":
                raise
            return {"changed": False, "node_gone": True}

    async def _label(self, command: protocol.Command) -> Facts:
        labels, remove = command.payload.get("labels") or {}, command.payload.get("remove") or []
        if not isinstance(labels, dict) or not isinstance(remove, list):
            raise Failed("invalid_payload", "labels must be an object and remove a list.")
        target = await self._open_target(command)
        return {"changed": await self._nodes.label(target, labels, remove)}

    async def _set_resources(self, command: protocol.Command) -> Facts:
        return await Workloads(self._kube).set_resources(command.payload, self._exclusions().namespaces)

    async def _apply(self, command: protocol.Command) -> Facts:
        return await Karpenter(self._kube).apply(command.payload)

    async def _drain(self, command: protocol.Command) -> Facts:
        payload, target = command.payload, await self._target_to_close(command)
        is_needed = self._need.justifies(command)
        deadline = instant(payload, "deadline") if is_needed else None
        seconds = _whole(payload, "timeout_seconds", _DRAIN_SECONDS)
        latest = command.expires_at.timestamp() - _MARGIN_SECONDS
        order = DrainOrder(
            target=target,
            action_id=command.action_id,
            deadline=deadline if deadline is not None else min(self._clock.seconds() + seconds, latest),
            grace_seconds=_grace(payload),
            allow_local_data_loss=payload.get("delete_local_data") is True,
            is_rescue=deadline is not None,
            surges=payload.get("surge") is True,
            kept_namespaces=frozenset if is_needed else lambda: self._exclusions().namespaces,
            own_namespace=self._exclusions().own_namespace,
        )
        return await Drainer(
            self._kube, self._nodes, self._clock, order, self._may_go_on, turns=self._turns
        ).run()

    async def _evict(self, command: protocol.Command) -> Facts:
        """Evict one pod of the node that the command names, and wait until it is gone."""
        payload, target = command.payload, await self._open_target(command)
        pod = await self._pod(payload, target)
        if not self._need.justifies(command):
            namespaces = self._exclusions().namespaces
            objected = objection(pod, namespaces=namespaces, allow_local_data_loss=False)
            objected = objected or await Volumes(self._kube).objection(pod)
            if objected is not None:
                raise Failed(*objected, pod=name_of(pod))
        evictor, end = Evictor(self._kube, self._turns), command.expires_at.timestamp() - _MARGIN_SECONDS
        grace = _grace(payload)
        while not await evictor.evict(pod, grace):
            await self._wait(end, evictor)
        while not await evictor.is_gone(pod):
            await self._wait(end, evictor)
        return {"evicted": len(evictor.evicted)}

    async def _wait(self, end: float, evictor: Evictor) -> None:
        if not self._may_go_on():
            raise Failed("backend_silent", "The product has been silent for too long.")
        if self._clock.seconds() >= end:
            reasons = ", ".join(evictor.blocked.values())
            raise Failed("eviction_blocked", reasons or "The pod did not leave in time.")
        await self._clock.sleep(_POLL_SECONDS)

    async def _pod(self, payload: Facts, target: Target) -> Body:
        names = [payload.get("namespace"), payload.get("pod_name")]
        if not all(isinstance(each, str) and NAME.fullmatch(each) for each in names):
            raise Failed("invalid_payload", "The command names no pod.")
        try:
            pod = await self._kube.get(f"/api/v1/namespaces/{names[0]}/pods/{names[1]}")
        except KubeError as error:
            if error.status == _NOT_FOUND:
                raise Failed("pod_gone", f"There is no pod {names[0]}/{names[1]}.") from error
            raise
        if pod["spec"].get("nodeName") != target.name:
            raise Failed("pod_elsewhere", f"Pod {name_of(pod)} does not run on {target.name}.")
        return pod

    async def _target_to_close(self, command: protocol.Command) -> Target:
        """Return the node that is meant: in need no exclusion counts, and closing reads the node anyway."""
        is_needed = self._need.justifies(command)
        return target_of(command.payload) if is_needed else await self._open_target(command)

    async def _open_target(self, command: protocol.Command) -> Target:
        """Return the node that is meant; raise Failed when it is another one, or one that is excluded."""
        target = target_of(command.payload)
        label = self._exclusions().of_node(labels_of(await self._nodes.read(target)))
        if label and not self._need.justifies(command):
            raise Failed("excluded_node", f"Node {target.name} is excluded by its label {label}.")
        return target


def target_of(payload: Mapping[str, Any]) -> Target:
    """Return the node that a payload names; raise Failed for names that Kubernetes and EC2 do not give."""
    name, instance_id = payload.get("node_name"), payload.get("instance_id")
    if not (isinstance(name, str) and isinstance(instance_id, str) and name and instance_id):
        raise Failed("invalid_payload", "The command names no node and instance.")
    if not NAME.fullmatch(name) or not _INSTANCE_ID.fullmatch(instance_id):
        raise Failed("invalid_payload", "The node's name or instance is not of its form.")
    return Target(name, instance_id)


def _grace(payload: Mapping[str, Any]) -> int | None:
    """Return the seconds that a command leaves pods to end, None for what they ask for themselves.

    Raises Failed for none at all: that would take a pod from the API server while it may still run.
    """
    if payload.get("grace_period_seconds") is None:
        return None
    seconds = _whole(payload, "grace_period_seconds", 0)
    if seconds == 0:
        raise Failed("invalid_payload", "grace_period_seconds must be at least one.")
    return seconds


def _whole(payload: Mapping[str, Any], name: str, default: int) -> int:
    value = payload.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Failed("invalid_payload", f"{name} must be a number of seconds.")
    return value
