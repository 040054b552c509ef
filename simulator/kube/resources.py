"""The resources that the API serves, and the discovery documents that announce them."""

from dataclasses import dataclass

from simulator.kube.errors import Body

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object and where it lives."""

    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool = True
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS

    @property
    def group_version(self) -> str:
        """`apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


RBAC = ("rbac.authorization.k8s.io", "v1")
READ_ONLY = ("get", "list")
RESOURCES = (
    Resource("", "v1", "namespaces", "Namespace", False, ("ns",), ("status",)),
    Resource("", "v1", "nodes", "Node", False, ("no",), ("status",)),
    Resource("", "v1", "pods", "Pod", True, ("po",), ("status", "eviction")),
    Resource("", "v1", "events", "Event", True, ("ev",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "configmaps", "ConfigMap", True, ("cm",)),
    Resource("", "v1", "services", "Service", True, ("svc",)),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",), ("token",)),
    Resource("", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",)),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",)),
    Resource("apps", "v1", "deployments", "Deployment", True, ("deploy",), ("status", "scale")),
    Resource("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), ("status", "scale")),
    Resource("apps", "v1", "statefulsets", "StatefulSet", True, ("sts",), ("status", "scale")),
    Resource("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), ("status",)),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), ("status",)),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",)),
    Resource("karpenter.sh", "v1", "nodepools", "NodePool", False),
    Resource("karpenter.sh", "v1", "nodeclaims", "NodeClaim", False),
    Resource("karpenter.k8s.aws", "v1", "ec2nodeclasses", "EC2NodeClass", False, ("ec2nc",)),
    Resource(*RBAC, "clusterroles", "ClusterRole", False),
    Resource(*RBAC, "clusterrolebindings", "ClusterRoleBinding", False),
    Resource(*RBAC, "roles", "Role"),
    Resource(*RBAC, "rolebindings", "RoleBinding"),
    Resource("metrics.k8s.io", "v1beta1", "nodes", "NodeMetrics", False, verbs=READ_ONLY),
    Resource("metrics.k8s.io", "v1beta1", "pods", "PodMetrics", verbs=READ_ONLY),
)
BY_PATH = {(each.group, each.version, each.plural): each for each in RESOURCES}
GROUPS = tuple(dict.fromkeys((each.group, each.version) for each in RESOURCES if each.group))


def group_list() -> Body:
    """The answer of `/apis`."""
    groups = [group_document(group, version) for group, version in GROUPS]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group_document(group: str, version: str) -> Body:
    """The answer of `/apis/<group>`."""
    preferred = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [preferred], "preferredVersion": preferred}


def core_versions() -> Body:
    """The answer of `/api`."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def resource_list(group: str, version: str) -> Body:
    """The answer of `/api/v1` and `/apis/<group>/<version>`."""
    found = [each for each in RESOURCES if (each.group, each.version) == (group, version)]
    described = [entry for each in found for entry in _described(each)]
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": described}


def _described(resource: Resource) -> list[Body]:
    main: Body = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.is_namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        main["shortNames"] = list(resource.short_names)
    entries = [main]
    for name in resource.subresources:
        kind = {"eviction": "Eviction", "scale": "Scale", "token": "TokenRequest"}.get(name, resource.kind)
        verbs = ["create"] if name in {"eviction", "token"} else ["get", "patch", "update"]
        entry: Body = {"name": f"{resource.plural}/{name}", "singularName": "", "kind": kind, "verbs": verbs}
        entries.append(entry | {"namespaced": resource.is_namespaced})
    return entries
