"""One cluster: its objects, its queue of things to look at, its timers and its events."""

import heapq
import random
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from simulator.journal import Journal
from simulator.kube.eligibility import UNSCHEDULABLE_TAINT
from simulator.kube.errors import Body
from simulator.kube.orders import Seller
from simulator.kube.podindex import PodIndex, controller_of, is_terminating
from simulator.kube.quantities import stamp
from simulator.kube.selectors import matches
from simulator.kube.store import Store, key_of
from simulator.machines import Machine, MachineRoom

Task = tuple[str, str, str]
KINDS = {
    "deployments": ("Deployment", "apps/v1"),
    "replicasets": ("ReplicaSet", "apps/v1"),
    "statefulsets": ("StatefulSet", "apps/v1"),
    "daemonsets": ("DaemonSet", "apps/v1"),
    "nodes": ("Node", "v1"),
    "pods": ("Pod", "v1"),
}
PLURALS = {kind: plural for plural, (kind, _) in KINDS.items()}
CONTROLLERS = frozenset({"deployments", "replicasets", "statefulsets", "daemonsets"})
KEPT_EVENTS = 2_000
GRACE_SECONDS = 30


class Shape(Protocol):
    """What a node of an instance type offers."""

    @property
    def vcpu(self) -> int: ...
    @property
    def memory_mib(self) -> int: ...
    @property
    def arch(self) -> str: ...
    @property
    def max_pods(self) -> int: ...
    @property
    def allocatable_cpu_millis(self) -> int: ...
    @property
    def allocatable_memory_mib(self) -> int: ...


class Shapes(Protocol):
    """Where shapes come from; LookupError for an unknown type."""

    def shape(self, instance_type: str) -> Shape: ...


class Cluster:
    """State shared by the API and the controllers. Not thread-safe, but for `notice_machine`."""

    def __init__(
        self,
        *,
        name: str,
        region: str,
        account_id: str,
        k8s_version: str,
        journal: Journal,
        room: MachineRoom,
        shapes: Shapes,
        seed: int,
        now: datetime,
    ) -> None:
        self.name, self.region, self.account_id, self.k8s_version = name, region, account_id, k8s_version
        self.room, self.shapes, self.now, self.seed = room, shapes, now, seed
        self.journal = journal
        self.store = Store(cluster=name, journal=journal, seed=seed)
        self.index = PodIndex(self.store)
        self.enforces_budgets = True
        self.has_karpenter = True
        self.seller: Seller | None = None
        self.causes: dict[str, str] = {}
        self.emptied_at: dict[str, datetime] = {}
        self.queue: dict[Task, None] = {}
        self.reschedule = True
        self.wake: Callable[[], None] = lambda: None
        self._timers: list[tuple[datetime, Task]] = []
        self._inbox: deque[str] = deque()
        self._events: deque[str] = deque()
        self.store.listeners.append(self._observe)
        room.subscribe(lambda _, machine: self.notice_machine(machine))
        self._look_at_everything()

    def notice_machine(self, machine: Machine) -> None:
        """Look at a machine at the next step; any thread may call."""
        if machine.cluster == self.name:
            self._inbox.append(machine.instance_id)
            self.wake()

    def enqueue(self, resource: str, namespace: str, name: str) -> None:
        """Look at an object before the step ends."""
        self.queue[resource, namespace, name] = None

    def after(self, at: datetime, task: Task) -> None:
        """Look at an object at an instant; a look too many does no harm."""
        heapq.heappush(self._timers, (at, task))

    def take_due(self) -> None:
        """Move machines with news and timers that are due into the queue."""
        while self._inbox:
            self.enqueue("machines", "", self._inbox.popleft())
        while self._timers and self._timers[0][0] <= self.now:
            self.queue[heapq.heappop(self._timers)[1]] = None

    def next_due(self) -> datetime | None:
        """When the next timer falls; now if there is work already."""
        if self.queue or self._inbox:
            return self.now
        return self._timers[0][0] if self._timers else None

    def machine_of(self, node: Body) -> Machine | None:
        """The machine behind a node's provider id."""
        return self.room.get(node["spec"].get("providerID", "").rsplit("/", 1)[-1])

    def has_kubelet(self, node_name: str) -> bool:
        """Whether something on the node still starts and stops containers."""
        node = self.store.get("nodes", "", node_name)
        machine = self.machine_of(node) if node else None
        return machine is not None and machine.is_alive and machine.failed_at is None

    def draw(self, bounds: tuple[float, float], *key: str) -> timedelta:
        """A delay that is always the same for this key in this world."""
        text = "/".join((str(self.seed), self.name, *key))
        return timedelta(seconds=random.Random(text).uniform(*bounds))  # noqa: S311 - reproducible, not secret

    def delete_pod(self, namespace: str, name: str, *, cause: str, grace_seconds: int | None = None) -> Body:
        """Ask a pod to end, at once when it never started or the grace is 0; return what the API shows."""
        pod = self.store.get("pods", namespace, name)
        if pod is None:
            raise LookupError(f"There is no pod {namespace}/{name}.")
        metadata = pod["metadata"]
        grace = pod["spec"].get("terminationGracePeriodSeconds", GRACE_SECONDS)
        grace = grace if grace_seconds is None else grace_seconds
        if is_terminating(pod):
            grace = min(grace, metadata["deletionGracePeriodSeconds"])
        self.causes.setdefault(metadata["uid"], cause)
        if grace <= 0 or not pod["spec"].get("nodeName"):
            return self.remove_pod(namespace, name, cause=cause)
        if is_terminating(pod) and grace == metadata["deletionGracePeriodSeconds"]:
            return pod
        ending = {
            "deletionTimestamp": stamp(self.now + timedelta(seconds=grace)),
            "deletionGracePeriodSeconds": grace,
        }
        self.record("pods", pod, "Killing", f"Stopping container {pod['spec']['containers'][0]['name']}")
        return self.store.put("pods", pod | {"metadata": metadata | ending})

    def remove_pod(self, namespace: str, name: str, *, cause: str) -> Body:
        """Take a pod out of the store at once."""
        pod = self.store.get("pods", namespace, name)
        if pod is None:
            raise LookupError(f"There is no pod {namespace}/{name}.")
        self.causes.setdefault(pod["metadata"]["uid"], cause)
        last = self.store.remove("pods", namespace, name)
        self.causes.pop(pod["metadata"]["uid"], None)
        return last

    def record(
        self, resource: str, about: Body, reason: str, message: str, *, is_warning: bool = False
    ) -> None:
        """Write an Event about an object; the oldest of many are dropped."""
        metadata = about["metadata"]
        namespace = metadata.get("namespace") or "default"
        kind, version = KINDS[resource]
        at = stamp(self.now)
        name = f"{metadata['name']}.{self.store.version:016x}"
        involved = {"kind": kind, "name": metadata["name"], "uid": metadata["uid"], "apiVersion": version}
        if "namespace" in metadata:
            involved["namespace"] = namespace
        event: Body = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "source": {"component": "simulator"},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "type": "Warning" if is_warning else "Normal",
        }
        self.store.create("events", event, now=self.now)

    def _look_at_everything(self) -> None:
        for resource in (*sorted(CONTROLLERS), "nodes", "pods", "poddisruptionbudgets"):
            for body in self.store.bodies(resource):
                self.enqueue(resource, *key_of(body))
        for machine in self.room.all():
            self.notice_machine(machine)

    def _observe(self, resource: str, before: Body | None, after: Body | None) -> None:
        body = after or before
        if body is None:
            return
        key = key_of(body)
        if resource == "pods":
            self.index.change(before, after)
            self._observe_pod(before, after, body)
        elif resource == "nodes":
            self._observe_node(before, after, key[1])
        elif resource == "events":
            self._drop_old_events(key, is_new=before is None)
        elif resource in CONTROLLERS:
            self._observe_controller(resource, before, after, body)
        elif resource == "poddisruptionbudgets" and after:
            self.enqueue(resource, *key)

    def _observe_pod(self, before: Body | None, after: Body | None, pod: Body) -> None:
        namespace, name = key_of(pod)
        if after:
            self.enqueue("pods", namespace, name)
            self.reschedule |= not after["spec"].get("nodeName")
        else:
            self.reschedule = True
            self.emptied_at[pod["spec"].get("nodeName", "")] = self.now
        owner = controller_of(pod)
        if owner and owner["kind"] in PLURALS:
            self.enqueue(PLURALS[owner["kind"]], namespace, owner["name"])
        labels = pod["metadata"].get("labels") or {}
        for (_, budget), entry in self.store.page("poddisruptionbudgets", namespace=namespace):
            if matches(entry.body["spec"].get("selector"), labels):
                self.enqueue("poddisruptionbudgets", namespace, budget)

    def _observe_node(self, before: Body | None, after: Body | None, name: str) -> None:
        if after:
            self.enqueue("nodes", "", name)
        else:
            self.emptied_at.pop(name, None)
        if before and after and _scheduling_view(before) == _scheduling_view(after):
            return
        self.reschedule = True
        if not before or not after or _daemons_view(before) != _daemons_view(after):
            for body in self.store.bodies("daemonsets"):
                self.enqueue("daemonsets", *key_of(body))
        for namespace, pod in self.index.on_node.get(name, ()):
            self.enqueue("pods", namespace, pod)

    def _observe_controller(self, resource: str, before: Body | None, after: Body | None, body: Body) -> None:
        namespace, name = key_of(body)
        self.enqueue(resource, namespace, name)
        owner = controller_of(body)
        if owner and owner["kind"] in PLURALS:
            self.enqueue(PLURALS[owner["kind"]], namespace, owner["name"])
        if before is None or after is None or before["spec"] != after["spec"]:
            for (_, budget), _entry in self.store.page("poddisruptionbudgets", namespace=namespace):
                self.enqueue("poddisruptionbudgets", namespace, budget)

    def _drop_old_events(self, key: tuple[str, str], *, is_new: bool) -> None:
        if not is_new:
            return
        self._events.append("/".join(key))
        if len(self._events) > KEPT_EVENTS:
            namespace, name = self._events.popleft().split("/", 1)
            if self.store.get("events", namespace, name):
                self.store.remove("events", namespace, name)


def _daemons_view(node: Body) -> tuple[object, ...]:
    """What decides where daemons run: labels and hard taints; every daemon tolerates a cordon."""
    return node["metadata"].get("labels"), [
        taint
        for taint in node["spec"].get("taints") or ()
        if taint["effect"] != "PreferNoSchedule" and taint["key"] != UNSCHEDULABLE_TAINT
    ]


def _scheduling_view(node: Body) -> tuple[object, ...]:
    conditions = node["status"].get("conditions") or ()
    ready = next((each["status"] for each in conditions if each["type"] == "Ready"), "")
    spec = node["spec"]
    return (
        node["metadata"].get("labels"),
        spec.get("taints"),
        spec.get("unschedulable"),
        ready,
        node["status"].get("allocatable"),
    )
