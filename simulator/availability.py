"""The world's own record of every pod's availability, written at each transition."""

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from simulator.journal import Journal
from simulator.kube.cluster import Cluster

Body = dict[str, Any]
INVOLUNTARY = frozenset({"spot-interruption", "hardware-failure"})
PLANNED = frozenset({"scale-down", "rollout", "owner-deleted"})
OWNERS = {"ReplicaSet": "replicasets", "StatefulSet": "statefulsets", "Deployment": "deployments"}
KEPT = 1_000


@dataclass(slots=True)
class Loss:
    """One moment at which fewer pods were healthy than their budget (or their bare existence) demands."""

    at: str
    namespace: str
    budget: str
    pod: str
    healthy: int
    required: int
    cause: str
    voluntary: bool


@dataclass(slots=True)
class Totals:
    """What has to survive a restart."""

    evictions: int = 0
    longest_pending_seconds: float = 0.0
    pdb_violations: list[Body] = field(default_factory=list)
    below_minimum: list[Body] = field(default_factory=list)
    causes: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Pod:
    name: str
    labels: dict[str, str]
    owner: Body | None
    created: datetime
    is_healthy: bool
    was_ready: bool
    is_ending: bool


class Availability:
    """Watches one cluster's pods. A violation is healthy pods below a budget's demand by a voluntary act."""

    def __init__(self, cluster: Cluster, journal: Journal) -> None:
        self._cluster, self._journal = cluster, journal
        self._key = f"availability/{cluster.name}"
        self._pods: dict[str, dict[str, _Pod]] = defaultdict(dict)
        saved = journal.read(self._key).get(self._key)
        self.totals = Totals(**saved) if saved else Totals()
        for pod in cluster.store.bodies("pods"):
            self._pods[pod["metadata"]["namespace"]][pod["metadata"]["uid"]] = _seen(pod)
        cluster.store.listeners.append(self._observe)

    def report(self, now: datetime) -> Body:
        """The record so far; losses newest last, the latest thousand of each."""
        pods = [pod for each in self._pods.values() for pod in each.values()]
        waiting = [pod for pod in pods if not pod.is_healthy and not pod.is_ending]
        unborn = ((now - pod.created).total_seconds() for pod in waiting if not pod.was_ready)
        longest = max([self.totals.longest_pending_seconds, *unborn])
        counts = {
            "pods_desired": self._desired(),
            "pods_running": sum(pod.is_healthy for pod in pods),
            "pods_pending": len(waiting),
        }
        return counts | asdict(self.totals) | {"longest_pending_seconds": round(longest, 1)}

    def _observe(self, resource: str, before: Body | None, after: Body | None) -> None:
        body = after or before
        if resource != "pods" or body is None:
            return
        metadata = body["metadata"]
        tracked, uid = self._pods[metadata["namespace"]], metadata["uid"]
        old = tracked.get(uid)
        new = _seen(after) if after else None
        if new:
            new.was_ready |= old.was_ready if old else False
            tracked[uid] = new
        else:
            tracked.pop(uid, None)
        self._judge(metadata, old, new)

    def _judge(self, metadata: Body, old: _Pod | None, new: _Pod | None) -> None:
        cause = self._cluster.causes.get(metadata["uid"], "unknown")
        if old and not old.is_ending and (new is None or new.is_ending) and cause == "eviction":
            self.totals.evictions += 1
            self._save()
        if new and new.is_healthy and not new.was_ready:
            new.was_ready = True
            waited = (self._cluster.now - new.created).total_seconds()
            if waited > self.totals.longest_pending_seconds:
                self.totals.longest_pending_seconds = waited
                self._save()
        if old and old.is_healthy and not (new and new.is_healthy):
            self._record_loss(metadata["namespace"], old, cause)

    def _record_loss(self, namespace: str, pod: _Pod, cause: str) -> None:
        self.totals.causes[cause] = self.totals.causes.get(cause, 0) + 1
        is_voluntary = cause not in INVOLUNTARY | PLANNED
        for name, healthy, required in self._demands(namespace, pod):
            if healthy >= required:
                continue
            at = self._cluster.now.isoformat()
            loss = Loss(at, namespace, name, pod.name, healthy, required, cause, is_voluntary)
            _keep(self.totals.below_minimum, loss)
            if is_voluntary and name:
                _keep(self.totals.pdb_violations, loss)
        self._save()

    def _demands(self, namespace: str, pod: _Pod) -> list[tuple[str, int, int]]:
        """(budget, healthy, required) for each budget over the pod; without one, replicas demand one."""
        demands = []
        for (_, name), entry in self._cluster.store.page("poddisruptionbudgets", namespace=namespace):
            selector = entry.body["spec"].get("selector")
            if selector is not None and _selects(selector, pod.labels):
                peers = [each for each in self._pods[namespace].values() if _selects(selector, each.labels)]
                healthy = sum(each.is_healthy for each in peers)
                demands.append((name, healthy, self._required(namespace, entry.body["spec"], [*peers, pod])))
        if demands or pod.owner is None or pod.owner["kind"] not in OWNERS:
            return demands
        peers = [each for each in self._pods[namespace].values() if _same_owner(each.owner, pod.owner)]
        if self._scale(namespace, pod.owner)[1] < 2:  # noqa: PLR2004 - a single replica cannot stay up
            return []
        return [("", sum(each.is_healthy for each in peers), 1)]

    def _required(self, namespace: str, spec: Body, peers: list[_Pod]) -> int:
        if isinstance(spec.get("minAvailable"), int):
            return int(spec["minAvailable"])
        owners = {pod.owner["uid"]: pod.owner for pod in peers if pod.owner}
        scales = dict(self._scale(namespace, owner) for owner in owners.values())
        expected = sum(scales.values())
        if "minAvailable" in spec:
            return -(-int(spec["minAvailable"].rstrip("%")) * expected // 100)
        most = spec.get("maxUnavailable", 1)
        tolerated = most if isinstance(most, int) else -(-int(most.rstrip("%")) * expected // 100)
        return max(0, expected - tolerated)

    def _scale(self, namespace: str, owner: Body) -> tuple[str, int]:
        """(uid, replicas) of the topmost controller behind an owner reference."""
        body = self._cluster.store.get(OWNERS.get(owner["kind"], ""), namespace, owner["name"])
        if body is None:
            return owner["uid"], 0
        above = _owner(body)
        if above and above["kind"] in OWNERS:
            return self._scale(namespace, above)
        return body["metadata"]["uid"], body["spec"].get("replicas", 0)

    def _desired(self) -> int:
        store = self._cluster.store
        wanted: int = sum(
            body["spec"]["replicas"]
            for resource in ("deployments", "statefulsets", "replicasets")
            for body in store.bodies(resource)
            if _owner(body) is None
        )
        wanted += sum(body["status"].get("desiredNumberScheduled", 0) for body in store.bodies("daemonsets"))
        return wanted + sum(pod.owner is None for each in self._pods.values() for pod in each.values())

    def _save(self) -> None:
        self._journal.write({self._key: asdict(self.totals)})


def _seen(pod: Body) -> _Pod:
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = status.get("conditions") or ()
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    is_ending = "deletionTimestamp" in metadata
    return _Pod(
        name=metadata["name"],
        labels=metadata.get("labels") or {},
        owner=_owner(pod),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        is_healthy=is_ready and not is_ending,
        was_ready=False,
        is_ending=is_ending,
    )


def _owner(body: Body) -> Body | None:
    references = body["metadata"].get("ownerReferences") or ()
    return next((each for each in references if each.get("controller")), None)


def _same_owner(one: Body | None, other: Body) -> bool:
    return one is not None and one["uid"] == other["uid"]


def _selects(selector: Body, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for term in selector.get("matchExpressions") or ():
        value, values = labels.get(term["key"]), term.get("values") or []
        truth = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not truth[term["operator"]]:
            return False
    return True


def _keep(losses: list[Body], loss: Loss) -> None:
    losses.append(asdict(loss))
    del losses[:-KEPT]
