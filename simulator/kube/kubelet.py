"""What happens to a pod on its node: starting, becoming ready, ending, and being pushed off by taints."""

from datetime import datetime, timedelta

from simulator.kube.cluster import Cluster
from simulator.kube.conditions import condition_of, with_condition
from simulator.kube.eligibility import covers
from simulator.kube.errors import Body
from simulator.kube.podindex import is_ready, is_terminating
from simulator.kube.quantities import instant, stamp

START_SECONDS = (5.0, 15.0)
STARTED_SHARE = 0.6


def reconcile_pod(cluster: Cluster, namespace: str, name: str) -> None:
    """Bring a pod to where it should be now and set the timer for its next change."""
    pod = cluster.store.get("pods", namespace, name)
    node_name = pod["spec"].get("nodeName") if pod else None
    if pod is None or not node_name:
        return
    node = cluster.store.get("nodes", "", node_name)
    if node is None:
        cluster.remove_pod(namespace, name, cause=_cause_of_loss(cluster, node_name))
    elif is_terminating(pod):
        _end(cluster, pod)
    elif not _is_pushed_off(cluster, pod, node) and not is_ready(pod):
        _start(cluster, pod, node)


def lose_pods(cluster: Cluster, node_name: str, *, cause: str) -> None:
    """Make every pod on a node unready: nothing runs there any more."""
    for pod in cluster.index.pods_on(node_name):
        if is_ready(pod):
            cluster.causes.setdefault(pod["metadata"]["uid"], cause)
            status = with_condition(pod["status"], "Ready", "False", at=cluster.now, reason="NodeNotReady")
            cluster.store.put("pods", pod | {"status": status})


def _cause_of_loss(cluster: Cluster, node_name: str) -> str:
    lost = cluster.store.get("registrations", "", node_name)
    machine = cluster.room.get(lost["instanceId"]) if lost else None
    if machine is None or machine.is_alive:
        return "node-deleted"
    return machine.termination_reason or "node-terminated"


def _start(cluster: Cluster, pod: Body, node: Body) -> None:
    ready_node = condition_of(node, "Ready")
    if not cluster.has_kubelet(node["metadata"]["name"]) or not ready_node or ready_node["status"] != "True":
        return
    metadata = pod["metadata"]
    scheduled = condition_of(pod, "PodScheduled")
    bound_at = instant(scheduled["lastTransitionTime"] if scheduled else metadata["creationTimestamp"])
    begins_at = max(bound_at, instant(ready_node["lastTransitionTime"]))
    delay = cluster.draw(START_SECONDS, "start", metadata["uid"])
    task = ("pods", metadata["namespace"], metadata["name"])
    if cluster.now >= begins_at + delay:
        cluster.store.put("pods", pod | {"status": _running(cluster, pod, node, is_ready=True)})
    elif cluster.now < begins_at + delay * STARTED_SHARE:
        cluster.after(begins_at + delay * STARTED_SHARE, task)
    else:
        cluster.after(begins_at + delay, task)
        if pod["status"].get("phase") == "Pending":
            cluster.store.put("pods", pod | {"status": _running(cluster, pod, node, is_ready=False)})


def _running(cluster: Cluster, pod: Body, node: Body, *, is_ready: bool) -> Body:
    at, word = cluster.now, "True" if is_ready else "False"
    status: Body = pod["status"] | {"phase": "Running"}
    for kind in ("PodReadyToStartContainers", "Initialized"):
        status = with_condition(status, kind, "True", at=at)
    for kind in ("ContainersReady", "Ready"):
        reason = "" if is_ready else "ContainersNotReady"
        status = with_condition(status, kind, word, at=at, reason=reason)
    started = pod["status"].get("startTime", stamp(at))
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": f"{container['image']}@sha256:{'0' * 64}",
            "ready": is_ready,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": started}},
            "lastState": {},
        }
        for container in pod["spec"]["containers"]
    ]
    address = _pod_address(pod["metadata"]["uid"])
    addresses = {"hostIP": node["status"]["addresses"][0]["address"], "podIP": address}
    lists = {"podIPs": [{"ip": address}], "containerStatuses": containers}
    return status | addresses | lists | {"startTime": started, "qosClass": _quality(pod)}


def _pod_address(uid: str) -> str:
    digits = int(uid[:8], 16)
    return f"10.{100 + digits % 100}.{digits // 100 % 256}.{digits // 25600 % 254 + 1}"


def _quality(pod: Body) -> str:
    resources = [container.get("resources") or {} for container in pod["spec"]["containers"]]
    if all(each.get("limits") and each["limits"] == each.get("requests") for each in resources):
        return "Guaranteed"
    return (
        "Burstable" if any(each.get("requests") or each.get("limits") for each in resources) else "BestEffort"
    )


def _end(cluster: Cluster, pod: Body) -> None:
    """Remove a terminating pod once its containers have stopped; a silent kubelet never confirms that."""
    metadata = pod["metadata"]
    if not cluster.has_kubelet(pod["spec"]["nodeName"]):
        return
    grace = metadata["deletionGracePeriodSeconds"]
    asked_at = instant(metadata["deletionTimestamp"]) - timedelta(seconds=grace)
    stops_at = asked_at + min(
        timedelta(seconds=grace), cluster.draw((1.0, 2.0 + grace / 2), "stop", metadata["uid"])
    )
    if pod["status"].get("phase") == "Pending" or cluster.now >= stops_at:
        cluster.remove_pod(metadata["namespace"], metadata["name"], cause="deleted")
    else:
        cluster.after(stops_at, ("pods", metadata["namespace"], metadata["name"]))


def _is_pushed_off(cluster: Cluster, pod: Body, node: Body) -> bool:
    """Whether a NoExecute taint evicts the pod now; otherwise a timer is set for when one will."""
    due = _pushed_off_at(pod, node)
    if due is None:
        return False
    metadata = pod["metadata"]
    if due > cluster.now:
        cluster.after(due, ("pods", metadata["namespace"], metadata["name"]))
        return False
    machine = cluster.machine_of(node)
    is_broken = machine is None or machine.failed_at is not None or not machine.is_alive
    cluster.record("pods", pod, "TaintManagerEviction", "Marking for deletion Pod by taint manager")
    cause = "hardware-failure" if is_broken else "no-execute-taint"
    cluster.delete_pod(metadata["namespace"], metadata["name"], cause=cause)
    return True


def _pushed_off_at(pod: Body, node: Body) -> datetime | None:
    tolerations = pod["spec"].get("tolerations") or ()
    instants = []
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] != "NoExecute":
            continue
        matching = [each for each in tolerations if covers(each, taint)]
        added = instant(taint.get("timeAdded") or node["metadata"]["creationTimestamp"])
        if not matching:
            instants.append(added)
        elif all("tolerationSeconds" in each for each in matching):
            seconds = min(each["tolerationSeconds"] for each in matching)
            instants.append(added + timedelta(seconds=seconds))
    return min(instants, default=None)
