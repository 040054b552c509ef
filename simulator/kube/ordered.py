"""StatefulSets (named, ordered pods with disks) and DaemonSets (one pod on each eligible node)."""

from simulator.kube.cluster import Cluster
from simulator.kube.eligibility import blocking_taint, selects_node
from simulator.kube.errors import Body
from simulator.kube.podindex import is_active, is_ready, is_terminating
from simulator.kube.replicas import owner_reference, pod_from_template, template_hash

REVISION_LABEL = "controller-revision-hash"
DAEMON_TOLERATIONS = tuple(
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect}
    for key, effect in (
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    )
)


def reconcile_statefulset(cluster: Cluster, namespace: str, name: str) -> None:
    """Create the next pod in order, end the highest surplus or outdated one, one step at a time."""
    body = cluster.store.get("statefulsets", namespace, name)
    if body is None:
        return
    spec, revision = body["spec"], template_hash(body["spec"]["template"])
    pods = {pod["metadata"]["name"]: pod for pod in cluster.index.pods_of(body["metadata"]["uid"])}
    names = [f"{name}-{ordinal}" for ordinal in range(spec["replicas"])]
    is_parallel = spec.get("podManagementPolicy") == "Parallel"
    for pod_name in names:
        if pod_name not in pods:
            pods[pod_name] = _create_member(cluster, body, pod_name, revision)
        if not is_parallel and not (is_ready(pods[pod_name]) and is_active(pods[pod_name])):
            break
    else:
        _shrink_or_update(cluster, namespace, names, pods, revision)
    _write_set_status(cluster, namespace, name, revision)


def _create_member(cluster: Cluster, body: Body, pod_name: str, revision: str) -> Body:
    namespace, spec = body["metadata"]["namespace"], body["spec"]
    owner = owner_reference("StatefulSet", body)
    pod = pod_from_template(spec["template"], namespace=namespace, name=pod_name, owner=owner)
    labels = (pod["metadata"].get("labels") or {}) | {
        "apps.kubernetes.io/pod-index": pod_name.rsplit("-", 1)[1],
        "statefulset.kubernetes.io/pod-name": pod_name,
        REVISION_LABEL: f"{body['metadata']['name']}-{revision}",
    }
    pod["metadata"]["labels"] = labels
    volumes = list(pod["spec"].get("volumes") or ())
    for template in spec.get("volumeClaimTemplates") or ():
        claim_name = f"{template['metadata']['name']}-{pod_name}"
        volumes.append(
            {"name": template["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim_name}}
        )
        if cluster.store.get("persistentvolumeclaims", namespace, claim_name) is None:
            metadata = {
                "name": claim_name,
                "namespace": namespace,
                "labels": template["metadata"].get("labels", {}),
            }
            claim = {"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}}
            cluster.store.create("persistentvolumeclaims", claim, now=cluster.now)
    identity = {"hostname": pod_name, "subdomain": spec.get("serviceName", body["metadata"]["name"])}
    pod["spec"] = pod["spec"] | identity | ({"volumes": volumes} if volumes else {})
    return cluster.store.create("pods", pod, now=cluster.now)


def _shrink_or_update(
    cluster: Cluster, namespace: str, names: list[str], pods: dict[str, Body], revision: str
) -> None:
    if any(is_terminating(pod) for pod in pods.values()):
        return
    surplus = sorted(pods.keys() - set(names), key=lambda name: -int(name.rsplit("-", 1)[1]))
    outdated = [
        name
        for name in reversed(names)
        if not pods[name]["metadata"]["labels"][REVISION_LABEL].endswith(revision)
    ]
    if surplus:
        cluster.delete_pod(namespace, surplus[0], cause="scale-down")
    elif outdated and all(is_ready(pod) for pod in pods.values()):
        cluster.delete_pod(namespace, outdated[0], cause="rollout")


def _write_set_status(cluster: Cluster, namespace: str, name: str, revision: str) -> None:
    body = cluster.store.get("statefulsets", namespace, name)
    if body is None:
        return
    pods = cluster.index.pods_of(body["metadata"]["uid"])
    ready = sum(is_ready(pod) and is_active(pod) for pod in pods)
    current = sum(pod["metadata"]["labels"][REVISION_LABEL].endswith(revision) for pod in pods)
    status = {
        "replicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "currentReplicas": current,
        "updatedReplicas": current,
        "currentRevision": f"{name}-{revision}",
        "updateRevision": f"{name}-{revision}",
        "collisionCount": 0,
        "observedGeneration": body["metadata"].get("generation", 1),
    }
    if status != body.get("status"):
        cluster.store.put("statefulsets", body | {"status": status})


def reconcile_daemonset(cluster: Cluster, namespace: str, name: str) -> None:
    """One pod for each node that the template may run on, none elsewhere; write the status."""
    body = cluster.store.get("daemonsets", namespace, name)
    if body is None:
        return
    pods = cluster.index.pods_of(body["metadata"]["uid"])
    by_node: dict[str, Body] = {}
    for pod in pods:
        by_node.setdefault(_target(pod), pod)
    probe = {"spec": _daemon_spec(body["spec"]["template"]["spec"], None)}
    wanted = 0
    for _, entry in cluster.store.page("nodes"):
        node, node_name = entry.body, entry.body["metadata"]["name"]
        pod_here = by_node.get(node_name)
        may_run = selects_node(probe, node)
        taint = blocking_taint(probe, node)
        wanted += may_run and taint is None
        if may_run and taint is None and pod_here is None:
            _create_daemon(cluster, body, node_name)
        elif pod_here and is_active(pod_here) and (not may_run or (taint and taint["effect"] == "NoExecute")):
            cluster.delete_pod(namespace, pod_here["metadata"]["name"], cause="scale-down")
    _replace_outdated(cluster, body, pods)
    _write_daemon_status(cluster, namespace, name, wanted)


def _target(pod: Body) -> str:
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    name: str = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
    return name


def _daemon_spec(spec: Body, node_name: str | None) -> Body:
    """The pod spec with the daemon controller's tolerations, pinned to a node when one is named."""
    changed = spec | {"tolerations": [*(spec.get("tolerations") or ()), *DAEMON_TOLERATIONS]}
    if node_name is None:
        return changed
    field = {"key": "metadata.name", "operator": "In", "values": [node_name]}
    affinity = dict(spec.get("affinity") or {})
    required = (affinity.get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    expressions = [term.get("matchExpressions") for term in required.get("nodeSelectorTerms") or ()]
    term: Body = {"matchFields": [field]}
    if expressions and expressions[0]:
        term["matchExpressions"] = expressions[0]
    affinity["nodeAffinity"] = {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}
    }
    return changed | {"affinity": affinity}


def _create_daemon(cluster: Cluster, body: Body, node_name: str) -> None:
    metadata, template = body["metadata"], body["spec"]["template"]
    pod_name = f"{metadata['name']}-{cluster.store.make_suffix()}"
    owner = owner_reference("DaemonSet", body)
    pod = pod_from_template(template, namespace=metadata["namespace"], name=pod_name, owner=owner)
    revision = {REVISION_LABEL: template_hash(template)}
    pod["metadata"]["labels"] = (pod["metadata"].get("labels") or {}) | revision
    pod["spec"] = _daemon_spec(template["spec"], node_name)
    cluster.store.create("pods", pod, now=cluster.now)


def _replace_outdated(cluster: Cluster, body: Body, pods: list[Body]) -> None:
    """Roll a changed template one node at a time."""
    revision = template_hash(body["spec"]["template"])
    outdated = [pod for pod in pods if pod["metadata"]["labels"].get(REVISION_LABEL) != revision]
    if outdated and all(is_ready(pod) and is_active(pod) for pod in pods):
        first = outdated[0]["metadata"]
        cluster.delete_pod(first["namespace"], first["name"], cause="rollout")


def _write_daemon_status(cluster: Cluster, namespace: str, name: str, wanted: int) -> None:
    body = cluster.store.get("daemonsets", namespace, name)
    if body is None:
        return
    pods = [pod for pod in cluster.index.pods_of(body["metadata"]["uid"]) if is_active(pod)]
    ready = sum(map(is_ready, pods))
    status = {
        "currentNumberScheduled": len(pods),
        "desiredNumberScheduled": wanted,
        "numberAvailable": ready,
        "numberMisscheduled": 0,
        "numberReady": ready,
        "numberUnavailable": max(0, wanted - ready),
        "updatedNumberScheduled": len(pods),
        "observedGeneration": body["metadata"].get("generation", 1),
    }
    if status != body.get("status"):
        cluster.store.put("daemonsets", body | {"status": status})
