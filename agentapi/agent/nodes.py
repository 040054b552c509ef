"""Acts on one node, each after making sure that it is the node that was meant."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agentapi.agent.facts import CORDONED_BY, cordoned_by, instance_id_of
from agentapi.agent.kube import Body, Kube, KubeError

SOFT_TAINT = {"key": "spotopt.io/consolidating", "effect": "PreferNoSchedule"}
_RESERVED_DOMAINS = ("kubernetes.io", "k8s.io", "amazonaws.com", "csi.aws.com", "karpenter.sh", "k8s.aws")
"""Labels of these domains decide where the scheduler and the platform put things."""
_CONFLICT, _NOT_FOUND = 409, 404
_ATTEMPTS = 5


class Failed(Exception):
    """A command could not be carried out; ``code`` is for machines."""

    def __init__(self, code: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.facts = facts


@dataclass(frozen=True, slots=True)
class Target:
    """The node that a command means."""

    name: str
    instance_id: str


class Nodes:
    """Cordons, marks and releases nodes."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def read(self, target: Target) -> Body:
        """Return the node; raise Failed when it is gone, or is another instance by the same name."""
        try:
            node = await self._kube.get(_path(target))
        except KubeError as error:
            if error.status == _NOT_FOUND:
                raise Failed("node_gone", f"There is no node {target.name}.") from error
            raise
        actual = instance_id_of(node)
        if actual != target.instance_id:
            message = f"Node {target.name} is {actual or 'no EC2 instance'}, not {target.instance_id}."
            raise Failed("node_mismatch", message, instance_id=actual)
        return node

    async def cordon(self, target: Target, action_id: str) -> bool:
        """Let no new pod onto the node; tell whether it was open before this action."""
        for _ in range(_ATTEMPTS):
            node = await self.read(target)
            if _is_closed(node):
                return cordoned_by(node) == action_id  # done already, by an agent that did not live to say so
            if await self._try(target, node, {"unschedulable": True}, {CORDONED_BY: action_id}):
                return True
        raise Failed("conflict", f"Node {target.name} keeps changing.")

    async def soft_cordon(self, target: Target) -> bool:
        """Ask the scheduler to prefer other nodes; tell whether it was not asked before."""
        for _ in range(_ATTEMPTS):
            node = await self.read(target)
            taints = _taints(node)
            if any(_is_soft(taint) for taint in taints):
                return False
            if await self._try(target, node, {"taints": [*taints, SOFT_TAINT]}, {}):
                return True
        raise Failed("conflict", f"Node {target.name} keeps changing.")

    async def uncordon(self, target: Target) -> bool:
        """Undo what we did: our cordon and our soft taint; tell whether there was anything to undo.

        A node that somebody else cordoned stays cordoned.
        """
        for _ in range(_ATTEMPTS):
            node = await self.read(target)
            taints = [taint for taint in _taints(node) if not _is_soft(taint)]
            is_ours = bool(cordoned_by(node))
            if not is_ours and len(taints) == len(_taints(node)):
                return False
            change: Body = {"taints": taints or None}
            if is_ours:  # the API server adds and removes the unschedulable taint by itself
                open_taints = [taint for taint in taints if not _is_cordon_taint(taint)]
                change = {"unschedulable": None, "taints": open_taints or None}
            if await self._try(target, node, change, {CORDONED_BY: None}):
                return True
        raise Failed("conflict", f"Node {target.name} keeps changing.")

    async def disown(self, target: Target, action_id: str) -> None:
        """Forget that an action cordoned the node: somebody lifted that cordon, the next one is not ours."""
        for _ in range(_ATTEMPTS):
            node = await self.read(target)
            if cordoned_by(node) != action_id:
                return
            metadata = {
                "resourceVersion": node["metadata"]["resourceVersion"],
                "annotations": {CORDONED_BY: None},
            }
            try:
                await self._kube.patch(_path(target), {"metadata": metadata})
            except KubeError as error:
                if error.status != _CONFLICT:
                    raise
            else:
                return
        raise Failed("conflict", f"Node {target.name} keeps changing.")

    async def label(self, target: Target, labels: Mapping[str, str], remove: Iterable[str]) -> bool:
        """Set and remove labels; tell whether that changed anything. Raises Failed for a reserved key."""
        changes: dict[str, str | None] = {**dict.fromkeys(remove), **labels}
        reserved = [key for key in changes if _is_reserved(key)]
        if reserved:
            raise Failed("reserved_label", f"The label {reserved[0]} belongs to Kubernetes or its platform.")
        node = await self.read(target)
        current = labels_of(node)
        if all(current.get(key) == value for key, value in changes.items()):
            return False
        await self._kube.patch(_path(target), {"metadata": {"labels": changes}})
        return True

    async def is_cordoned(self, target: Target) -> bool:
        """Tell whether the node is closed to new pods, by whomever."""
        return _is_closed(await self.read(target))

    async def is_closed_or_gone(self, target: Target) -> bool:
        """Tell whether no pod can come to the node; raise Failed when it is another one by the same name."""
        try:
            return await self.is_cordoned(target)
        except Failed as error:
            if error.code != "node_gone":
                raise
            return True

    async def is_cordoned_by_us(self, target: Target) -> bool:
        """Tell whether the node is cordoned, and by a command of ours."""
        node = await self.read(target)
        return _is_closed(node) and bool(cordoned_by(node))

    async def _try(self, target: Target, node: Body, spec: Body, annotations: Body) -> bool:
        try:
            await self._change(target, node, spec, annotations)
        except KubeError as error:
            if error.status == _CONFLICT:
                return False
            raise
        return True

    async def _change(self, target: Target, node: Body, spec: Body, annotations: Body) -> None:
        """Change the very version of the node that was looked at."""
        metadata: Body = {"resourceVersion": node["metadata"]["resourceVersion"]}
        if annotations:
            metadata["annotations"] = annotations
        await self._kube.patch(_path(target), {"metadata": metadata, "spec": spec})


def labels_of(node: Body) -> Mapping[str, str]:
    """Return the node's labels."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    return labels


def _is_closed(node: Body) -> bool:
    return bool((node.get("spec") or {}).get("unschedulable"))


def _is_reserved(label: str) -> bool:
    domain = label.rpartition("/")[0]
    return any(domain == each or domain.endswith(f".{each}") for each in _RESERVED_DOMAINS)


def _path(target: Target) -> str:
    return f"/api/v1/nodes/{target.name}"


def _taints(node: Body) -> list[Body]:
    return list((node.get("spec") or {}).get("taints") or ())


def _is_soft(taint: Body) -> bool:
    return all(taint.get(key) == value for key, value in SOFT_TAINT.items())


def _is_cordon_taint(taint: Body) -> bool:
    return bool(taint.get("key") == "node.kubernetes.io/unschedulable")
