"""Fast answers about pods: by node, owner and selector, and what each node has promised away."""

import json
from collections import defaultdict

from simulator.kube.errors import Body
from simulator.kube.quantities import cpu_millis, memory_bytes
from simulator.kube.selectors import matches
from simulator.kube.store import Key, Store, key_of

FINISHED = frozenset({"Succeeded", "Failed"})


def requests_of(pod: Body) -> tuple[int, int]:
    """What the scheduler reserves: (thousandths of a core, bytes); init containers count by their maximum."""
    spec = pod["spec"]
    cpu, memory = _sum_requests(spec["containers"])
    for container in spec.get("initContainers") or ():
        first_cpu, first_memory = _sum_requests([container])
        cpu, memory = max(cpu, first_cpu), max(memory, first_memory)
    overhead = spec.get("overhead") or {}
    return cpu + cpu_millis(overhead.get("cpu", 0)), memory + memory_bytes(overhead.get("memory", 0))


def _sum_requests(containers: list[Body]) -> tuple[int, int]:
    cpu = memory = 0
    for container in containers:
        resources = container.get("resources") or {}
        requests = (resources.get("limits") or {}) | (resources.get("requests") or {})
        cpu += cpu_millis(requests.get("cpu", 0))
        memory += memory_bytes(requests.get("memory", 0))
    return cpu, memory


def controller_of(body: Body) -> Body | None:
    """The owner reference that controls an object."""
    references = body["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), None)


def is_ready(pod: Body) -> bool:
    """Whether the Ready condition is true."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def is_terminating(body: Body) -> bool:
    """Whether deletion was asked for."""
    return "deletionTimestamp" in body["metadata"]


def is_active(pod: Body) -> bool:
    """Whether a controller counts the pod as one of its replicas."""
    return not is_terminating(pod) and pod.get("status", {}).get("phase") not in FINISHED


def is_healthy(pod: Body) -> bool:
    """Whether a disruption budget counts the pod: ready and not terminating."""
    return is_ready(pod) and not is_terminating(pod)


class PodIndex:
    """Kept right by `change` at each transition of a pod."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.on_node: dict[str, set[Key]] = defaultdict(set)
        self.owned_by: dict[str, set[Key]] = defaultdict(set)
        self.unscheduled: dict[Key, None] = {}
        self.repelling: set[Key] = set()
        self.used: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._selected: dict[str, dict[str, tuple[Body, set[str]]]] = defaultdict(dict)
        for pod in store.bodies("pods"):
            self.change(None, pod)

    def change(self, before: Body | None, after: Body | None) -> None:
        """Follow one transition: None before a creation, None after a removal."""
        pod = after or before
        if pod is None:
            return
        key = key_of(pod)
        node_before, node_after = _occupied_node(before), _occupied_node(after)
        if node_before != node_after:
            self._leave(node_before, key, before)
            self._enter(node_after, key, after)
        waits = after is not None and not after["spec"].get("nodeName") and is_active(after)
        if waits:
            self.unscheduled[key] = None
        else:
            self.unscheduled.pop(key, None)
        if (
            before is None
            or after is None
            or before["metadata"].get("labels") != after["metadata"].get("labels")
        ):
            self._reselect(key, after)
        if before is None or after is None:
            self._follow_owner(key, pod, is_present=after is not None)

    def selected(self, namespace: str, selector: Body | None) -> set[str]:
        """The names of the namespace's pods that a LabelSelector selects; kept up to date, do not change."""
        if selector is None:
            return set()
        name = json.dumps(selector, sort_keys=True)
        known = self._selected[namespace].get(name)
        if known is None:
            pods = self._store.page("pods", namespace=namespace)
            found = {
                key[1] for key, entry in pods if matches(selector, entry.body["metadata"].get("labels") or {})
            }
            known = self._selected[namespace][name] = (selector, found)
        return known[1]

    def pods_on(self, node: str) -> list[Body]:
        """The pods that hold resources of a node, in name order."""
        return [pod for key in sorted(self.on_node.get(node, ())) if (pod := self._store.get("pods", *key))]

    def pods_of(self, owner_uid: str) -> list[Body]:
        """The pods that an object owns, in name order."""
        keys = sorted(self.owned_by.get(owner_uid, ()))
        return [pod for key in keys if (pod := self._store.get("pods", *key))]

    def _enter(self, node: str | None, key: Key, pod: Body | None) -> None:
        if node and pod:
            self.on_node[node].add(key)
            self._charge(node, pod, 1)

    def _leave(self, node: str | None, key: Key, pod: Body | None) -> None:
        if node and pod:
            self.on_node[node].discard(key)
            self._charge(node, pod, -1)

    def _charge(self, node: str, pod: Body, sign: int) -> None:
        cpu, memory = requests_of(pod)
        used = self.used[node]
        used[0] += sign * cpu
        used[1] += sign * memory
        used[2] += sign

    def _reselect(self, key: Key, after: Body | None) -> None:
        namespace, name = key
        labels = (after["metadata"].get("labels") or {}) if after else None
        for selector, names in self._selected[namespace].values():
            if labels is not None and matches(selector, labels):
                names.add(name)
            else:
                names.discard(name)

    def _follow_owner(self, key: Key, pod: Body, *, is_present: bool) -> None:
        repels = bool((pod["spec"].get("affinity") or {}).get("podAntiAffinity"))
        if is_present and repels:
            self.repelling.add(key)
        else:
            self.repelling.discard(key)
        owner = controller_of(pod)
        if owner and is_present:
            self.owned_by[owner["uid"]].add(key)
        elif owner:
            self.owned_by[owner["uid"]].discard(key)
            if not self.owned_by[owner["uid"]]:
                del self.owned_by[owner["uid"]]


def _occupied_node(pod: Body | None) -> str | None:
    """The node whose resources the pod holds; a finished pod holds none."""
    if pod is None or pod.get("status", {}).get("phase") in FINISHED:
        return None
    name: str | None = pod["spec"].get("nodeName")
    return name
