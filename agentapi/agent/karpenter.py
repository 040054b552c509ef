"""Apply the two kinds of Karpenter objects that steer which nodes it launches."""

import json
from collections.abc import Mapping
from typing import Any

from agentapi.agent.kube import APPLY_PATCH, Kube, KubeError
from agentapi.agent.nodes import Failed
from agentapi.agent.workloads import NAME

FIELD_MANAGER = "spotopt"
PATHS = {
    ("karpenter.sh/v1", "NodePool"): "/apis/karpenter.sh/v1/nodepools",
    ("karpenter.k8s.aws/v1", "EC2NodeClass"): "/apis/karpenter.k8s.aws/v1/ec2nodeclasses",
}
FIELDS = {
    "NodePool": frozenset({"disruption", "limits", "template", "weight"}),
    "EC2NodeClass": frozenset(
        {
            "capacityReservationSelectorTerms",
            "detailedMonitoring",
            "instanceStorePolicy",
            "subnetSelectorTerms",
            "tags",
        }
    ),
}
"""What may be set: which nodes there are, never what they run, boot from, may reach or are allowed to do."""
LARGEST_BYTES = 64 * 1024
_NOT_FOUND, _CONFLICT, _FORBIDDEN, _INVALID = 404, 409, 403, 422
_SENTENCES = {
    _NOT_FOUND: ("karpenter_missing", "Karpenter is not installed in this cluster."),
    _CONFLICT: ("conflict", "Somebody else manages a field that the command sets"),
    _FORBIDDEN: ("forbidden", "The agent was not given the right to change Karpenter's objects."),
    _INVALID: ("invalid_object", "The API server refuses the object"),
}


class Karpenter:
    """Server-side apply under one field manager, so that nobody else's fields are taken over."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def apply(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Create the object or set the fields that the manifest names; return its name and version."""
        manifest = _manifest(payload.get("manifest"))
        path = PATHS[manifest["apiVersion"], manifest["kind"]]
        name = manifest["metadata"]["name"]
        try:
            applied = await self._kube.patch(
                f"{path}/{name}", manifest, APPLY_PATCH, fieldManager=FIELD_MANAGER, force="false"
            )
        except KubeError as error:
            if error.status not in _SENTENCES:
                raise
            code, sentence = _SENTENCES[error.status]
            said = sentence if sentence.endswith(".") else f"{sentence}: {error.message}"
            raise Failed(code, said, kind=manifest["kind"], name=name) from error
        metadata = applied["metadata"]
        return {"kind": manifest["kind"], "name": name, "resource_version": metadata["resourceVersion"]}


def _manifest(value: object) -> dict[str, Any]:
    """Return the manifest; raise Failed for any other kind, and for fields that are not ours to set."""
    if not isinstance(value, dict) or value.keys() != {"apiVersion", "kind", "metadata", "spec"}:
        raise Failed("invalid_payload", "manifest must hold apiVersion, kind, metadata and spec.")
    if (str(value["apiVersion"]), str(value["kind"])) not in PATHS:
        kinds = ", ".join(kind for _, kind in PATHS)
        raise Failed("invalid_payload", f"Only {kinds} can be applied.")
    metadata = value["metadata"]
    if not isinstance(metadata, dict) or metadata.keys() - {"name", "labels", "annotations"}:
        raise Failed("invalid_payload", "metadata may hold name, labels and annotations.")
    if not isinstance(metadata.get("name"), str) or not NAME.fullmatch(metadata["name"]):
        raise Failed("invalid_payload", "metadata.name is not a name of Kubernetes.")
    if not isinstance(value["spec"], dict) or len(json.dumps(value)) > LARGEST_BYTES:
        raise Failed("invalid_payload", f"spec must be an object of at most {LARGEST_BYTES} bytes.")
    if foreign := sorted(value["spec"].keys() - FIELDS[value["kind"]]):
        raise Failed("forbidden_field", f"No command may set {', '.join(foreign)} of a {value['kind']}.")
    return value
