"""Nodes follow machines: joining, readiness, heartbeats, failure, disappearance; and cordon taints."""

from datetime import timedelta
from typing import Any

from simulator.kube.cluster import Cluster
from simulator.kube.conditions import condition_of, with_condition
from simulator.kube.eligibility import NOT_READY_TAINT, UNREACHABLE_TAINT, UNSCHEDULABLE_TAINT
from simulator.kube.errors import Body
from simulator.kube.kubelet import lose_pods
from simulator.kube.quantities import instant, stamp
from simulator.machines import Machine

JOINS_BEFORE_READY = (4.0, 9.0)
SILENCE = timedelta(seconds=40)
HEARTBEAT = timedelta(minutes=5)
INTERRUPTION_TAINT = "aws-node-termination-handler/spot-itn"
REBALANCE_TAINT = "aws-node-termination-handler/rebalance-recommendation"
PRESSURES = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}


def reconcile_machine(cluster: Cluster, instance_id: str) -> None:
    """Make the node of a machine exist, be ready, be silent or be gone, as the machine is."""
    machine = cluster.room.get(instance_id)
    if machine is None or machine.cluster != cluster.name:
        return
    if machine.is_alive and machine.failed_at is None:
        _follow_living(cluster, machine)
    else:
        _follow_dying(cluster, machine)


def reconcile_node(cluster: Cluster, name: str) -> None:
    """Keep the unschedulable taint in step with a cordon."""
    node = cluster.store.get("nodes", "", name)
    if node is None:
        return
    is_cordoned = bool(node["spec"].get("unschedulable"))
    taints = node["spec"].get("taints") or []
    has_taint = any(taint["key"] == UNSCHEDULABLE_TAINT for taint in taints)
    if is_cordoned and not has_taint:
        taint = {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule", "timeAdded": stamp(cluster.now)}
        cluster.store.put("nodes", _with_taints(node, [*taints, taint]))
        cluster.record("nodes", node, "NodeNotSchedulable", f"Node {name} status is now: NodeNotSchedulable")
    elif has_taint and not is_cordoned:
        others = [taint for taint in taints if taint["key"] != UNSCHEDULABLE_TAINT]
        cluster.store.put("nodes", _with_taints(node, others))
        cluster.record("nodes", node, "NodeSchedulable", f"Node {name} status is now: NodeSchedulable")


def _with_taints(node: Body, taints: list[Body]) -> Body:
    spec = {key: value for key, value in node["spec"].items() if key != "taints"}
    return node | {"spec": spec | ({"taints": taints} if taints else {})}


def _follow_living(cluster: Cluster, machine: Machine) -> None:
    ready_at = machine.ready_at or machine.launched_at
    task = ("machines", "", machine.instance_id)
    node = cluster.store.get("nodes", "", machine.private_dns)
    if node is None:
        joins_at = ready_at - cluster.draw(JOINS_BEFORE_READY, "join", machine.instance_id)
        if cluster.store.get("registrations", "", machine.private_dns):
            return
        if cluster.now < joins_at:
            cluster.after(joins_at, task)
            return
        node = _join(cluster, machine)
    node = _mark_signals(cluster, machine, node)
    ready = condition_of(node, "Ready")
    if cluster.now < ready_at:
        cluster.after(ready_at, task)
    elif ready is None or ready["status"] != "True":
        _become_ready(cluster, node)
        cluster.after(cluster.now + HEARTBEAT, task)
    else:
        _beat(cluster, node, ready, task)


def _mark_signals(cluster: Cluster, machine: Machine, node: Body) -> Body:
    """Taint the node as AWS's termination handler does that reads the machine's metadata; return the node."""
    taints = node["spec"].get("taints") or []
    marked = {taint["key"] for taint in taints}
    signals = {INTERRUPTION_TAINT: machine.interrupted_at, REBALANCE_TAINT: machine.rebalance_at}
    fresh = [
        {"key": key, "value": machine.instance_id, "effect": "PreferNoSchedule", "timeAdded": stamp(at)}
        for key, at in signals.items()
        if at is not None and key not in marked
    ]
    return cluster.store.put("nodes", _with_taints(node, [*taints, *fresh])) if fresh else node


def _join(cluster: Cluster, machine: Machine) -> Body:
    shape = cluster.shapes.shape(machine.instance_type)
    at = stamp(cluster.now)
    not_ready = {"key": NOT_READY_TAINT, "effect": "NoSchedule", "timeAdded": at}
    name = machine.private_dns
    taints = [*machine.taints, not_ready]
    metadata = {"name": name, "labels": _labels(machine, shape.arch), "annotations": _annotations(machine)}
    spec = {"providerID": f"aws:///{machine.zone}/{machine.instance_id}", "taints": taints}
    body = {"metadata": metadata, "spec": spec, "status": _first_status(cluster, machine, shape)}
    registration = {"metadata": {"name": name}, "instanceId": machine.instance_id}
    cluster.store.create("registrations", registration, now=cluster.now)
    node = cluster.store.create("nodes", body, now=cluster.now)
    cluster.record(
        "nodes", node, "RegisteredNode", f"Node {name} event: Registered Node {name} in Controller"
    )
    return node


def _labels(machine: Machine, arch: str) -> dict[str, str]:
    """What the kubelet and the cloud controller set, and what the machine's user data adds."""
    return {
        "beta.kubernetes.io/arch": arch,
        "beta.kubernetes.io/instance-type": machine.instance_type,
        "beta.kubernetes.io/os": "linux",
        "failure-domain.beta.kubernetes.io/region": machine.region,
        "failure-domain.beta.kubernetes.io/zone": machine.zone,
        "k8s.io/cloud-provider-aws": "f" * 32,
        "kubernetes.io/arch": arch,
        "kubernetes.io/hostname": machine.private_dns,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": machine.instance_type,
        "topology.ebs.csi.aws.com/zone": machine.zone,
        "topology.k8s.aws/zone-id": machine.zone_id,
        "topology.kubernetes.io/region": machine.region,
        "topology.kubernetes.io/zone": machine.zone,
    } | machine.labels


def _annotations(machine: Machine) -> dict[str, str]:
    return {
        "csi.volume.kubernetes.io/nodeid": f'{{"ebs.csi.aws.com":"{machine.instance_id}"}}',
        "node.alpha.kubernetes.io/ttl": "0",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }


def _first_status(cluster: Cluster, machine: Machine, shape: Any) -> Body:
    at = stamp(cluster.now)
    times = {"lastHeartbeatTime": at, "lastTransitionTime": at}
    conditions = [
        {"type": kind, "status": "False", **times, "reason": reason, "message": message}
        for kind, (reason, message) in PRESSURES.items()
    ]
    not_ready = {"reason": "KubeletNotReady", "message": "container runtime network not ready"}
    conditions.append({"type": "Ready", "status": "False", **times, **not_ready})
    disk = {"ephemeral-storage": "83873772Ki", "hugepages-2Mi": "0", "pods": str(shape.max_pods)}
    kubelet = f"v{cluster.k8s_version}.0-eks-1a2b3c4"
    return {
        "capacity": {"cpu": str(shape.vcpu), "memory": f"{shape.memory_mib * 1024}Ki", **disk},
        "allocatable": {
            "cpu": f"{shape.allocatable_cpu_millis}m",
            "memory": f"{shape.allocatable_memory_mib * 1024}Ki",
            **disk,
        },
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": _address(machine.private_dns)},
            {"type": "InternalDNS", "address": machine.private_dns},
            {"type": "Hostname", "address": machine.private_dns},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": machine.instance_id.removeprefix("i-"),
            "systemUUID": machine.instance_id.removeprefix("i-"),
            "bootID": machine.instance_id.removeprefix("i-"),
            "kernelVersion": "6.12.40-63.114.amzn2023.x86_64",
            "osImage": "Amazon Linux 2023",
            "containerRuntimeVersion": "containerd://2.1.4",
            "kubeletVersion": kubelet,
            "kubeProxyVersion": kubelet,
            "operatingSystem": "linux",
            "architecture": shape.arch,
        },
    }


def _address(private_dns: str) -> str:
    return private_dns.split(".", 1)[0].removeprefix("ip-").replace("-", ".")


def _become_ready(cluster: Cluster, node: Body) -> None:
    taints = [taint for taint in node["spec"].get("taints") or () if taint["key"] != NOT_READY_TAINT]
    message = "kubelet is posting ready status"
    status = with_condition(
        node["status"], "Ready", "True", at=cluster.now, reason="KubeletReady", message=message
    )
    cluster.store.put("nodes", _with_taints(node, taints) | {"status": status})
    name = node["metadata"]["name"]
    cluster.record("nodes", node, "NodeReady", f"Node {name} status is now: NodeReady")


def _beat(cluster: Cluster, node: Body, ready: Body, task: tuple[str, str, str]) -> None:
    next_at = instant(ready["lastHeartbeatTime"]) + HEARTBEAT
    if cluster.now >= next_at:
        at = stamp(cluster.now)
        conditions = [each | {"lastHeartbeatTime": at} for each in node["status"]["conditions"]]
        cluster.store.put("nodes", node | {"status": node["status"] | {"conditions": conditions}})
        next_at = cluster.now + HEARTBEAT
    cluster.after(next_at, task)


def _follow_dying(cluster: Cluster, machine: Machine) -> None:
    node = cluster.store.get("nodes", "", machine.private_dns)
    if machine.state == "terminated":
        if node is not None:
            _disappear(cluster, node)
        if cluster.store.get("registrations", "", machine.private_dns):
            cluster.store.remove("registrations", "", machine.private_dns)
        return
    if node is None:
        return
    if machine.state == "shutting-down":
        _fall_silent(cluster, node, cause=machine.termination_reason or "node-terminated")
    elif machine.failed_at and cluster.now < machine.failed_at + SILENCE:
        cluster.after(machine.failed_at + SILENCE, ("machines", "", machine.instance_id))
    else:
        _fall_silent(cluster, node, cause="hardware-failure")


def _disappear(cluster: Cluster, node: Body) -> None:
    name = node["metadata"]["name"]
    cluster.record("nodes", node, "RemovingNode", f"Node {name} event: Removing Node {name} from Controller")
    cluster.store.remove("nodes", "", name)
    machine = cluster.machine_of(node)
    cause = (machine.termination_reason if machine else "") or "node-terminated"
    for pod in cluster.index.pods_on(name):
        cluster.remove_pod(pod["metadata"]["namespace"], pod["metadata"]["name"], cause=cause)


def _fall_silent(cluster: Cluster, node: Body, *, cause: str) -> None:
    ready = condition_of(node, "Ready")
    if ready is not None and ready["status"] == "Unknown":
        return
    at = stamp(cluster.now)
    added = [
        {"key": UNREACHABLE_TAINT, "effect": effect, "timeAdded": at}
        for effect in ("NoSchedule", "NoExecute")
    ]
    taints = [taint for taint in node["spec"].get("taints") or () if taint["key"] != NOT_READY_TAINT]
    message = "Kubelet stopped posting node status."
    status = with_condition(
        node["status"], "Ready", "Unknown", at=cluster.now, reason="NodeStatusUnknown", message=message
    )
    name = node["metadata"]["name"]
    cluster.store.put("nodes", _with_taints(node, [*taints, *added]) | {"status": status})
    cluster.record("nodes", node, "NodeNotReady", f"Node {name} status is now: NodeNotReady", is_warning=True)
    lose_pods(cluster, name, cause=cause)
