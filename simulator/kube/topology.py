"""Placement relative to other pods: topology spread, affinity and anti-affinity between pods."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.kube.cluster import Cluster
from simulator.kube.errors import Body
from simulator.kube.nodeview import HOST, ZONE, Mask, NodeView, Numbers
from simulator.kube.podindex import controller_of, is_active
from simulator.kube.selectors import matches
from simulator.kube.store import key_of

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def spread_allows(cluster: Cluster, view: NodeView, pod: Body, eligible: Mask) -> Mask:
    """Nodes where every DoNotSchedule spread constraint holds; `eligible` are those the pod selects."""
    mask = np.ones(len(view.nodes), dtype=bool)
    for constraint in pod["spec"].get("topologySpreadConstraints") or ():
        if constraint["whenUnsatisfiable"] != "DoNotSchedule":
            continue
        key = constraint["topologyKey"]
        counts, present = _spread_counts(cluster, view, pod, constraint, eligible)
        if not present.any():
            return np.zeros(len(view.nodes), dtype=bool)
        labels = pod["metadata"].get("labels") or {}
        itself = 1 if matches(constraint.get("labelSelector"), labels) else 0
        skew = counts + itself - counts[present].min()
        mask &= view.by_node(key, skew <= constraint["maxSkew"], missing=False)
    return mask


def spread_score(cluster: Cluster, view: NodeView, pod: Body) -> Numbers:
    """0 to 100, best where fewest of its kind are; the default constraints when the pod has none."""
    constraints = [
        each
        for each in pod["spec"].get("topologySpreadConstraints") or ()
        if each["whenUnsatisfiable"] == "ScheduleAnyway"
    ]
    total: NDArray[Any] = np.zeros(len(view.nodes))
    everywhere = np.ones(len(view.nodes), dtype=bool)
    for constraint in constraints:
        counts, _ = _spread_counts(cluster, view, pod, constraint, everywhere)
        total = total + view.by_node(constraint["topologyKey"], counts, missing=0)
    owner = controller_of(pod)
    if owner and not pod["spec"].get("topologySpreadConstraints"):
        siblings = cluster.index.pods_of(owner["uid"])
        nodes = [each["spec"].get("nodeName") for each in siblings if is_active(each)]
        for key in (ZONE, HOST):
            total = total + view.by_node(key, view.count_by_domain(key, nodes), missing=0)
    highest = total.max(initial=0)
    scores: Numbers = np.full(len(view.nodes), 100.0) if highest == 0 else (highest - total) * 100 / highest
    return scores


def pods_allow(cluster: Cluster, view: NodeView, pod: Body) -> Mask:
    """Nodes that required affinity and anti-affinity between pods accept, in both directions."""
    mask = np.ones(len(view.nodes), dtype=bool)
    affinity = pod["spec"].get("affinity") or {}
    for term in (affinity.get("podAntiAffinity") or {}).get(REQUIRED) or ():
        counts = _term_counts(cluster, view, pod, term)
        mask &= view.by_node(term["topologyKey"], counts == 0, missing=True)
    for term in (affinity.get("podAffinity") or {}).get(REQUIRED) or ():
        counts = _term_counts(cluster, view, pod, term)
        is_first = not counts.any() and matches(
            term.get("labelSelector"), pod["metadata"].get("labels") or {}
        )
        mask &= view.by_node(term["topologyKey"], (counts > 0) | is_first, missing=False)
    return mask & _others_allow(cluster, view, pod)


def pods_score(cluster: Cluster, view: NodeView, pod: Body) -> Numbers:
    """0 to 100 from preferred affinity and anti-affinity between pods."""
    affinity = pod["spec"].get("affinity") or {}
    total: NDArray[Any] = np.zeros(len(view.nodes))
    for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for preferred in (affinity.get(kind) or {}).get(PREFERRED) or ():
            term = preferred["podAffinityTerm"]
            counts = _term_counts(cluster, view, pod, term)
            total = total + sign * preferred["weight"] * view.by_node(term["topologyKey"], counts, missing=0)
    lowest, highest = total.min(initial=0), total.max(initial=0)
    if highest == lowest:
        return np.zeros(len(view.nodes))
    scores: Numbers = (total - lowest) * 100 / (highest - lowest)
    return scores


def _spread_counts(
    cluster: Cluster, view: NodeView, pod: Body, constraint: Body, eligible: Mask
) -> tuple[NDArray[np.int64], Mask]:
    """Matching pods per domain, and which domains have an eligible node."""
    key, namespace = constraint["topologyKey"], pod["metadata"]["namespace"]
    names = cluster.index.selected(namespace, constraint.get("labelSelector"))
    pods = (cluster.store.get("pods", namespace, name) for name in names)
    nodes = [each["spec"].get("nodeName") for each in pods if each and is_active(each)]
    rows, total = view.domains(key)
    present = np.zeros(total, dtype=bool)
    present[rows[(rows >= 0) & eligible]] = True
    return view.count_by_domain(key, nodes), present


def _term_counts(cluster: Cluster, view: NodeView, pod: Body, term: Body) -> NDArray[np.int64]:
    """Pods that an affinity term selects, per domain; terminating ones still count."""
    nodes = []
    for namespace in _namespaces(cluster, pod, term):
        for name in cluster.index.selected(namespace, term.get("labelSelector")):
            other = cluster.store.get("pods", namespace, name)
            nodes.append(other["spec"].get("nodeName") if other else None)
    return view.count_by_domain(term["topologyKey"], nodes)


def _others_allow(cluster: Cluster, view: NodeView, pod: Body) -> Mask:
    """Nodes where no running pod's anti-affinity refuses the newcomer."""
    mask = np.ones(len(view.nodes), dtype=bool)
    labels, namespace = pod["metadata"].get("labels") or {}, pod["metadata"]["namespace"]
    for key in cluster.index.repelling:
        other = cluster.store.get("pods", *key)
        if other is None or not other["spec"].get("nodeName") or key == key_of(pod):
            continue
        for term in other["spec"]["affinity"]["podAntiAffinity"].get(REQUIRED) or ():
            if namespace in _namespaces(cluster, other, term) and matches(term.get("labelSelector"), labels):
                counts = view.count_by_domain(term["topologyKey"], [other["spec"]["nodeName"]])
                mask &= view.by_node(term["topologyKey"], counts == 0, missing=True)
    return mask


def _namespaces(cluster: Cluster, pod: Body, term: Body) -> list[str]:
    named = list(term.get("namespaces") or ())
    if "namespaceSelector" in term:
        selector = term["namespaceSelector"]
        found = cluster.store.bodies("namespaces")
        named += [
            each["metadata"]["name"]
            for each in found
            if matches(selector, each["metadata"].get("labels") or {})
        ]
        return named
    return named or [pod["metadata"]["namespace"]]
