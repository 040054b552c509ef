"""Which nodes a pod may use for reasons other than room: labels, affinity, taints."""

from collections.abc import Iterable

from simulator.kube.errors import Body
from simulator.kube.selectors import holds

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
NOT_READY_TAINT = "node.kubernetes.io/not-ready"
UNREACHABLE_TAINT = "node.kubernetes.io/unreachable"


def tolerates(tolerations: Iterable[Body], taint: Body) -> bool:
    """Whether one toleration covers the taint."""
    return any(covers(toleration, taint) for toleration in tolerations)


def covers(toleration: Body, taint: Body) -> bool:
    """Whether this toleration matches the taint's key, value and effect."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def blocking_taint(pod: Body, node: Body) -> Body | None:
    """The first NoSchedule or NoExecute taint that the pod does not tolerate."""
    tolerations = pod["spec"].get("tolerations") or ()
    taints = node["spec"].get("taints") or ()
    hard = (taint for taint in taints if taint["effect"] in {"NoSchedule", "NoExecute"})
    return next((taint for taint in hard if not tolerates(tolerations, taint)), None)


def soft_taints(pod: Body, node: Body) -> int:
    """How many PreferNoSchedule taints the pod does not tolerate."""
    tolerations = pod["spec"].get("tolerations") or ()
    taints = node["spec"].get("taints") or ()
    soft = [taint for taint in taints if taint["effect"] == "PreferNoSchedule"]
    return sum(not tolerates(tolerations, taint) for taint in soft)


def is_cordoned(pod: Body, node: Body) -> bool:
    """Whether the node is unschedulable and the pod does not tolerate that."""
    if not node["spec"].get("unschedulable"):
        return False
    taint = {"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}
    return not tolerates(pod["spec"].get("tolerations") or (), taint)


def selects_node(pod: Body, node: Body) -> bool:
    """Whether the pod's nodeSelector and required node affinity accept the node."""
    labels = node["metadata"].get("labels") or {}
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    required = _node_affinity(pod).get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_term_accepts(term, node) for term in required.get("nodeSelectorTerms") or ())


def preference(pod: Body, node: Body) -> int:
    """The summed weight of the preferred node affinity terms that the node satisfies."""
    terms = _node_affinity(pod).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return sum(term["weight"] for term in terms if _term_accepts(term["preference"], node))


def pinned_node(pod: Body) -> str | None:
    """The one node name that required affinity fields demand (daemon pods), if any."""
    required = _node_affinity(pod).get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or ()
    fields = [field for term in terms for field in term.get("matchFields") or ()]
    names = [field["values"][0] for field in fields if field["key"] == "metadata.name"]
    return names[0] if len(names) == 1 == len(terms) else None


def _node_affinity(pod: Body) -> Body:
    affinity: Body = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    return affinity


def _term_accepts(term: Body, node: Body) -> bool:
    labels = node["metadata"].get("labels") or {}
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    names = {"metadata.name": node["metadata"]["name"]}
    return all(holds(each, labels) for each in expressions) and all(holds(each, names) for each in fields)
