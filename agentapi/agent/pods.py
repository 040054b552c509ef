"""What a pod's own object says about moving it."""

from agentapi.agent.facts import MIRROR
from agentapi.agent.kube import Body
from agentapi.agent.shapes import is_protected, keeps_local_data


def name_of(pod: Body) -> str:
    """Return ``namespace/name``."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def path_of(pod: Body) -> str:
    """Return the pod's path at the API server."""
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def is_leaving(pod: Body) -> bool:
    """Tell whether the pod was deleted and only has its grace left."""
    return "deletionTimestamp" in pod["metadata"]


def grace_of(pod: Body) -> int:
    """Return the seconds that the pod asks for between the request to end and its kill."""
    return int(pod["spec"].get("terminationGracePeriodSeconds", 30))


def priority_of(pod: Body) -> int:
    """Return the pod's scheduling priority."""
    return int(pod["spec"].get("priority") or 0)


def stays(pod: Body) -> bool:
    """Tell whether a drain leaves the pod alone: it is finished, or it lives and dies with its node."""
    metadata = pod["metadata"]
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    owners = metadata.get("ownerReferences") or ()
    is_daemon = any(each.get("controller") and each["kind"] == "DaemonSet" for each in owners)
    return is_daemon or MIRROR in (metadata.get("annotations") or {})


def objection(
    pod: Body, *, namespaces: frozenset[str], allow_local_data_loss: bool
) -> tuple[str, str] | None:
    """Return a code and a sentence when the pod must not be moved without need, else None."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    if metadata["namespace"] in namespaces:
        return "protected_namespace", f"Pod {name_of(pod)} runs in a protected or excluded namespace."
    if is_protected(annotations):
        return "do_not_disrupt", f"Pod {name_of(pod)} asks not to be disrupted."
    if not any(each.get("controller") for each in metadata.get("ownerReferences") or ()):
        return "bare_pod", f"Nothing would start pod {name_of(pod)} again."
    if keeps_local_data(annotations, pod["spec"]) and not allow_local_data_loss:
        return "local_storage", f"Pod {name_of(pod)} keeps data on the node."
    return None
