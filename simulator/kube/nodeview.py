"""The scheduler's picture of all nodes as arrays: what fits, what is allowed, what is best."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.kube.cluster import Cluster
from simulator.kube.eligibility import (
    blocking_taint,
    is_cordoned,
    pinned_node,
    preference,
    selects_node,
    soft_taints,
)
from simulator.kube.errors import Body
from simulator.kube.quantities import cpu_millis, memory_bytes

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]
ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


class NodeView:
    """Nodes in name order with allocatable and used as arrays; `take` keeps it right while pods are bound."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.nodes = [entry.body for _, entry in cluster.store.page("nodes")]
        self.row = {node["metadata"]["name"]: row for row, node in enumerate(self.nodes)}
        allocatable = [node["status"]["allocatable"] for node in self.nodes]
        self.room = np.array(
            [
                [cpu_millis(each["cpu"]), memory_bytes(each["memory"]), int(each["pods"])]
                for each in allocatable
            ],
            dtype=np.float64,
        ).reshape(-1, 3)
        used = [cluster.index.used.get(name, (0, 0, 0)) for name in self.row]
        self.used = np.array(used, dtype=np.float64).reshape(-1, 3)
        self._classes: dict[str, tuple[Mask, Mask, Mask, Numbers, Numbers]] = {}
        self._domains: dict[str, tuple[NDArray[np.int64], int]] = {}

    def allowed(self, pod: Body) -> tuple[Mask, Mask, Mask, Numbers, Numbers]:
        """Per node: selected, untainted, not cordoned; and the preference and soft-taint scores."""
        spec = pod["spec"]
        affinity = (spec.get("affinity") or {}).get("nodeAffinity")
        name = pinned_node(pod)
        if name is not None:
            return self._pinned(pod, name)
        key = json.dumps([spec.get("nodeSelector"), affinity, spec.get("tolerations")])
        if key not in self._classes:
            self._classes[key] = self._judge(pod)
        return self._classes[key]

    def fits(self, cpu: int, memory: int) -> tuple[Mask, Mask, Mask]:
        """Per node: enough CPU, enough memory, a free pod slot."""
        free = self.room - self.used
        return (
            (free[:, 0] >= cpu) | (cpu == 0),
            (free[:, 1] >= memory) | (memory == 0),
            free[:, 2] >= 1,
        )

    def resource_score(self, cpu: int, memory: int) -> Numbers:
        """LeastAllocated plus NodeResourcesBalancedAllocation, 0 to 200."""
        share = np.minimum((self.used[:, :2] + [cpu, memory]) / self.room[:, :2], 1.0)
        least = (1.0 - share).mean(axis=1) * 100
        balance = (1.0 - np.abs(share[:, 0] - share[:, 1]) / 2) * 100
        scores: Numbers = np.floor(least) + np.floor(balance)
        return scores

    def domains(self, key: str) -> tuple[NDArray[np.int64], int]:
        """The number of each node's domain of a topology key (-1: no such label), and how many there are."""
        if key not in self._domains:
            values = [(node["metadata"].get("labels") or {}).get(key) for node in self.nodes]
            numbers = {value: number for number, value in enumerate(sorted({v for v in values if v}))}
            rows = np.array([numbers.get(value, -1) if value else -1 for value in values], dtype=np.int64)
            self._domains[key] = (rows, len(numbers))
        return self._domains[key]

    def count_by_domain(self, key: str, node_names: Iterable[str | None]) -> NDArray[np.int64]:
        """How many of the named nodes (one name per pod) lie in each domain."""
        rows, total = self.domains(key)
        counts = np.zeros(total, dtype=np.int64)
        for name in node_names:
            row = self.row.get(name) if name else None
            if row is not None and rows[row] >= 0:
                counts[rows[row]] += 1
        return counts

    def by_node(self, key: str, per_domain: NDArray[Any], missing: Any) -> NDArray[Any]:
        """Spread a value per domain over the nodes; `missing` where the label is absent."""
        rows, total = self.domains(key)
        if not total:
            return np.full(len(self.nodes), missing)
        return np.where(rows >= 0, per_domain[np.maximum(rows, 0)], missing)

    def take(self, row: int, cpu: int, memory: int) -> None:
        """Reserve room on a node."""
        self.used[row] += (cpu, memory, 1)

    def _pinned(self, pod: Body, name: str) -> tuple[Mask, Mask, Mask, Numbers, Numbers]:
        selected = np.zeros(len(self.nodes), dtype=bool)
        untainted, uncordoned = selected.copy(), selected.copy()
        row = self.row.get(name)
        if row is not None:
            node = self.nodes[row]
            selected[row] = selects_node(pod, node)
            untainted[row] = blocking_taint(pod, node) is None
            uncordoned[row] = not is_cordoned(pod, node)
        zeros = np.zeros(len(self.nodes))
        return selected, untainted, uncordoned, zeros, zeros

    def _judge(self, pod: Body) -> tuple[Mask, Mask, Mask, Numbers, Numbers]:
        return (
            np.array([selects_node(pod, node) for node in self.nodes], dtype=bool),
            np.array([blocking_taint(pod, node) is None for node in self.nodes], dtype=bool),
            np.array([not is_cordoned(pod, node) for node in self.nodes], dtype=bool),
            np.array([preference(pod, node) for node in self.nodes], dtype=np.float64),
            np.array([soft_taints(pod, node) for node in self.nodes], dtype=np.float64),
        )
