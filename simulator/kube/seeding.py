"""Turn a cluster of the starting fleet into Kubernetes objects."""

from collections.abc import Iterable

from simulator import fleet
from simulator.kube.cluster import Cluster
from simulator.kube.errors import Body
from simulator.kube.nodeview import HOST, ZONE
from simulator.kube.rbac import KARPENTER_OBJECTS, SYSTEM_OBJECTS

PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease", "spot-optimizer")
UNREACHABLE_SECONDS = 300
CAPACITY_TYPE = "eks.amazonaws.com/capacityType"


def seed(
    cluster: Cluster, workloads: Iterable[fleet.Workload], node_pools: Iterable[fleet.NodePool] = ()
) -> None:
    """Create namespaces, roles, budgets, workloads and node pools, all at the cluster's present instant."""
    workloads, node_pools = list(workloads), list(node_pools)
    for name in dict.fromkeys([*SYSTEM_NAMESPACES, *(each.namespace for each in workloads)]):
        labels = {"kubernetes.io/metadata.name": name}
        body: Body = {"metadata": {"name": name, "labels": labels}, "spec": {"finalizers": ["kubernetes"]}}
        cluster.store.create("namespaces", body | {"status": {"phase": "Active"}}, now=cluster.now)
    for resource, system_object in (*SYSTEM_OBJECTS, *(KARPENTER_OBJECTS if node_pools else ())):
        cluster.store.create(resource, system_object, now=cluster.now)
    for name, value in PRIORITIES.items():
        cluster.store.create("priorityclasses", {"metadata": {"name": name}, "value": value}, now=cluster.now)
    for workload in workloads:
        _create(cluster, workload)
    for pool in node_pools:
        cluster.store.create("nodepools", _node_pool(pool), now=cluster.now)


def labels_of(workload: fleet.Workload) -> dict[str, str]:
    """The labels by which the workload's controller and budget select its pods."""
    return {"app.kubernetes.io/name": workload.name} | workload.labels


def _create(cluster: Cluster, workload: fleet.Workload) -> None:
    metadata = {"name": workload.name, "namespace": workload.namespace, "labels": labels_of(workload)}
    if workload.kind == "Pod":
        pod = {"metadata": metadata | {"annotations": workload.annotations}, "spec": _pod_spec(workload)}
        cluster.store.create("pods", pod | {"status": {"phase": "Pending"}}, now=cluster.now)
        return
    resource = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}[
        workload.kind
    ]
    body = {"metadata": metadata | {"generation": 1}, "spec": _controller_spec(workload), "status": {}}
    cluster.store.create(resource, body, now=cluster.now)
    if workload.budget:
        cluster.store.create("poddisruptionbudgets", _budget(workload, metadata), now=cluster.now)


def _node_pool(pool: fleet.NodePool) -> Body:
    requirements = {
        "karpenter.sh/capacity-type": pool.capacity_types,
        "karpenter.k8s.aws/instance-family": pool.families,
    }
    template = {
        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
        "requirements": [
            {"key": key, "operator": "In", "values": list(values)} for key, values in requirements.items()
        ],
        "expireAfter": "720h",
    }
    disruption = {
        "consolidationPolicy": "WhenEmptyOrUnderutilized",
        "consolidateAfter": pool.consolidate_after,
        "budgets": [{"nodes": "10%"}],
    }
    spec: Body = {
        "template": {"spec": template}, "limits": {"cpu": pool.cpu_limit}, "disruption": disruption,
    }  # fmt: skip
    return {"metadata": {"name": pool.name}, "spec": spec | ({"weight": pool.weight} if pool.weight else {})}


def _budget(workload: fleet.Workload, metadata: Body) -> Body:
    budget = workload.budget or fleet.Budget()
    limits = {"minAvailable": budget.min_available, "maxUnavailable": budget.max_unavailable}
    spec = {key: value for key, value in limits.items() if value is not None}
    selector = {"matchLabels": labels_of(workload)}
    return {"metadata": metadata | {"generation": 1}, "spec": spec | {"selector": selector}, "status": {}}


def _controller_spec(workload: fleet.Workload) -> Body:
    labels = labels_of(workload)
    template_metadata: Body = {"labels": labels}
    if workload.annotations:
        template_metadata["annotations"] = workload.annotations
    template = {"metadata": template_metadata, "spec": _pod_spec(workload)}
    spec: Body = {"selector": {"matchLabels": labels}, "template": template, "revisionHistoryLimit": 10}
    if workload.kind == "Deployment":
        rolling = {"maxUnavailable": "25%", "maxSurge": "25%"}
        spec |= {"replicas": workload.replicas, "progressDeadlineSeconds": 600}
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    elif workload.kind == "StatefulSet":
        spec |= {"replicas": workload.replicas, "serviceName": workload.name}
        spec |= {"podManagementPolicy": "OrderedReady", "updateStrategy": {"type": "RollingUpdate"}}
        if workload.volume_gib:
            spec["volumeClaimTemplates"] = [_claim_template(workload)]
    else:
        spec["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    return spec


def _claim_template(workload: fleet.Workload) -> Body:
    requests = {"storage": f"{workload.volume_gib}Gi"}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": requests}, "storageClassName": "gp3"}
    return {"metadata": {"name": "data", "labels": labels_of(workload)}, "spec": spec}


def _pod_spec(workload: fleet.Workload) -> Body:
    requests = {"cpu": f"{workload.cpu_millis}m", "memory": f"{workload.memory_mib}Mi"}
    container: Body = {
        "name": workload.name,
        "image": f"registry.acme.example/{workload.namespace}/{workload.name}:1.4.2",
        "resources": {"requests": requests, "limits": {"memory": requests["memory"]}},
        "imagePullPolicy": "IfNotPresent",
    }
    spec: Body = {
        "containers": [container],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": workload.grace_seconds,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "serviceAccountName": "default",
        "tolerations": [*workload.tolerations, *default_tolerations()],
    }
    if workload.node_selector:
        spec["nodeSelector"] = workload.node_selector
    if workload.priority_class:
        spec |= {
            "priorityClassName": workload.priority_class,
            "priority": PRIORITIES[workload.priority_class],
        }
    if workload.empty_dir:
        spec["volumes"] = [{"name": "scratch", "emptyDir": {}}]
        container["volumeMounts"] = [{"name": "scratch", "mountPath": "/scratch"}]
    if workload.spread_zones:
        spec["topologySpreadConstraints"] = [_zone_spread(workload)]
    affinity = _affinity(workload)
    return spec | ({"affinity": affinity} if affinity else {})


def default_tolerations() -> list[Body]:
    """What admission gives every pod: five minutes on a node that is not ready or unreachable."""
    return [
        {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": UNREACHABLE_SECONDS,
        }
        for key in ("not-ready", "unreachable")
    ]


def _zone_spread(workload: fleet.Workload) -> Body:
    return {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels_of(workload)},
    }


def _affinity(workload: fleet.Workload) -> Body:
    affinity: Body = {}
    if workload.on_demand_only:
        expression = {"key": CAPACITY_TYPE, "operator": "In", "values": ["ON_DEMAND"]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
        affinity["nodeAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    if workload.spread_hosts:
        term = {"labelSelector": {"matchLabels": labels_of(workload)}, "topologyKey": HOST}
        affinity["podAntiAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return affinity
