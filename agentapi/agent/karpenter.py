"""Apply the two kinds of Karpenter objects that steer which nodes it launches."""

import json
from collections.abc import Mapping
from typing import Any

from agentapi.agent.kube import APPLY_PATCH, Body, Kube, KubeError
from agentapi.agent.nodepools import FIELD_MANAGER, MANAGED, POOL_FIELDS, POOLS, STEERS, is_ours
from agentapi.agent.nodes import Failed
from agentapi.agent.workloads import NAME

PATHS = {
    ("karpenter.sh/v1", "NodePool"): POOLS,
    ("karpenter.k8s.aws/v1", "EC2NodeClass"): "/apis/karpenter.k8s.aws/v1/ec2nodeclasses",
}
FIELDS = {
    "NodePool": POOL_FIELDS,
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
TEMPLATE_FIELDS = frozenset({"metadata", "spec"})
NODE_FIELDS = frozenset(
    {"expireAfter", "nodeClassRef", "requirements", "startupTaints", "taints", "terminationGracePeriod"}
)
"""What of a pool's nodes may be set; what they run and boot from is in the EC2NodeClass that they name."""
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
        """Create the object or set the fields that the manifest names; return its name and version.

        Raises Failed for an object that is there and is not ours, and for nodes of a class that the
        customer's pool beside it does not name.
        """
        manifest = _manifest(payload.get("manifest"))
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        path = PATHS[manifest["apiVersion"], kind]
        try:
            await self._refuse_foreign(path, manifest)
            applied = await self._kube.patch(
                f"{path}/{name}", manifest, APPLY_PATCH, fieldManager=FIELD_MANAGER, force="false"
            )
        except KubeError as error:
            if error.status not in _SENTENCES:
                raise
            code, sentence = _SENTENCES[error.status]
            said = sentence if sentence.endswith(".") else f"{sentence}: {error.message}"
            raise Failed(code, said, kind=kind, name=name) from error
        return {"kind": kind, "name": name, "resource_version": applied["metadata"]["resourceVersion"]}

    async def _refuse_foreign(self, path: str, manifest: Mapping[str, Any]) -> None:
        name = manifest["metadata"]["name"]
        there = await self._find(f"{path}/{name}")
        if there is not None and not is_ours(there):
            raise Failed("not_ours", f"{manifest['kind']} {name} is not labelled {'='.join(MANAGED)}.")
        if manifest["kind"] == "NodePool":
            await self._refuse_other_class(manifest, there)

    async def _refuse_other_class(self, manifest: Mapping[str, Any], there: Body | None) -> None:
        """Let the pool name only the class that the customer's pool beside it names, or the one it has."""
        steered = str((manifest["metadata"].get("annotations") or {}).get(STEERS, ""))
        if not NAME.fullmatch(steered):
            raise Failed("invalid_payload", f"The pool has no annotation {STEERS}.")
        model = await self._find(f"{POOLS}/{steered}")
        models = [there] if model is None or is_ours(model) else [there, model]
        if _class_of(manifest) not in [_class_of(each) for each in models if each is not None]:
            raise Failed("other_class", f"The pool names no class of nodes that {steered} names.")

    async def _find(self, path: str) -> Body | None:
        try:
            return await self._kube.get(path)
        except KubeError as error:
            if error.status != _NOT_FOUND:
                raise
            return None


def _class_of(pool: Mapping[str, Any]) -> object:
    return pool["spec"]["template"]["spec"]["nodeClassRef"]


def _manifest(value: object) -> dict[str, Any]:
    """Return the manifest; raise Failed for any other kind, and for fields that are not ours to set."""
    if not isinstance(value, dict) or value.keys() != {"apiVersion", "kind", "metadata", "spec"}:
        raise Failed("invalid_payload", "manifest must hold apiVersion, kind, metadata and spec.")
    if (str(value["apiVersion"]), str(value["kind"])) not in PATHS:
        kinds = ", ".join(kind for _, kind in PATHS)
        raise Failed("invalid_payload", f"Only {kinds} can be applied.")
    _check_metadata(value["metadata"])
    if not isinstance(value["spec"], dict) or len(json.dumps(value)) > LARGEST_BYTES:
        raise Failed("invalid_payload", f"spec must be an object of at most {LARGEST_BYTES} bytes.")
    _allow(value["spec"], FIELDS[value["kind"]], value["kind"])
    if value["kind"] == "NodePool":
        _check_template(value["spec"].get("template"))
    return value


def _check_template(template: Any) -> None:
    _allow(template, TEMPLATE_FIELDS, "NodePool's template")
    _allow(template.get("metadata", {}), frozenset({"annotations", "labels"}), "NodePool's nodes' metadata")
    _allow(template.get("spec"), NODE_FIELDS, "NodePool's nodes")
    if "nodeClassRef" not in template["spec"]:
        raise Failed("invalid_payload", "The pool names no class of nodes.")


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or metadata.keys() - {"name", "labels", "annotations"}:
        raise Failed("invalid_payload", "metadata may hold name, labels and annotations.")
    if not isinstance(metadata.get("name"), str) or not NAME.fullmatch(metadata["name"]):
        raise Failed("invalid_payload", "metadata.name is not a name of Kubernetes.")
    if not all(isinstance(metadata.get(part, {}), dict) for part in ("labels", "annotations")):
        raise Failed("invalid_payload", "labels and annotations must be objects.")
    if not is_ours({"metadata": metadata}):
        raise Failed("invalid_payload", f"Only what is labelled {'='.join(MANAGED)} can be applied.")


def _allow(part: object, fields: frozenset[str], what: str) -> None:
    if not isinstance(part, dict):
        raise Failed("invalid_payload", f"A {what} must be an object.")
    if foreign := sorted(part.keys() - fields):
        raise Failed("forbidden_field", f"No command may set {', '.join(foreign)} of a {what}.")
