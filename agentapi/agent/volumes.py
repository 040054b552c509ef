"""Whether a pod's volumes can follow it to another node."""

from agentapi.agent.facts import volume_fact
from agentapi.agent.kube import Body, Kube
from agentapi.agent.pods import name_of
from agentapi.agent.shapes import claims_of


class Volumes:
    """Reads claims and volumes as they are now; rights to list them suffice."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def objection(self, pod: Body) -> tuple[str, str] | None:
        """Return a code and a sentence when a volume of the pod's stays on its node, as a local disk does."""
        for claim in claims_of(pod["spec"]):
            volume = await self._bound_to(pod["metadata"]["namespace"], claim)
            if volume is not None and volume_fact(volume).is_tied:
                return "local_volume", f"Pod {name_of(pod)} could not take its volume {claim} with it."
        return None

    async def _bound_to(self, namespace: str, claim: str) -> Body | None:
        body = await self._named(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim)
        name = ((body or {}).get("spec") or {}).get("volumeName")
        return await self._named("/api/v1/persistentvolumes", name) if name else None

    async def _named(self, path: str, name: str) -> Body | None:
        found, _ = await self._kube.list(path, fieldSelector=f"metadata.name={name}")
        return found[0] if found else None
