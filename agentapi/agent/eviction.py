"""Evict one pod: check its budget, ask the API server, understand the answer."""

import asyncio

from agentapi.agent.kube import Body, Kube, KubeError, KubeUnreachable, is_passing
from agentapi.agent.labels import selects
from agentapi.agent.nodes import Failed
from agentapi.agent.pods import name_of, path_of

AT_ONCE = 16
"""Evictions under way in all drains together, so that many of them leave room for what is more urgent."""
_NOT_FOUND, _CONFLICT, _FORBIDDEN, _SERVER_ERROR = 404, 409, 403, 500


class Evictor:
    """Evicts pods, each only when the budget that protects it allows that now."""

    def __init__(self, kube: Kube, turns: asyncio.Semaphore | None = None) -> None:
        self._kube, self._turns = kube, turns or asyncio.Semaphore(AT_ONCE)
        self.evicted: set[str] = set()
        """Uids of the pods whose eviction was granted."""
        self.blocked: dict[str, str] = {}
        """Pod → why it could not be evicted when last asked."""

    async def evict(self, pod: Body, grace_seconds: int | None = None) -> bool:
        """Ask for the eviction; tell whether it was granted, or was not needed any more.

        False means that it is worth asking again: the answer is a budget that allows none yet, or no
        answer. Raises Failed for what waiting does not mend.
        """
        try:
            async with self._turns:
                obstacle = await self._budget_obstacle(pod)
                if obstacle is None:
                    await self._kube.create(f"{path_of(pod)}/eviction", _eviction(pod, grace_seconds))
        except KubeUnreachable as error:
            obstacle = str(error)
        except KubeError as error:
            if error.status in (_NOT_FOUND, _CONFLICT) and await self.is_gone(pod):
                return True
            obstacle = _obstacle(pod, error)
        if obstacle is not None:
            self.blocked[name_of(pod)] = obstacle
            return False
        self.evicted.add(pod["metadata"]["uid"])
        self.blocked.pop(name_of(pod), None)
        return True

    async def read(self, pod: Body) -> Body | None:
        """Return the pod as it is now, None once it has left the API server."""
        try:
            current = await self._kube.get(path_of(pod))
        except KubeError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return current if current["metadata"]["uid"] == pod["metadata"]["uid"] else None

    async def is_gone(self, pod: Body) -> bool:
        """Tell whether the pod has left the API server; False while that cannot be asked."""
        try:
            return await self.read(pod) is None
        except (KubeError, KubeUnreachable):
            return False

    async def _budget_obstacle(self, pod: Body) -> str | None:
        namespace = pod["metadata"]["namespace"]
        path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
        budgets, _ = await self._kube.list(path)
        return budget_obstacle(pod, budgets)


def budget_obstacle(pod: Body, budgets: list[Body]) -> str | None:
    """Return why the budgets of the pod's namespace do not let it go now, or None.

    Raises Failed for a pod that several budgets select: the eviction API serves none of those.
    """
    status = pod.get("status") or {}
    if status.get("phase") == "Pending":
        return None
    labels = pod["metadata"].get("labels") or {}
    mine = [each for each in budgets if selects((each.get("spec") or {}).get("selector"), labels)]
    if len(mine) > 1:
        message = f"Pod {name_of(pod)} has several disruption budgets."
        raise Failed("several_budgets", message, pod=name_of(pod))
    return _closed(mine[0], is_ready=_is_ready(status)) if mine else None


def _closed(budget: Body, *, is_ready: bool) -> str | None:
    metadata, spec, status = budget["metadata"], budget.get("spec") or {}, budget.get("status") or {}
    name = f"The disruption budget {metadata['name']}"
    if int(status.get("observedGeneration") or 0) < int(metadata.get("generation") or 0):
        return f"{name} is still being processed by the server"
    healthy, desired = int(status.get("currentHealthy") or 0), int(status.get("desiredHealthy") or 0)
    if not is_ready and (
        spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow" or healthy >= desired > 0
    ):  # a pod that serves nobody takes nothing from its budget
        return None
    if int(status.get("disruptionsAllowed") or 0) > 0:
        return None
    return f"{name} needs {desired} healthy pods and has {healthy} currently"


def _obstacle(pod: Body, error: KubeError) -> str:
    if error.status == _SERVER_ERROR and "more than one PodDisruptionBudget" in error.message:
        message = f"Pod {name_of(pod)} has several disruption budgets."
        raise Failed("several_budgets", message, pod=name_of(pod)) from error
    if is_passing(error) or error.status in (_NOT_FOUND, _CONFLICT):  # such as many changes of one budget
        return error.message
    code = "forbidden" if error.status == _FORBIDDEN else "eviction_refused"
    raise Failed(code, f"Pod {name_of(pod)} cannot be evicted: {error.message}", pod=name_of(pod)) from error


def _eviction(pod: Body, grace_seconds: int | None) -> Body:
    metadata = pod["metadata"]
    options: Body = {"preconditions": {"uid": metadata["uid"]}}
    if grace_seconds is not None:
        options["gracePeriodSeconds"] = grace_seconds
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "deleteOptions": options,
    }


def _is_ready(status: Body) -> bool:
    return any(
        each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ()
    )
