"""Who may do what: service-account tokens, roles and bindings, as stored in the cluster."""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

from simulator.kube.cluster import Cluster
from simulator.kube.errors import Body

AGENT_NAMESPACE, AGENT_ACCOUNT = "spot-optimizer", "spotopt-agent"
AGENT = f"system:serviceaccount:{AGENT_NAMESPACE}:{AGENT_ACCOUNT}"
RIGHTSIZING_AGENT = f"{AGENT}-rightsizing"
ADMIN = "kubernetes-admin"
VIEWER = f"system:serviceaccount:{AGENT_NAMESPACE}:viewer"
READ = ["get", "list", "watch"]
RBAC_GROUP = "rbac.authorization.k8s.io"


def _role(name: str, *rules: Body) -> tuple[str, Body]:
    return "clusterroles", {"metadata": {"name": name}, "rules": list(rules)}


def _rule(group: str, resources: list[str], verbs: list[str]) -> Body:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _binding(role: str, *accounts: str) -> tuple[str, Body]:
    subjects = [
        {"kind": "ServiceAccount", "namespace": AGENT_NAMESPACE, "name": account} for account in accounts
    ]
    reference = {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role}
    return "clusterrolebindings", {"metadata": {"name": role}, "subjects": subjects, "roleRef": reference}


READ_RULES = (
    _rule("", ["pods", "nodes", "events", "namespaces", "persistentvolumes", "persistentvolumeclaims"], READ),
    _rule("apps", ["deployments", "replicasets", "statefulsets", "daemonsets"], READ),
    _rule("policy", ["poddisruptionbudgets"], READ),
    _rule("metrics.k8s.io", ["nodes", "pods"], ["get", "list"]),
)
SYSTEM_OBJECTS: tuple[tuple[str, Body], ...] = (
    *(
        ("serviceaccounts", {"metadata": {"name": name, "namespace": AGENT_NAMESPACE}})
        for name in (AGENT_ACCOUNT, f"{AGENT_ACCOUNT}-rightsizing", "viewer")
    ),
    _role("spotopt-reader", *READ_RULES),
    _role(
        AGENT_ACCOUNT,
        _rule("", ["pods/eviction"], ["create"]),
        _rule("", ["nodes"], ["patch"]),
        _rule("karpenter.sh", ["nodepools"], ["list"]),
        _rule("coordination.k8s.io", ["leases"], ["get", "create", "update", "patch"]),
    ),
    _role(f"{AGENT_ACCOUNT}-rightsizing", _rule("apps", ["deployments", "statefulsets"], ["patch"])),
    _binding("spotopt-reader", AGENT_ACCOUNT, f"{AGENT_ACCOUNT}-rightsizing", "viewer"),
    _binding(AGENT_ACCOUNT, AGENT_ACCOUNT, f"{AGENT_ACCOUNT}-rightsizing"),
    _binding(f"{AGENT_ACCOUNT}-rightsizing", f"{AGENT_ACCOUNT}-rightsizing"),
)

KARPENTER_OBJECTS: tuple[tuple[str, Body], ...] = (
    _role(f"{AGENT_ACCOUNT}-karpenter", _rule("karpenter.sh", ["nodepools"], ["get", "create", "patch"])),
    _binding(f"{AGENT_ACCOUNT}-karpenter", AGENT_ACCOUNT),
)
"""Where Karpenter has node pools, the customer installed the agent with the right to apply them."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a request wants to do; the names that roles are written in."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str | None = None
    name: str = ""

    @property
    def path(self) -> str:
        """The resource as rules name it: `pods/eviction`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def token_of(cluster: Cluster, user: str) -> str:
    """The bearer token of a user; the same world always gives the same one."""
    secret = f"{cluster.seed}/{cluster.account_id}/{cluster.name}".encode()
    signature = hmac.new(secret, user.encode(), hashlib.sha256).hexdigest()
    return f"{user.encode().hex()}.{signature}"


def user_of(cluster: Cluster, token: str) -> str | None:
    """The user behind a token of this cluster; None for any other text."""
    try:
        user = bytes.fromhex(token.partition(".")[0]).decode()
    except ValueError:
        return None
    return user if hmac.compare_digest(token.encode(), token_of(cluster, user).encode()) else None


def may(cluster: Cluster, user: str, access: Access) -> bool:
    """Whether a role bound to the user grants the access; the administrator may do anything."""
    return user == ADMIN or any(_grants(rule, access) for rule in _rules_for(cluster, user, access.namespace))


def _grants(rule: Body, access: Access) -> bool:
    names = rule.get("resourceNames")
    return (
        _covers(rule.get("verbs"), access.verb)
        and _covers(rule.get("apiGroups"), access.group)
        and _covers(rule.get("resources"), access.path)
        and (not names or access.name in names)
    )


def _covers(allowed: list[str] | None, wanted: str) -> bool:
    return bool(allowed) and ("*" in (allowed or ()) or wanted in (allowed or ()))


def _rules_for(cluster: Cluster, user: str, namespace: str | None) -> Iterator[Body]:
    for binding in cluster.store.bodies("clusterrolebindings"):
        if _binds(binding, user):
            yield from _role_rules(cluster, binding, "")
    for (_, _), entry in cluster.store.page("rolebindings", namespace=namespace) if namespace else ():
        if _binds(entry.body, user):
            yield from _role_rules(cluster, entry.body, namespace or "")


def _binds(binding: Body, user: str) -> bool:
    return any(_names_user(subject, binding, user) for subject in binding.get("subjects") or ())


def _names_user(subject: Body, binding: Body, user: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        namespace = subject.get("namespace") or binding["metadata"].get("namespace", "")
        return user == f"system:serviceaccount:{namespace}:{subject['name']}"
    if subject["kind"] == "Group":
        return subject["name"] in {"system:authenticated", _service_account_group(user)}
    return bool(subject["name"] == user)


def _service_account_group(user: str) -> str:
    parts = user.split(":")
    return f"system:serviceaccounts:{parts[2]}" if len(parts) == 4 else ""  # noqa: PLR2004 - system:serviceaccount:ns:name


def _role_rules(cluster: Cluster, binding: Body, namespace: str) -> list[Body]:
    reference = binding["roleRef"]
    is_namespaced = reference["kind"] == "Role"
    resource = "roles" if is_namespaced else "clusterroles"
    role = cluster.store.get(resource, namespace if is_namespaced else "", reference["name"])
    rules: list[Body] = (role or {}).get("rules") or []
    return rules
