"""Plays a plan on a copy of the cluster for the checker, with its own idea of the scheduler."""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from policies.domain.plan import Launch
from policies.domain.policy import Rules
from policies.domain.replay_rules import RESOURCES, Host, amounts, barriers, needs
from policies.domain.replay_topology import Mask, OtherPods
from policies.domain.shapes import ClusterSnapshot, Node, Offer, Workload


class Replay:
    """The cluster while a plan runs: who is there, what is free, where pods are."""

    def __init__(self, snapshot: ClusterSnapshot, leaving: Sequence[str], rules: Rules) -> None:
        self._rules = rules
        self._workloads = [w for w in snapshot.workloads if w.kind not in ("DaemonSet", "Node")]
        self._row = {workload.id: row for row, workload in enumerate(self._workloads)}
        self._request = np.array([needs(workload) for workload in self._workloads]).reshape(-1, 5)
        self._others = OtherPods(self._workloads)
        self._ruled = [self._others.has_rules(row) for row in range(len(self._workloads))]
        self._gone = frozenset(leaving)
        self._hosts: list[Host] = []
        self._size, self._free = np.zeros((0, 5)), np.zeros((0, 5))
        self._pods = np.zeros((len(self._workloads), 0), np.int64)
        self._receiving = np.zeros(0, bool)
        self._suits: dict[Hashable, Mask] = {}
        self._append([(_host_of(node), node) for node in snapshot.nodes])
        column = {host.name: position for position, host in enumerate(self._hosts)}
        for placement in snapshot.placements:
            if placement.workload_id in self._row and placement.node_id in column and placement.count > 0:
                self._put(self._row[placement.workload_id], column[placement.node_id], placement.count)
        self._waiting = {
            self._row[key]: n for key, n in sorted(snapshot.pending.items()) if n > 0 and key in self._row
        }
        self._zones = self._live_zones()
        self._base = min(rules.on_demand_base, self._on_demand())
        self._lonely = self._others.lonely(self._pods)

    def add(self, launch: Launch, offer: Offer) -> None:
        """Make a launched node ready."""
        self._append([(Host(f"new:{launch.id}", offer, ready=True, taints=()), offer)])

    def node_count(self) -> int:
        """Return how many nodes are there."""
        return len(self._hosts)

    def ready_count(self) -> int:
        """Return how many nodes are ready and not cordoned."""
        return sum(host.ready for host in self._hosts)

    def admit_pending(self) -> None:
        """Let the scheduler place pending pods that fit now."""
        for row, count in self._waiting.items():
            left = count
            while left and (target := self._schedule(row)) is not None:
                self._put(row, target, 1)
                left -= 1
            self._waiting[row] = left

    def still_pending(self) -> list[str]:
        """Return the workloads that still have pending pods."""
        return [_name(self._workloads[row]) for row, count in self._waiting.items() if count]

    def drain(self, node_id: str) -> list[str]:
        """Evict every pod of a node; return a violation for each workload that finds no other node."""
        position = next(i for i, host in enumerate(self._hosts) if host.name == node_id)
        self._receiving[position] = self._hosts[position].ready = False
        waiting = np.repeat(np.arange(len(self._workloads)), self._pods[:, position]).tolist()
        while waiting:
            left = [row for row in waiting if not self._moved(row, position)]
            if len(left) == len(waiting):
                break
            waiting = left  # some may follow pods that have found their node meanwhile
        return [fault for row in dict.fromkeys(waiting) for fault in self._stranded(row, position)]

    def forget(self, node_ids: Sequence[str]) -> None:
        """Take terminated nodes away."""
        stays = np.array([host.name not in set(node_ids) for host in self._hosts], bool)
        self._hosts = [host for host, kept in zip(self._hosts, stays, strict=True) if kept]
        self._size, self._free, self._receiving = self._size[stays], self._free[stays], self._receiving[stays]
        self._pods = self._pods[:, stays]
        self._suits.clear()
        self._others.settle(self._hosts)

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the cluster as it is now."""
        ready = np.array([host.ready for host in self._hosts], bool)
        total, free = self._size[ready].sum(axis=0), self._free[ready].sum(axis=0)
        headroom = (self._rules.headroom_cpu_percent, self._rules.headroom_memory_percent)
        for resource, percent in enumerate(headroom):
            if free[resource] * 100 < total[resource] * percent - 1e-6:
                yield f"headroom: less than {percent} % of {('CPU', 'memory')[resource]} is free"
        if self._rules.az_spread and not self._zones <= self._live_zones():
            yield f"zones: no node is left in {', '.join(sorted(self._zones - self._live_zones()))}"
        if self._on_demand() < self._base:
            yield f"on_demand_base: {self._on_demand()} on-demand nodes are left of {self._base}"
        lonely = self._others.lonely(self._pods)
        for row in sorted({row for row, *_ in lonely - self._lonely}):
            yield f"pod_affinity: {_name(self._workloads[row])} is left without the pods it must be near"
        self._lonely = lonely

    def _live_zones(self) -> set[str]:
        return {host.zone for host in self._hosts if host.ready}

    def _on_demand(self) -> int:
        return sum(host.ready and not host.spot for host in self._hosts)

    def _append(self, arrivals: Sequence[tuple[Host, Node | Offer]]) -> None:
        size = np.array([amounts(source.allocatable) for _, source in arrivals]).reshape(-1, 5)
        used = np.array([amounts(source.daemon_overhead) for _, source in arrivals]).reshape(-1, 5)
        self._hosts += [host for host, _ in arrivals]
        self._size, self._free = np.vstack([self._size, size]), np.vstack([self._free, size - used])
        receiving = [host.ready and host.name not in self._gone for host, _ in arrivals]
        self._receiving = np.append(self._receiving, np.array(receiving, bool))
        self._pods = np.hstack([self._pods, np.zeros((len(self._workloads), len(arrivals)), np.int64)])
        self._suits.clear()
        self._others.settle(self._hosts)

    def _put(self, row: int, position: int, count: int) -> None:
        self._pods[row, position] += count
        self._free[position] -= self._request[row] * count

    def _moved(self, row: int, position: int) -> bool:
        """Move one pod off a node, and tell whether it found another; without one it stays."""
        self._put(row, position, -1)
        target = self._schedule(row)
        self._put(row, position if target is None else target, 1)
        return target is not None

    def _schedule(self, row: int) -> int | None:
        able = self._receiving & self._suited(row) & (self._free >= self._request[row]).all(axis=1)
        if self._ruled[row] and able.any():
            for _, mask in self._others.masks(row, self._pods):
                able &= mask
        if not able.any():
            return None
        left = (self._free[:, :2] - self._request[row, :2]) / np.maximum(self._size[:, :2], 1)
        return int(np.argmax(np.where(able, left.sum(axis=1), -np.inf)))

    def _suited(self, row: int) -> Mask:
        workload, tolerant = self._workloads[row], self._is_tolerant(row)
        selector = frozenset(workload.node_selector.items())
        terms = (workload.requirements, workload.alternatives)
        key = (selector, terms, workload.tolerations, workload.pinned_zone, tolerant)
        if key not in self._suits:
            self._suits[key] = np.array(
                [not any(barriers(workload, host, tolerant=tolerant)) for host in self._hosts], bool
            )
        return self._suits[key]

    def _is_tolerant(self, row: int) -> bool:
        workload, default = self._workloads[row], self._rules.default_spot_affinity
        wish = self._rules.spot_affinity.get(workload.namespace, default)
        return workload.spot_tolerant and wish != "none"

    def _stranded(self, row: int, position: int) -> Iterator[str]:
        """Yield that a pod finds no node, and for each rule whose absence would give it one that rule."""
        name = _name(self._workloads[row])
        yield f"no_place: a pod of {name} finds no node"
        self._put(row, position, -1)
        passes = self._passes(row)
        for code in passes:
            others = [mask for other, mask in passes.items() if other != code]
            if np.logical_and.reduce([self._receiving, *others]).any():
                yield f"{code}: without this rule a pod of {name} would find a node"

    def _passes(self, row: int) -> dict[str, Mask]:
        """Return by violation code the nodes that pass the rule."""
        workload, tolerant = self._workloads[row], self._is_tolerant(row)
        broken = [set(barriers(workload, host, tolerant=tolerant)) for host in self._hosts]
        codes = sorted(set().union(*broken))
        passes = {code: np.array([code not in found for found in broken], bool) for code in codes}
        for resource, code in enumerate(RESOURCES):
            passes[code] = self._free[:, resource] >= self._request[row, resource]
        for code, mask in self._others.masks(row, self._pods):
            passes[code] = passes.get(code, mask) & mask
        return passes


def _host_of(node: Node) -> Host:
    return Host(node.id, node, ready=node.ready and not node.cordoned, taints=node.taints)


def _name(workload: Workload) -> str:
    return f"{workload.namespace}/{workload.name}"
