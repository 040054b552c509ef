"""Disks that live in one zone: claims are bound where their first pod lands and pin it there."""

from simulator.kube.cluster import Cluster
from simulator.kube.errors import Body
from simulator.kube.nodeview import ZONE


def claims_of(pod: Body) -> list[str]:
    """The names of the PersistentVolumeClaims that a pod mounts."""
    volumes = pod["spec"].get("volumes") or ()
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]


def zones_allowed(cluster: Cluster, pod: Body) -> set[str] | None:
    """The zones in which all of the pod's bound disks are; None when no disk pins it."""
    allowed: set[str] | None = None
    for name in claims_of(pod):
        claim = cluster.store.get("persistentvolumeclaims", pod["metadata"]["namespace"], name)
        if claim is None:
            return set()
        volume = cluster.store.get("persistentvolumes", "", claim["spec"].get("volumeName", ""))
        zone = volume["metadata"]["labels"].get(ZONE) if volume else None
        if zone:
            allowed = {zone} if allowed is None else allowed & {zone}
    return allowed


def bind_volumes(cluster: Cluster, pod: Body, node: Body) -> None:
    """Make a disk in the node's zone for each claim of the pod that has none."""
    namespace = pod["metadata"]["namespace"]
    zone = node["metadata"]["labels"].get(ZONE, "")
    for name in claims_of(pod):
        claim = cluster.store.get("persistentvolumeclaims", namespace, name)
        if claim and not claim["spec"].get("volumeName"):
            volume = _create_volume(cluster, claim, zone)
            spec = claim["spec"] | {"volumeName": volume["metadata"]["name"]}
            capacity = claim["spec"]["resources"]["requests"]
            status = {"phase": "Bound", "capacity": capacity, "accessModes": claim["spec"]["accessModes"]}
            cluster.store.put("persistentvolumeclaims", claim | {"spec": spec, "status": status})


def _create_volume(cluster: Cluster, claim: Body, zone: str) -> Body:
    metadata = claim["metadata"]
    reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "name": metadata["name"]}
    reference |= {"namespace": metadata["namespace"], "uid": metadata["uid"]}
    term = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]}
    body = {
        "metadata": {"name": f"pvc-{metadata['uid']}", "labels": {ZONE: zone}},
        "spec": {
            "capacity": claim["spec"]["resources"]["requests"],
            "accessModes": claim["spec"]["accessModes"],
            "claimRef": reference,
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": claim["spec"].get("storageClassName", "gp3"),
            "csi": {
                "driver": "ebs.csi.aws.com",
                "volumeHandle": f"vol-{metadata['uid'].replace('-', '')[:17]}",
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
        "status": {"phase": "Bound"},
    }
    return cluster.store.create("persistentvolumes", body, now=cluster.now)
