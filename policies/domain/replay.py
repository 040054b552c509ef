"""Plays a plan on a copy of the cluster for the checker, with its own idea of the scheduler."""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from policies.domain.plan import Launch
from policies.domain.policy import Rules
from policies.domain.shapes import (
    CapacityType,
    ClusterSnapshot,
    Node,
    Offer,
    Requirement,
    Resources,
    Taint,
    Toleration,
    Workload,
)


class _Host:
    """A node as the replay sees it."""

    def __init__(self, name: str, source: Node | Offer, *, ready: bool, taints: tuple[Taint, ...]) -> None:
        self.name, self.zone, self.spot = name, source.zone, source.capacity_type is CapacityType.SPOT
        self.taints, self.ready = taints, ready
        defaults = {"topology.kubernetes.io/zone": source.zone, "kubernetes.io/hostname": name}
        if isinstance(source, Offer):
            defaults |= _labels_of_new(source)
            self.labels: Mapping[str, str] = {**defaults, **source.labels, "kubernetes.io/hostname": name}
        else:
            self.labels = {**defaults, **source.labels}

    def domain(self, key: str) -> str | None:
        """Return the topology domain that the node belongs to."""
        return self.zone if key == "topology.kubernetes.io/zone" else self.labels.get(key)


def _labels_of_new(offer: Offer) -> dict[str, str]:
    spot = offer.capacity_type is CapacityType.SPOT
    return {
        "node.kubernetes.io/instance-type": offer.instance_type,
        "kubernetes.io/arch": "amd64" if offer.arch == "x86_64" else offer.arch,
        "kubernetes.io/os": "linux",
        "eks.amazonaws.com/capacityType": "SPOT" if spot else "ON_DEMAND",
        "karpenter.sh/capacity-type": "spot" if spot else "on-demand",
    }


class Replay:
    """The cluster while a plan runs: who is there, what is free, where pods are."""

    def __init__(self, snapshot: ClusterSnapshot, leaving: Sequence[str], rules: Rules) -> None:
        self._rules = rules
        self._workloads = [w for w in snapshot.workloads if w.kind not in ("DaemonSet", "Node")]
        self._barred = {name for name, affinity in rules.spot_affinity.items() if affinity == "none"}
        self._row = {workload.id: row for row, workload in enumerate(self._workloads)}
        self._request = np.array([_needs(workload) for workload in self._workloads]).reshape(-1, 5)
        self._gone = frozenset(leaving)
        self._hosts: list[_Host] = []
        self._size, self._free = np.zeros((0, 5)), np.zeros((0, 5))
        self._pods = np.zeros((len(self._workloads), 0), np.int64)
        self._receiving = np.zeros(0, bool)
        self._suits: dict[Hashable, npt.NDArray[np.bool_]] = {}
        self._append([(_host_of(node), node) for node in snapshot.nodes])
        column = {host.name: position for position, host in enumerate(self._hosts)}
        for placement in snapshot.placements:
            if placement.workload_id in self._row and placement.node_id in column and placement.count > 0:
                self._put(self._row[placement.workload_id], column[placement.node_id], placement.count)
        self._waiting = {
            self._row[key]: n for key, n in sorted(snapshot.pending.items()) if n > 0 and key in self._row
        }
        self._zones = self._live_zones()

    def add(self, launch: Launch, offer: Offer) -> None:
        """Make a launched node ready."""
        self._append([(_Host(f"new:{launch.id}", offer, ready=True, taints=()), offer)])

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
        """Evict every pod of a node; return the workloads of those that find no other node."""
        position = next(i for i, host in enumerate(self._hosts) if host.name == node_id)
        self._receiving[position] = self._hosts[position].ready = False
        stranded = []
        for row in np.flatnonzero(self._pods[:, position]).tolist():
            for _ in range(int(self._pods[row, position])):
                self._put(row, position, -1)
                target = self._schedule(row)
                if target is None:
                    stranded.append(_name(self._workloads[row]))
                else:
                    self._put(row, target, 1)
        return stranded

    def forget(self, node_ids: Sequence[str]) -> None:
        """Take terminated nodes away."""
        stays = np.array([host.name not in set(node_ids) for host in self._hosts], bool)
        self._hosts = [host for host, kept in zip(self._hosts, stays, strict=True) if kept]
        self._size, self._free, self._receiving = self._size[stays], self._free[stays], self._receiving[stays]
        self._pods = self._pods[:, stays]
        self._suits.clear()

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

    def _live_zones(self) -> set[str]:
        return {host.zone for host in self._hosts if host.ready}

    def _append(self, arrivals: Sequence[tuple[_Host, Node | Offer]]) -> None:
        size = np.array([_amounts(source.allocatable) for _, source in arrivals]).reshape(-1, 5)
        used = np.array([_amounts(source.daemon_overhead) for _, source in arrivals]).reshape(-1, 5)
        self._hosts += [host for host, _ in arrivals]
        self._size, self._free = np.vstack([self._size, size]), np.vstack([self._free, size - used])
        receiving = [host.ready and host.name not in self._gone for host, _ in arrivals]
        self._receiving = np.append(self._receiving, np.array(receiving, bool))
        self._pods = np.hstack([self._pods, np.zeros((len(self._workloads), len(arrivals)), np.int64)])
        self._suits.clear()

    def _put(self, row: int, position: int, count: int) -> None:
        self._pods[row, position] += count
        self._free[position] -= self._request[row] * count

    def _suited(self, workload: Workload) -> npt.NDArray[np.bool_]:
        tolerant = workload.spot_tolerant and workload.namespace not in self._barred
        selector = frozenset(workload.node_selector.items())
        key = (
            selector,
            workload.requirements,
            workload.tolerations,
            workload.pinned_zone,
            tolerant,
        )
        if key not in self._suits:
            self._suits[key] = np.array(
                [_suits(workload, host, tolerant=tolerant) for host in self._hosts], bool
            )
        return self._suits[key]

    def _schedule(self, row: int) -> int | None:
        workload, request = self._workloads[row], self._request[row]
        able = self._receiving & self._suited(workload) & (self._free >= request).all(axis=1)
        if able.any() and (workload.spread or workload.anti_affinity_keys):
            able &= self._spread_allows(workload, self._pods[row])
        if not able.any():
            return None
        left = (self._free[:, :2] - request[:2]) / np.maximum(self._size[:, :2], 1)
        return int(np.argmax(np.where(able, left.sum(axis=1), -np.inf)))

    def _spread_allows(self, workload: Workload, pods: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        allowed = np.ones(len(self._hosts), bool)
        for key in workload.anti_affinity_keys:
            taken = {host.domain(key) for host, count in zip(self._hosts, pods, strict=True) if count > 0}
            allowed &= np.array([host.domain(key) not in taken - {None} for host in self._hosts], bool)
        for rule in workload.spread:
            domains = [host.domain(rule.topology_key) for host in self._hosts]
            carried: Counter[str | None] = Counter()
            for domain, count in zip(domains, pods, strict=True):
                carried[domain] += int(count)
            eligible = {d for d, suits in zip(domains, self._suited(workload), strict=True) if suits} - {None}
            least = min((carried[domain] for domain in eligible), default=0)
            fits = [d is not None and carried[d] + 1 - least <= rule.max_skew for d in domains]
            allowed &= np.array(fits, bool)
        return allowed


def _host_of(node: Node) -> _Host:
    return _Host(node.id, node, ready=node.ready and not node.cordoned, taints=node.taints)


def _name(workload: Workload) -> str:
    return f"{workload.namespace}/{workload.name}"


def _amounts(amount: Resources) -> tuple[float, ...]:
    return (amount.cpu_millis, amount.memory_mib, amount.pods, amount.gpu, amount.ephemeral_mib)


def _needs(workload: Workload) -> tuple[float, ...]:
    cpu, memory, pods, gpu, ephemeral = _amounts(workload.request)
    return (cpu, memory, max(pods, 1), gpu, ephemeral)


def _suits(workload: Workload, host: _Host, *, tolerant: bool) -> bool:
    if (host.spot and not tolerant) or workload.pinned_zone not in ("", host.zone):
        return False
    if any(host.labels.get(key) != value for key, value in workload.node_selector.items()):
        return False
    if not all(
        _meets(requirement, host.labels.get(requirement.key)) for requirement in workload.requirements
    ):
        return False
    hard = [taint for taint in host.taints if taint.effect in ("NoSchedule", "NoExecute")]
    return all(_borne(taint, workload.tolerations) for taint in hard)


def _borne(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    for t in tolerations:
        same_key = t.key in ("", taint.key) if t.operator == "Exists" else t.key == taint.key != ""
        same_value = t.operator == "Exists" or t.value == taint.value
        if same_key and same_value and t.effect in ("", taint.effect):
            return True
    return False


def _meets(requirement: Requirement, value: str | None) -> bool:
    match requirement.operator:
        case "In" | "NotIn":
            return (value in requirement.values) is (requirement.operator == "In")
        case "Exists" | "DoesNotExist":
            return (value is not None) is (requirement.operator == "Exists")
        case "Gt" | "Lt":
            return _is_beyond(value or "", requirement.operator, "".join(requirement.values[:1]))
    return False


def _is_beyond(value: str, operator: str, bound: str) -> bool:
    if not (value.isdecimal() and bound.isdecimal()):
        return False
    return int(value) > int(bound) if operator == "Gt" else int(value) < int(bound)
