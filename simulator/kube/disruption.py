"""Disruption budgets: their live status, and evictions that respect it."""

from typing import Any

from simulator.kube.cluster import Cluster
from simulator.kube.conditions import with_condition
from simulator.kube.errors import Body, StatusError, bad_request, cause, not_found, precondition_failed
from simulator.kube.podindex import controller_of, is_healthy, is_ready, is_terminating
from simulator.kube.quantities import whole_or_percent
from simulator.kube.selectors import matches

PASSES_FREELY = frozenset({"Succeeded", "Failed", "Pending"})
NESTED_OWNERS = {"ReplicaSet": "replicasets", "StatefulSet": "statefulsets", "Deployment": "deployments"}


def reconcile_budget(cluster: Cluster, namespace: str, name: str) -> None:
    """Count healthy pods against what the budget demands and write its status."""
    budget = cluster.store.get("poddisruptionbudgets", namespace, name)
    if budget is None:
        return
    pods = _pods_of(cluster, budget)
    healthy = sum(map(is_healthy, pods))
    expected, desired = _demand(cluster, budget["spec"], pods)
    if not cluster.enforces_budgets:  # a platform without the check: it neither counts nor refuses
        desired = 0
    allowed = max(0, healthy - desired) if expected > 0 else 0
    status: Body = {
        "observedGeneration": budget["metadata"].get("generation", 1),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "conditions": budget.get("status", {}).get("conditions") or [],
    }
    word, reason = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
    status = with_condition(status, "DisruptionAllowed", word, at=cluster.now, reason=reason)
    status["conditions"][0].setdefault("message", "")
    if status != budget.get("status"):
        cluster.store.put("poddisruptionbudgets", budget | {"status": status})


def reconcile_budgets(cluster: Cluster) -> None:
    """Write the status of every budget anew, as after a change of what the platform enforces."""
    for budget in list(cluster.store.bodies("poddisruptionbudgets")):
        reconcile_budget(cluster, budget["metadata"]["namespace"], budget["metadata"]["name"])


def _pods_of(cluster: Cluster, budget: Body) -> list[Body]:
    namespace = budget["metadata"]["namespace"]
    names = cluster.index.selected(namespace, budget["spec"].get("selector"))
    pods = (cluster.store.get("pods", namespace, name) for name in names)
    return [pod for pod in pods if pod is not None]


def _demand(cluster: Cluster, spec: Body, pods: list[Body]) -> tuple[int, int]:
    """How many pods are expected, and how many must stay healthy."""
    if isinstance(spec.get("minAvailable"), int):
        return len(pods), spec["minAvailable"]
    expected = _expected(cluster, pods)
    if "minAvailable" in spec:
        return expected, whole_or_percent(spec["minAvailable"], expected, round_up=True)
    tolerated = whole_or_percent(spec.get("maxUnavailable", 1), expected, round_up=True)
    return expected, max(0, expected - tolerated)


def _expected(cluster: Cluster, pods: list[Body]) -> int:
    """The summed scale of the controllers behind the pods; a pod without one counts for itself."""
    scales: dict[str, int] = {}
    for pod in pods:
        uid, scale = _scale_behind(cluster, pod)
        scales[uid] = scale
    return sum(scales.values())


def _scale_behind(cluster: Cluster, body: Body) -> tuple[str, int]:
    owner = controller_of(body)
    resource = NESTED_OWNERS.get(owner["kind"]) if owner else None
    if owner is None or resource is None:
        return body["metadata"]["uid"], body["spec"].get("replicas", 1)
    found = cluster.store.get(resource, body["metadata"]["namespace"], owner["name"])
    if found is None:
        return body["metadata"]["uid"], body["spec"].get("replicas", 1)
    return _scale_behind(cluster, found)


def evict(cluster: Cluster, *, namespace: str, name: str, eviction: Body, is_dry_run: bool) -> Body:
    """End a pod if its budget allows; refuse as the eviction subresource does (400, 404, 409, 429, 500)."""
    if eviction.get("metadata", {}).get("name") != name:
        raise bad_request("name in URL does not match name in Eviction object")
    pod = cluster.store.get("pods", namespace, name)
    if pod is None:
        raise not_found("pods", "", name)
    options = eviction.get("deleteOptions") or {}
    _check_preconditions(pod, options.get("preconditions") or {})
    is_free = pod["status"].get("phase") in PASSES_FREELY or is_terminating(pod)
    if not is_free and cluster.enforces_budgets:
        _check_budgets(cluster, pod)
    if not is_dry_run and not options.get("dryRun"):
        grace = options.get("gracePeriodSeconds")
        cluster.delete_pod(namespace, name, cause="eviction", grace_seconds=grace)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _check_preconditions(pod: Body, wanted: Body) -> None:
    metadata = pod["metadata"]
    for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(field) and wanted[field] != metadata[field]:
            problem = (
                f"the {label} in the precondition ({wanted[field]}) does not match the {label} in record "
                f"({metadata[field]}). The object might have been deleted and then recreated"
            )
            raise precondition_failed("pods", "", metadata["name"], problem)


def _check_budgets(cluster: Cluster, pod: Body) -> None:
    namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
    page = cluster.store.page("poddisruptionbudgets", namespace=namespace)
    budgets = [entry.body for _, entry in page if matches(entry.body["spec"].get("selector"), labels)]
    if len(budgets) > 1:
        problem = "This pod has more than one PodDisruptionBudget"
        raise StatusError(500, f"{problem}, which the eviction subresource does not support.")
    if budgets:
        _check_budget(budgets[0], pod)


def _check_budget(budget: Body, pod: Body) -> None:
    status, name = budget.get("status", {}), budget["metadata"]["name"]
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 1):
        raise _blocked(f"The disruption budget {name} is still being processed by the server.")
    healthy, desired = status["currentHealthy"], status["desiredHealthy"]
    if not is_ready(pod):
        policy = budget["spec"].get("unhealthyPodEvictionPolicy", "IfHealthyBudget")
        if policy == "AlwaysAllow" or healthy >= desired > 0:
            return
    if status["disruptionsAllowed"] == 0:
        raise _blocked(
            f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        )


def _blocked(message: str) -> StatusError:
    reason: dict[str, Any] = cause("", message, reason="DisruptionBudget")
    del reason["field"]
    text = "Cannot evict pod as it would violate the pod's disruption budget."
    return StatusError(429, text, reason="TooManyRequests", details={"causes": [reason]})
