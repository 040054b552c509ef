"""Deployments and their ReplicaSets: keep the wanted number of pods, roll to a new template in steps."""

import hashlib
import json

from simulator.kube.cluster import Cluster
from simulator.kube.conditions import with_condition
from simulator.kube.errors import Body
from simulator.kube.podindex import controller_of, is_active, is_ready
from simulator.kube.quantities import whole_or_percent
from simulator.kube.store import SAFE_LETTERS

REVISION = "deployment.kubernetes.io/revision"
HASH_LABEL = "pod-template-hash"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def owner_reference(kind: str, body: Body, group_version: str = "apps/v1") -> Body:
    """A controlling reference to the object."""
    metadata = body["metadata"]
    reference = {"apiVersion": group_version, "kind": kind, "name": metadata["name"], "uid": metadata["uid"]}
    return reference | {"controller": True, "blockOwnerDeletion": True}


def pod_from_template(template: Body, *, namespace: str, name: str, owner: Body) -> Body:
    """A new pod of a controller, not yet scheduled."""
    metadata = {
        key: template["metadata"][key] for key in ("labels", "annotations") if key in template["metadata"]
    }
    metadata |= {"name": name, "namespace": namespace, "ownerReferences": [owner]}
    return {"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}}


def template_hash(template: Body) -> str:
    """Ten letters that stand for a pod template."""
    text = json.dumps(template, sort_keys=True).encode()
    digest = hashlib.blake2b(text, digest_size=10).digest()
    return "".join(SAFE_LETTERS[byte % len(SAFE_LETTERS)] for byte in digest)


def reconcile_replicaset(cluster: Cluster, namespace: str, name: str) -> None:
    """Create or delete pods until the wanted number is active; write the status."""
    body = cluster.store.get("replicasets", namespace, name)
    if body is None:
        return
    pods = [pod for pod in cluster.index.pods_of(body["metadata"]["uid"]) if is_active(pod)]
    missing = body["spec"]["replicas"] - len(pods)
    for _ in range(max(0, missing)):
        pod_name = f"{name}-{cluster.store.make_suffix()}"
        owner = owner_reference("ReplicaSet", body)
        pod = pod_from_template(body["spec"]["template"], namespace=namespace, name=pod_name, owner=owner)
        pods.append(cluster.store.create("pods", pod, now=cluster.now))
    if missing > 0:
        cluster.record("replicasets", body, "SuccessfulCreate", f"Created {missing} pod(s)")
    if missing < 0:
        cause = "rollout" if _is_outdated(cluster, body) else "scale-down"
        for pod in sorted(pods, key=_dispensability)[:-missing]:
            cluster.delete_pod(namespace, pod["metadata"]["name"], cause=cause)
            pods.remove(pod)
    _write_status(cluster, body, pods)


def _is_outdated(cluster: Cluster, replicaset: Body) -> bool:
    owner = controller_of(replicaset)
    namespace = replicaset["metadata"]["namespace"]
    deployment = cluster.store.get("deployments", namespace, owner["name"]) if owner else None
    hashed = (replicaset["metadata"].get("labels") or {}).get(HASH_LABEL)
    return deployment is not None and hashed != template_hash(deployment["spec"]["template"])


def _dispensability(pod: Body) -> tuple[object, ...]:
    """Sort key: the pods that a ReplicaSet gives up first come first."""
    phase = pod["status"].get("phase")
    cost = int((pod["metadata"].get("annotations") or {}).get(DELETION_COST, 0))
    created = pod["metadata"]["creationTimestamp"]
    newest_first = tuple(-ord(letter) for letter in created)
    return (bool(pod["spec"].get("nodeName")), phase != "Pending", is_ready(pod), cost, newest_first)


def _write_status(cluster: Cluster, body: Body, pods: list[Body]) -> None:
    ready = sum(map(is_ready, pods))
    status = {
        "replicas": len(pods),
        "fullyLabeledReplicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "observedGeneration": body["metadata"].get("generation", 1),
    }
    if status != body.get("status"):
        cluster.store.put("replicasets", body | {"status": status})


def reconcile_deployment(cluster: Cluster, namespace: str, name: str) -> None:
    """Move the ReplicaSets of a deployment one step towards its template and size; write the status."""
    body = cluster.store.get("deployments", namespace, name)
    if body is None:
        return
    owned = [
        entry.body
        for _, entry in cluster.store.page("replicasets", namespace=namespace)
        if (owner := controller_of(entry.body)) and owner["uid"] == body["metadata"]["uid"]
    ]
    wanted_hash = template_hash(body["spec"]["template"])
    current = next((each for each in owned if each["metadata"]["labels"][HASH_LABEL] == wanted_hash), None)
    old = [each for each in owned if each is not current]
    if current is None and not body["spec"].get("paused"):
        current = _create_replicaset(cluster, body, wanted_hash, owned)
    if current is not None:
        _move(cluster, body, current, old)
    _forget_history(cluster, body, old)
    _write_deployment_status(cluster, namespace, name, wanted_hash)


def _create_replicaset(cluster: Cluster, deployment: Body, hashed: str, owned: list[Body]) -> Body:
    metadata, spec = deployment["metadata"], deployment["spec"]
    revision = 1 + max((int(each["metadata"]["annotations"][REVISION]) for each in owned), default=0)
    labels = (spec["template"]["metadata"].get("labels") or {}) | {HASH_LABEL: hashed}
    selector = spec["selector"] | {
        "matchLabels": (spec["selector"].get("matchLabels") or {}) | {HASH_LABEL: hashed}
    }
    template = spec["template"] | {"metadata": spec["template"]["metadata"] | {"labels": labels}}
    body = {
        "metadata": {
            "name": f"{metadata['name']}-{hashed}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {REVISION: str(revision)},
            "ownerReferences": [owner_reference("Deployment", deployment)],
            "generation": 1,
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
        "status": {"replicas": 0},
    }
    created = cluster.store.create("replicasets", body, now=cluster.now)
    annotations = (metadata.get("annotations") or {}) | {REVISION: str(revision)}
    latest = cluster.store.get("deployments", metadata["namespace"], metadata["name"]) or deployment
    cluster.store.put("deployments", latest | {"metadata": latest["metadata"] | {"annotations": annotations}})
    return created


def _move(cluster: Cluster, deployment: Body, current: Body, old: list[Body]) -> None:
    wanted = deployment["spec"]["replicas"]
    living = [each for each in old if each["spec"]["replicas"] > 0]
    strategy = deployment["spec"].get("strategy") or {}
    if not living:
        _scale(cluster, current, wanted)
    elif strategy.get("type") == "Recreate":
        for each in living:
            _scale(cluster, each, 0)
    else:
        _roll(cluster, wanted, strategy.get("rollingUpdate") or {}, current, living)


def _roll(cluster: Cluster, wanted: int, rolling: Body, current: Body, old: list[Body]) -> None:
    """One step of a rolling update within maxSurge and maxUnavailable."""
    surge = whole_or_percent(rolling.get("maxSurge", "25%"), wanted, round_up=True)
    unavailable = whole_or_percent(rolling.get("maxUnavailable", "25%"), wanted, round_up=False)
    unavailable = unavailable if surge or unavailable else 1
    total = current["spec"]["replicas"] + sum(each["spec"]["replicas"] for each in old)
    grown = min(wanted, current["spec"]["replicas"] + max(0, wanted + surge - total))
    _scale(cluster, current, max(grown, 0))
    if grown > current["spec"]["replicas"]:
        return
    new_unavailable = current["spec"]["replicas"] - current["status"].get("availableReplicas", 0)
    spare = total - (wanted - unavailable) - new_unavailable
    for each in sorted(old, key=lambda body: str(body["metadata"]["creationTimestamp"])):
        broken = each["spec"]["replicas"] - each["status"].get("availableReplicas", 0)
        drop = min(each["spec"]["replicas"], max(0, min(max(broken, spare), spare)))
        _scale(cluster, each, each["spec"]["replicas"] - drop)
        spare -= drop


def _scale(cluster: Cluster, replicaset: Body, replicas: int) -> None:
    if replicaset["spec"]["replicas"] == replicas:
        return
    metadata = replicaset["metadata"] | {"generation": replicaset["metadata"].get("generation", 1) + 1}
    spec = replicaset["spec"] | {"replicas": replicas}
    cluster.store.put("replicasets", replicaset | {"metadata": metadata, "spec": spec})


def _forget_history(cluster: Cluster, deployment: Body, old: list[Body]) -> None:
    limit = deployment["spec"].get("revisionHistoryLimit", 10)
    empty = [each for each in old if not each["spec"]["replicas"] and not each["status"].get("replicas")]
    empty.sort(key=lambda each: int(each["metadata"]["annotations"][REVISION]))
    for each in empty[: max(0, len(empty) - limit)]:
        cluster.store.remove("replicasets", each["metadata"]["namespace"], each["metadata"]["name"])


def _write_deployment_status(cluster: Cluster, namespace: str, name: str, wanted_hash: str) -> None:
    body = cluster.store.get("deployments", namespace, name)
    if body is None:
        return
    uid, totals, updated = body["metadata"]["uid"], {"replicas": 0, "readyReplicas": 0}, 0
    for _, entry in cluster.store.page("replicasets", namespace=namespace):
        owner = controller_of(entry.body)
        if owner is None or owner["uid"] != uid:
            continue
        for field in totals:
            totals[field] += entry.body["status"].get(field, 0)
        if entry.body["metadata"]["labels"][HASH_LABEL] == wanted_hash:
            updated = entry.body["status"].get("replicas", 0)
    wanted, ready = body["spec"]["replicas"], totals["readyReplicas"]
    status = {key: value for key, value in body.get("status", {}).items() if key == "conditions"}
    status |= totals | {"updatedReplicas": updated, "availableReplicas": ready}
    status["observedGeneration"] = body["metadata"].get("generation", 1)
    if ready < wanted:
        status["unavailableReplicas"] = wanted - ready
    rolling = (body["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    tolerated = whole_or_percent(rolling.get("maxUnavailable", "25%"), wanted, round_up=False)
    is_available = ready >= wanted - tolerated
    reason = "MinimumReplicasAvailable" if is_available else "MinimumReplicasUnavailable"
    word = "True" if is_available else "False"
    status = with_condition(status, "Available", word, at=cluster.now, reason=reason)
    if status != body.get("status"):
        cluster.store.put("deployments", body | {"status": status})
