"""The scheduler: the default one's filters and scores, in simulated time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.kube.cluster import Cluster
from simulator.kube.conditions import with_condition
from simulator.kube.errors import Body
from simulator.kube.nodeview import ZONE, Mask, NodeView
from simulator.kube.podindex import requests_of
from simulator.kube.store import Key, key_of
from simulator.kube.topology import pods_allow, pods_score, spread_allows, spread_score
from simulator.kube.volumes import bind_volumes, zones_allowed

TAINT_WEIGHT, AFFINITY_WEIGHT, SPREAD_WEIGHT, PODS_WEIGHT = 3, 2, 2, 2


def run(cluster: Cluster) -> bool:
    """Bind every pending pod that fits somewhere; say whether any was bound."""
    if not cluster.reschedule:
        return False
    cluster.reschedule = False
    waiting = sorted(cluster.index.unscheduled, key=lambda key: _precedence(cluster, key))
    if not waiting:
        return False
    view = NodeView(cluster)
    bound = False
    for key in waiting:
        pod = cluster.store.get("pods", *key)
        if pod is not None and not pod["spec"].get("schedulingGates"):
            bound |= _schedule(cluster, view, pod)
    return bound


def _precedence(cluster: Cluster, key: Key) -> tuple[int, str, Key]:
    pod = cluster.store.get("pods", *key) or {"spec": {}, "metadata": {}}
    return (-pod["spec"].get("priority", 0), pod["metadata"].get("creationTimestamp", ""), key)


def _schedule(cluster: Cluster, view: NodeView, pod: Body) -> bool:
    filters = _filters(cluster, view, pod)
    feasible = np.ones(len(view.nodes), dtype=bool)
    for _, mask in filters:
        feasible &= mask
    if not feasible.any():
        _explain(cluster, pod, filters, len(view.nodes))
        return False
    row = _best(cluster, view, pod, feasible)
    cpu, memory = requests_of(pod)
    view.take(row, cpu, memory)
    _bind(cluster, pod, view.nodes[row])
    return True


def _filters(cluster: Cluster, view: NodeView, pod: Body) -> list[tuple[str, Mask]]:
    """Each reason to refuse nodes, in the order in which the scheduler blames them."""
    selected, untainted, uncordoned, _, _ = view.allowed(pod)
    cpu, memory, slots = view.fits(*requests_of(pod))
    return [
        ("node(s) were unschedulable", uncordoned),
        ("node(s) had untolerated taint(s)", untainted),
        ("node(s) didn't match Pod's node affinity/selector", selected),
        ("node(s) had volume node affinity conflict", _volumes_allow(cluster, view, pod)),
        ("Insufficient cpu", cpu),
        ("Insufficient memory", memory),
        ("Too many pods", slots),
        ("node(s) didn't match pod topology spread constraints", spread_allows(cluster, view, pod, selected)),
        ("node(s) didn't match pod affinity/anti-affinity rules", pods_allow(cluster, view, pod)),
    ]


def _volumes_allow(cluster: Cluster, view: NodeView, pod: Body) -> Mask:
    zones = zones_allowed(cluster, pod)
    if zones is None:
        return np.ones(len(view.nodes), dtype=bool)
    labels = (node["metadata"].get("labels") or {} for node in view.nodes)
    return np.array([each.get(ZONE) in zones for each in labels], dtype=bool)


def _best(cluster: Cluster, view: NodeView, pod: Body, feasible: Mask) -> int:
    _, _, _, preferred, soft = view.allowed(pod)
    score: NDArray[Any] = view.resource_score(*requests_of(pod))
    score = score + AFFINITY_WEIGHT * _normal(preferred, feasible)
    score = score + TAINT_WEIGHT * (100 - _normal(soft, feasible))
    score = score + SPREAD_WEIGHT * spread_score(cluster, view, pod)
    score = score + PODS_WEIGHT * pods_score(cluster, view, pod)
    return int(np.argmax(np.where(feasible, score, -1.0)))


def _normal(values: NDArray[Any], feasible: Mask) -> NDArray[Any]:
    highest = values[feasible].max(initial=0)
    return values * 100 / highest if highest else values


def _bind(cluster: Cluster, pod: Body, node: Body) -> None:
    name = node["metadata"]["name"]
    bind_volumes(cluster, pod, node)
    status = with_condition(pod["status"], "PodScheduled", "True", at=cluster.now)
    spec = pod["spec"] | {"nodeName": name}
    bound = cluster.store.put("pods", pod | {"spec": spec, "status": status})
    where = "/".join(key_of(pod))
    cluster.record("pods", bound, "Scheduled", f"Successfully assigned {where} to {name}")


def _explain(cluster: Cluster, pod: Body, filters: list[tuple[str, Mask]], total: int) -> None:
    blamed = np.zeros(total, dtype=bool)
    reasons = []
    for reason, mask in filters:
        newly = ~mask & ~blamed
        blamed |= newly
        if newly.any():
            reasons.append(f"{int(newly.sum())} {reason}")
    message = (
        f"0/{total} nodes are available: {', '.join(sorted(reasons))}." if total else "no nodes available"
    )
    conditions = pod["status"].get("conditions") or ()
    if any(each["type"] == "PodScheduled" and each.get("message") == message for each in conditions):
        return
    status = with_condition(
        pod["status"], "PodScheduled", "False", at=cluster.now, reason="Unschedulable", message=message
    )
    refused = cluster.store.put("pods", pod | {"status": status})
    cluster.reschedule = False
    cluster.record("pods", refused, "FailedScheduling", message, is_warning=True)
