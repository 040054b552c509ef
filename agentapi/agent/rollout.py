"""Move the only replica of a deployment without a gap: its own rolling update starts the new pod first."""

from agentapi.agent.kube import Body, Kube, KubeError
from agentapi.agent.nodes import Failed
from agentapi.agent.pods import name_of
from agentapi.agent.shapes import claims_of

MOVED_BY = "spotopt.io/moved-by"
"""Template annotation with the action that moved the pods; it makes the second try of an action no move."""
_NOT_FOUND, _FORBIDDEN = 404, 403


class Rollout:
    """Restarts deployments of one replica instead of evicting their pod."""

    def __init__(self, kube: Kube, action_id: str) -> None:
        self._kube, self._action_id = kube, action_id
        self.moved: set[str] = set()
        """Uids of the pods that a rolling update replaced."""

    async def start(self, pod: Body) -> bool:
        """Begin to replace the pod; tell whether it is being replaced, else it is to be evicted.

        The node must be cordoned, so that the new pod comes up elsewhere. A deployment that several pods
        run, that is paused, or whose strategy would take the pod down first, is not restarted; nor is one
        whose volume only one of the two pods could mount.
        """
        if claims_of(pod["spec"]):
            return False
        try:
            is_begun = await self._restart(pod)
        except KubeError as error:
            if error.status == _FORBIDDEN:
                message = f"Pod {name_of(pod)} may not be restarted: the agent was not given the right."
                raise Failed("forbidden", message, pod=name_of(pod)) from error
            raise
        if is_begun:
            self.moved.add(pod["metadata"]["uid"])
        return is_begun

    async def _restart(self, pod: Body) -> bool:
        path = await self._deployment_of(pod)
        if path is None or not starts_before_it_stops(await self._kube.get(path)):
            return False
        annotations = {MOVED_BY: self._action_id}
        await self._kube.patch(path, {"spec": {"template": {"metadata": {"annotations": annotations}}}})
        return True

    async def _deployment_of(self, pod: Body) -> str | None:
        """Return the path of the deployment behind the pod, if one is."""
        namespace = pod["metadata"]["namespace"]
        apps = f"/apis/apps/v1/namespaces/{namespace}"
        name = _controller(pod, "ReplicaSet")
        if name is None:
            return None
        try:
            deployment = _controller(await self._kube.get(f"{apps}/replicasets/{name}"), "Deployment")
        except KubeError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        return f"{apps}/deployments/{deployment}" if deployment else None


def starts_before_it_stops(deployment: Body) -> bool:
    """Tell whether a rolling update of the deployment's one replica keeps it available throughout."""
    spec = deployment["spec"]
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    surge, unavailable = rolling.get("maxSurge", "25%"), rolling.get("maxUnavailable", "25%")
    return (
        spec.get("replicas", 1) == 1
        and not spec.get("paused")
        and strategy.get("type", "RollingUpdate") == "RollingUpdate"
        and surge not in (0, "0%")
        and unavailable != "100%"
        and (isinstance(unavailable, str) or unavailable == 0)  # a share of one pod is rounded down to none
    )


def _controller(body: Body, kind: str) -> str | None:
    owners = body["metadata"].get("ownerReferences") or ()
    return next(
        (str(each["name"]) for each in owners if each.get("controller") and each["kind"] == kind), None
    )
