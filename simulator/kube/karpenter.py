"""Karpenter: launches nodes for pods that find no room, and removes those that stay empty.

As karpenter.sh describes it, in short: node pools are tried by weight, highest first ("Scheduling", weighted
node pools); a pool launches what its requirements, the pods' selectors and its taints allow, and nothing
that would take it beyond its limits ("NodePools", limits); spot is taken where both capacity types are
allowed, and the next choice where AWS has no capacity ("NodePools", capacity type); a node is removed once
it has been empty for ``consolidateAfter``, as the pool's budgets allow ("Disruption"). Only empty nodes are
removed here, so no pod is ever evicted; pods with rules about other pods are left to the other nodes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from simulator.kube.cluster import Cluster
from simulator.kube.conditions import condition_of
from simulator.kube.eligibility import blocking_taint, selects_node
from simulator.kube.errors import Body
from simulator.kube.nodeview import ZONE
from simulator.kube.orders import CAPACITY_TYPE, Choice, Order, labels_of
from simulator.kube.podindex import controller_of, requests_of
from simulator.kube.quantities import cpu_millis, instant, memory_bytes, stamp, whole_or_percent
from simulator.kube.selectors import holds
from simulator.kube.volumes import zones_allowed
from simulator.machines import Machine

POOL = "karpenter.sh/nodepool"
DISRUPTED_TAINT = "karpenter.sh/disrupted"
RETRY = timedelta(seconds=10)
"""Karpenter looks again so soon after pods for which it could launch nothing."""
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_TOGETHER = ("podAffinity", "podAntiAffinity")


@dataclass(slots=True)
class _Room:
    """What a node that is not there yet has left."""

    node: Body
    cpu: int
    memory: int
    pods: int

    def take(self, cluster: Cluster, pod: Body) -> bool:
        """Reserve room for the pod where it may and does fit; tell whether it did."""
        cpu, memory = requests_of(pod)
        fits = cpu <= self.cpu and memory <= self.memory and self.pods > 0
        if not fits or not _accepts(cluster, pod, self.node):
            return False
        self.cpu, self.memory, self.pods = self.cpu - cpu, self.memory - memory, self.pods - 1
        return True


@dataclass(frozen=True)
class _Pool:
    """A NodePool and the nodes that it may launch."""

    cluster: Cluster
    body: Body
    used: Mapping[str, int]

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def spec(self) -> Body:
        spec: Body = self.body["spec"]
        return spec

    @property
    def nodes_spec(self) -> Body:
        spec: Body = self.spec["template"]["spec"]
        return spec

    @cached_property
    def choices(self) -> list[tuple[Choice, Body]]:
        """Every kind of node within requirements and limits, with the node that it would become."""
        seller, region = self.cluster.seller, self.cluster.region
        if seller is None:
            return []
        sold = [
            Choice(name, zone, zone_id, "")
            for zone, zone_id in sorted(_zones(self.cluster).items())
            for name in sorted(seller.offered(region, zone_id))
        ]
        kinds = {each.instance_type: each for each in sold}
        fitting = {name for name, each in kinds.items() if self._within_limits(name) and self._is_kind(each)}
        choices = [
            replace(each, capacity_type=capacity_type)
            for each in sold
            if each.instance_type in fitting
            for capacity_type in ("spot", "on-demand")
        ]
        described = [(each, self._labels(each)) for each in choices]
        taints = self.nodes_spec.get("taints") or []
        return [(each, _node(labels, taints)) for each, labels in described if self._required(labels)]

    @cached_property
    def daemons(self) -> list[Body]:
        return [body["spec"]["template"] for body in self.cluster.store.bodies("daemonsets")]

    def room(self, choice: Choice, node: Body) -> _Room:
        """What a new node of the choice has for pods beside its daemons."""
        shape = self.cluster.shapes.shape(choice.instance_type)
        asked = [requests_of(pod) for pod in self.daemons if _accepts(self.cluster, pod, node)]
        return _Room(
            node,
            shape.allocatable_cpu_millis - sum(cpu for cpu, _ in asked),
            shape.allocatable_memory_mib * 2**20 - sum(memory for _, memory in asked),
            shape.max_pods - len(asked),
        )

    def _labels(self, choice: Choice) -> dict[str, str]:
        own = (self.spec["template"].get("metadata") or {}).get("labels") or {}
        shape = self.cluster.shapes.shape(choice.instance_type)
        return {
            **own,
            **labels_of(choice, shape.vcpu),
            "kubernetes.io/arch": shape.arch,
            "topology.kubernetes.io/region": self.cluster.region,
            POOL: self.name,
        }

    def _required(self, labels: Mapping[str, str], *besides: str) -> bool:
        requirements = self.nodes_spec.get("requirements") or ()
        return all(holds(each, labels) for each in requirements if each["key"] not in besides)

    def _is_kind(self, choice: Choice) -> bool:
        """Whether the pool may launch the type, in whatever zone and however it is bought."""
        return self._required(self._labels(choice), ZONE, CAPACITY_TYPE)

    def _within_limits(self, instance_type: str) -> bool:
        capacity, limits = _capacity(self.cluster, instance_type), self.spec.get("limits") or {}
        return all(
            self.used.get(name, 0) + capacity[name] <= _amount(name, limit)
            for name, limit in limits.items()
            if name in capacity
        )


@dataclass(slots=True)
class _Claim:
    """A node that is to be launched: kinds of it that hold all the pods which it is for."""

    pods: list[Body] = field(default_factory=list)
    rooms: list[tuple[Choice, _Room]] = field(default_factory=list)

    def take(self, cluster: Cluster, pod: Body) -> bool:
        """Add the pod where some kind of node still holds it with the others; tell whether one does."""
        left = [(choice, room) for choice, room in self.rooms if room.take(cluster, pod)]
        if left:
            self.rooms = left
            self.pods.append(pod)
        return bool(left)


def run(cluster: Cluster) -> None:
    """Do what Karpenter does at an instant; nothing where there is no EC2 to buy from, or no node pool."""
    if cluster.seller is None:
        return
    bodies = [body for body in cluster.store.bodies("nodepools") if body["spec"].get("template")]
    claims = list(_living_claims(cluster)) if bodies else []
    pools = [_Pool(cluster, body, _used(cluster, body, claims)) for body in bodies]
    if pools:
        _provision(cluster, pools, claims)
    for pool in pools:
        _remove_empty(cluster, pool, claims)
        _tell_use(cluster, pool)


def _living_claims(cluster: Cluster) -> Iterator[tuple[Body, Machine]]:
    """Yield each claim with its machine; forget those whose machine is gone."""
    for body in list(cluster.store.bodies("nodeclaims")):
        machine = cluster.room.get(body["status"]["providerID"].rsplit("/", 1)[-1])
        if machine is not None and machine.is_alive:
            yield body, machine
        else:
            cluster.store.remove("nodeclaims", "", body["metadata"]["name"])


def _used(cluster: Cluster, pool: Body, claims: Iterable[tuple[Body, Machine]]) -> dict[str, int]:
    used = {"cpu": 0, "memory": 0, "nodes": 0}
    for body, machine in claims:
        if body["metadata"]["labels"][POOL] == pool["metadata"]["name"]:
            for name, amount in _capacity(cluster, machine.instance_type).items():
                used[name] += amount
    return used


def _provision(cluster: Cluster, pools: list[_Pool], claims: list[tuple[Body, Machine]]) -> None:
    waiting = _waiting_pods(cluster)
    coming = [_room_of(cluster, machine) for _, machine in claims if _node_of(cluster, machine) is None]
    left = [pod for pod in waiting if not any(room.take(cluster, pod) for room in coming)]
    by_weight = sorted(pools, key=lambda pool: (-int(pool.spec.get("weight") or 0), pool.name))
    while left:
        launched = next((pods for pool in by_weight if (pods := _launch(pool, left))), [])
        if not launched:
            cluster.after(cluster.now + RETRY, ("nodepools", "", pools[0].name))
            left = left[1:]
        left = [pod for pod in left if pod not in launched]
        by_weight = _counted(cluster, by_weight) if launched else by_weight


def _counted(cluster: Cluster, pools: list[_Pool]) -> list[_Pool]:
    claims = list(_living_claims(cluster))
    return [_Pool(cluster, pool.body, _used(cluster, pool.body, claims)) for pool in pools]


def _launch(pool: _Pool, pods: list[Body]) -> list[Body]:
    """Launch one node for the first pod and as many of the others as fit; return them, none if none could."""
    cluster, seller = pool.cluster, pool.cluster.seller
    claim = _Claim(rooms=[(choice, pool.room(choice, node)) for choice, node in pool.choices])
    if seller is None or not claim.take(cluster, pods[0]):
        return []
    for pod in pods[1:]:
        claim.take(cluster, pod)
    name = f"{pool.name}-{cluster.store.make_suffix()}"
    own = (pool.spec["template"].get("metadata") or {}).get("labels") or {}
    order = Order(
        account_id=cluster.account_id,
        region=cluster.region,
        cluster=cluster.name,
        choices=[choice for choice, _ in claim.rooms],
        labels={**own, POOL: pool.name},
        taints=pool.nodes_spec.get("taints") or [],
        tags={
            POOL: pool.name,
            "karpenter.sh/nodeclaim": name,
            "karpenter.k8s.aws/ec2nodeclass": pool.nodes_spec["nodeClassRef"]["name"],
            f"kubernetes.io/cluster/{cluster.name}": "owned",
            "eks:eks-cluster-name": cluster.name,
        },
    )
    machine = seller.buy(order, cluster.now)
    if machine is None:
        return []
    _keep_claim(pool, name, machine)
    return claim.pods


def _keep_claim(pool: _Pool, name: str, machine: Machine) -> None:
    labels = {POOL: pool.name, CAPACITY_TYPE: machine.lifecycle}
    body: Body = {
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeClassRef": pool.nodes_spec["nodeClassRef"]},
        "status": {
            "providerID": f"aws:///{machine.zone}/{machine.instance_id}",
            "nodeName": machine.private_dns,
        },
    }
    pool.cluster.store.create("nodeclaims", body, now=pool.cluster.now)


def _waiting_pods(cluster: Cluster) -> list[Body]:
    """The pods that Karpenter may launch nodes for, the largest first."""
    pods = [pod for key in cluster.index.unscheduled if (pod := cluster.store.get("pods", *key))]
    return sorted(
        (pod for pod in pods if _is_simple(pod)),
        key=lambda pod: (-requests_of(pod)[0], -requests_of(pod)[1], pod["metadata"]["name"]),
    )


def _is_simple(pod: Body) -> bool:
    spec, owner = pod["spec"], controller_of(pod)
    rules = spec.get("topologySpreadConstraints") or any(spec.get("affinity", {}).get(k) for k in _TOGETHER)
    return not (rules or spec.get("schedulingGates") or (owner and owner["kind"] == "DaemonSet"))


def _room_of(cluster: Cluster, machine: Machine) -> _Room:
    choice = Choice(machine.instance_type, machine.zone, machine.zone_id, machine.lifecycle)
    labels = labels_of(choice, cluster.shapes.shape(machine.instance_type).vcpu) | machine.labels
    pool = _Pool(cluster, {"metadata": {"name": ""}, "spec": {}}, {})
    return pool.room(choice, _node(labels, machine.taints))


def _node(labels: Mapping[str, str], taints: Sequence[Mapping[str, str]]) -> Body:
    return {"metadata": {"name": "", "labels": dict(labels)}, "spec": {"taints": list(taints)}}


def _node_of(cluster: Cluster, machine: Machine) -> Body | None:
    """The machine's node once it is Ready."""
    node = cluster.store.get("nodes", "", machine.private_dns)
    ready = condition_of(node, "Ready") if node else None
    return node if ready is not None and ready["status"] == "True" else None


def _accepts(cluster: Cluster, pod: Body, node: Body) -> bool:
    zones = zones_allowed(cluster, pod)
    zone = node["metadata"]["labels"].get(ZONE)
    return selects_node(pod, node) and blocking_taint(pod, node) is None and (zones is None or zone in zones)


def _zones(cluster: Cluster) -> dict[str, str]:
    """The zones in which the cluster has had machines, which are those of its subnets, with their ids."""
    return {
        machine.zone: machine.zone_id for machine in cluster.room.all() if machine.cluster == cluster.name
    }


def _capacity(cluster: Cluster, instance_type: str) -> dict[str, int]:
    shape = cluster.shapes.shape(instance_type)
    return {"cpu": shape.vcpu * 1000, "memory": shape.memory_mib * 2**20, "nodes": 1}


def _amount(resource: str, text: Any) -> int:
    readers = {"cpu": cpu_millis, "memory": memory_bytes}
    return readers.get(resource, int)(text)


def _remove_empty(cluster: Cluster, pool: _Pool, claims: list[tuple[Body, Machine]]) -> None:
    """Take away what has been empty for long enough, no more at once than the budgets let go."""
    disruption = pool.spec.get("disruption") or {}
    after = disruption.get("consolidateAfter", "0s")
    if after == "Never":
        return
    mine = [machine for body, machine in claims if body["metadata"]["labels"][POOL] == pool.name]
    allowed = min(
        (
            whole_or_percent(each.get("nodes", "10%"), len(mine), round_up=True)
            for each in disruption.get("budgets") or ({"nodes": "10%"},)
            if "Empty" in each.get("reasons", ["Empty"])
        ),
        default=len(mine),
    )
    for machine in mine:
        due = _empty_since(cluster, machine)
        if due is None:
            continue
        due += _duration(after)
        if due > cluster.now:
            cluster.after(due, ("nodepools", "", pool.name))
        elif allowed > 0:
            allowed -= 1
            _end(cluster, machine)


def _empty_since(cluster: Cluster, machine: Machine) -> datetime | None:
    """Since when the machine's Ready node has carried nothing but daemons; None while it carries pods."""
    node = _node_of(cluster, machine)
    if node is None:
        return None
    owners = [controller_of(pod) for pod in cluster.index.pods_on(machine.private_dns)]
    if any(owner is None or owner["kind"] != "DaemonSet" for owner in owners):
        return None
    ready = condition_of(node, "Ready")
    ready_at = instant(ready["lastTransitionTime"]) if ready else cluster.now
    return max(ready_at, cluster.emptied_at.get(machine.private_dns, ready_at))


def _end(cluster: Cluster, machine: Machine) -> None:
    """Close the node and terminate its machine; the node goes when the machine is gone."""
    node = cluster.store.get("nodes", "", machine.private_dns)
    if node is not None:
        taint = {"key": DISRUPTED_TAINT, "effect": "NoSchedule", "timeAdded": stamp(cluster.now)}
        spec = node["spec"] | {"taints": [*(node["spec"].get("taints") or []), taint]}
        cluster.store.put("nodes", node | {"spec": spec})
    cluster.room.terminate(machine.instance_id, reason="karpenter-empty", at=cluster.now)


def _duration(text: str) -> timedelta:
    number, total = "", 0
    for letter in text:
        if letter.isdigit():
            number += letter
        else:
            total, number = total + int(number) * _SECONDS[letter], ""
    return timedelta(seconds=total)


def _tell_use(cluster: Cluster, pool: _Pool) -> None:
    """Write what the pool's nodes have into its status."""
    used = _used(cluster, pool.body, list(_living_claims(cluster)))
    body = cluster.store.get("nodepools", "", pool.name)
    resources = {
        "cpu": str(used["cpu"] // 1000),
        "memory": f"{used['memory'] // 2**10}Ki",
        "nodes": str(used["nodes"]),
    }
    if body is not None and (body.get("status") or {}).get("resources") != resources:
        cluster.store.put("nodepools", body | {"status": {"resources": resources}})
