"""What the agent knows of its cluster: a reflector for each collection, and usage."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentapi.agent.clock import Clock
from agentapi.agent.facts import Facts, NodeFact, Owner, PodFact, volume_fact
from agentapi.agent.kube import Kube, KubeError, KubeUnreachable
from agentapi.agent.nodepools import read_karpenter
from agentapi.agent.quantities import mib, millis
from agentapi.agent.reflector import Reflector
from agentapi.protocol import KarpenterReport

STALE_AFTER = 60.0
"""Seconds of failing to reach the API server after which the copy is no ground to report from."""


@dataclass(frozen=True, slots=True)
class Use:
    """CPU and memory in use."""

    cpu_millis: int
    memory_mib: int

    def __add__(self, other: "Use") -> "Use":
        return Use(self.cpu_millis + other.cpu_millis, self.memory_mib + other.memory_mib)


class View:
    """A living copy of the collections that matter."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        on_node: Callable[[NodeFact | None, NodeFact | None], None] = lambda before, after: None,
        on_pod: Callable[[PodFact | None, PodFact | None], None] | None = None,
    ) -> None:
        facts = Facts()
        self._on_node = on_node
        self.changed = asyncio.Event()
        """Set when a node joins, leaves, becomes ready or not, or is cordoned or not."""
        self.node_usage: Mapping[str, Use] = {}
        self.pod_usage: Mapping[tuple[str, str], Use] = {}
        self.karpenter: KarpenterReport | None = None
        """What was last read; None until somebody could say."""
        self._kube, self._clock = kube, clock
        self.pods = Reflector(kube, clock, "/api/v1/pods", facts.pod, on_pod)
        self.nodes = Reflector(kube, clock, "/api/v1/nodes", facts.node, self._node_changed)
        apps = "/apis/apps/v1"
        self.deployments = Reflector(kube, clock, f"{apps}/deployments", facts.controller)
        self.replica_sets = Reflector(kube, clock, f"{apps}/replicasets", facts.controller)
        self.stateful_sets = Reflector(kube, clock, f"{apps}/statefulsets", facts.controller)
        self.daemon_sets = Reflector(kube, clock, f"{apps}/daemonsets", facts.controller)
        self.budgets = Reflector(kube, clock, "/apis/policy/v1/poddisruptionbudgets", facts.budget)
        self.claims = Reflector(kube, clock, "/api/v1/persistentvolumeclaims", facts.claim)
        self.volumes = Reflector(kube, clock, "/api/v1/persistentvolumes", volume_fact)
        self.reflectors: tuple[Reflector[Any], ...] = (
            self.pods, self.nodes, self.deployments, self.replica_sets, self.stateful_sets, self.daemon_sets,
            self.budgets, self.claims, self.volumes,
        )  # fmt: skip

    async def synced(self) -> None:
        """Return once every collection has been listed."""
        for each in self.reflectors:
            await each.synced.wait()

    @property
    def is_live(self) -> bool:
        """Tell whether every collection is listed and none has failed for a minute."""
        limit = self._clock.seconds() - STALE_AFTER
        return all(
            each.synced.is_set() and (each.failing_since is None or each.failing_since > limit)
            for each in self.reflectors
        )

    async def measure(self) -> None:
        """Read what is not watched: Karpenter's pools and the metrics API; without one usage is unknown."""
        self.karpenter = await read_karpenter(self._kube, self.karpenter)
        try:
            nodes = await self._kube.get_lean("/apis/metrics.k8s.io/v1beta1/nodes", _lean)
            pods = await self._kube.get_lean("/apis/metrics.k8s.io/v1beta1/pods", _lean)
        except (KubeError, KubeUnreachable):
            self.node_usage, self.pod_usage = {}, {}
            return
        self.node_usage = {name: use for (_, name), use in _measured(nodes)}
        self.pod_usage = dict(_measured(pods))

    def workload_of(self, pod: PodFact) -> Owner:
        """Return the controller that wants the pod: a deployment rather than its replica set."""
        owner = pod.owner
        if owner is None:
            return Owner("Pod", pod.name)
        if owner.kind != "ReplicaSet":
            return owner
        replica_set = self.replica_sets.items.get((pod.namespace, owner.name))
        if replica_set is not None:
            return replica_set.owner or owner
        if "pod-template-hash" in pod.labels:  # its replica set is gone already
            return Owner("Deployment", owner.name.rpartition("-")[0])
        return owner

    def _node_changed(self, before: NodeFact | None, after: NodeFact | None) -> None:
        self._on_node(before, after)
        if before is None or after is None or _standing(before) != _standing(after):
            self.changed.set()


def _standing(node: NodeFact) -> tuple[object, ...]:
    return node.instance_id, node.ready, node.unschedulable, node.taints


def _measured(answer: dict[str, Any]) -> Iterator[tuple[tuple[str, str], Use]]:
    """Yield what an answer of the metrics API holds, but for what is not of its form."""
    for item in answer.get("items") or ():
        if isinstance(item, tuple) and isinstance(item[0], tuple) and isinstance(item[1], Use):
            yield item


def _lean(part: dict[str, Any]) -> Any:
    """Return what matters of one object in an answer of the metrics API; parts come before their whole."""
    if isinstance(part.get("containers"), list):
        used = [each for each in part["containers"] if isinstance(each, Use)]
        return part.get("metadata"), sum(used, Use(0, 0))
    if isinstance(part.get("usage"), Use):
        return (part["metadata"], part["usage"]) if "metadata" in part else part["usage"]
    if part.keys() == {"cpu", "memory"}:
        return _use(part["cpu"], part["memory"])
    return (part.get("namespace", ""), part["name"]) if "name" in part else part


def _use(cpu: object, memory: object) -> Use | None:
    """Return the use; None for what are no quantities, such as labels by the same names."""
    try:
        return Use(millis(str(cpu)), mib(str(memory)))
    except ValueError:
        return None
