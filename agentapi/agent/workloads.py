"""Change what a workload's containers ask for, and nothing else of it."""

import re
from collections.abc import Mapping
from typing import Any

from agentapi.agent.kube import STRATEGIC_PATCH, Body, Kube, KubeError
from agentapi.agent.nodes import Failed
from agentapi.agent.quantities import quantity

PLURALS = {"Deployment": "deployments", "StatefulSet": "statefulsets"}
RESOURCES = frozenset({"cpu", "memory"})
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""A name of Kubernetes: nothing that could lead a path elsewhere."""
_NOT_FOUND, _CONFLICT, _FORBIDDEN = 404, 409, 403


class Workloads:
    """Sets requests and limits of deployments and stateful sets."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def set_resources(
        self, payload: Mapping[str, Any], kept_namespaces: frozenset[str]
    ) -> dict[str, Any]:
        """Change one container as the command says and return what it asked for before and asks for now.

        Raises Failed when the container's resources are not ``before``, where the command names that; those
        that a first try has changed already are taken for done.
        """
        namespace, name = _name(payload, "namespace"), _name(payload, "name")
        container, wanted = _name(payload, "container"), _resources(payload.get("resources"))
        plural = PLURALS.get(str(payload.get("kind")))
        if plural is None:
            raise Failed("invalid_payload", f"kind must be one of {', '.join(PLURALS)}.")
        if namespace in kept_namespaces:
            raise Failed("protected_namespace", f"Namespace {namespace} is protected or excluded.")
        path = f"/apis/apps/v1/namespaces/{namespace}/{plural}/{name}"
        body = await self._read(path)
        before = _container(body, container).get("resources") or {}
        if "before" in payload and _comparable(payload["before"]) != _comparable(before):
            if _comparable(before) == _merged(_comparable(payload["before"]), _comparable(wanted)):
                return {"before": payload["before"], "after": wanted}
            raise Failed(
                "changed_meanwhile", f"{container} asks for other resources than expected.", now=before
            )
        await self._write(path, body, container, wanted)
        return {"before": before, "after": wanted}

    async def _read(self, path: str) -> Body:
        try:
            return await self._kube.get(path)
        except KubeError as error:
            if error.status == _NOT_FOUND:
                raise Failed("workload_gone", "There is no such workload.") from error
            raise

    async def _write(self, path: str, body: Body, container: str, wanted: Mapping[str, Any]) -> None:
        change = {
            "metadata": {"resourceVersion": body["metadata"]["resourceVersion"]},
            "spec": {"template": {"spec": {"containers": [{"name": container, "resources": wanted}]}}},
        }
        try:
            await self._kube.patch(path, change, STRATEGIC_PATCH)
        except KubeError as error:
            if error.status == _CONFLICT:
                raise Failed("changed_meanwhile", "The workload changed meanwhile.") from error
            if error.status == _FORBIDDEN:
                raise Failed("forbidden", "The agent was not given the right to change workloads.") from error
            raise


def _container(body: Body, name: str) -> Body:
    containers = body["spec"]["template"]["spec"].get("containers") or ()
    found: Body | None = next((each for each in containers if each["name"] == name), None)
    if found is None:
        raise Failed("container_gone", f"The workload has no container {name}.")
    return found


def _name(payload: Mapping[str, Any], field: str) -> str:
    value = payload.get(field)
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Failed("invalid_payload", f"{field} is not a name of Kubernetes.")
    return value


def _resources(value: object) -> dict[str, dict[str, str]]:
    """Return requests and limits that the API server would take."""
    if not isinstance(value, dict) or not value or value.keys() - {"requests", "limits"}:
        raise Failed("invalid_payload", "resources must hold requests, limits or both.")
    parts = {str(part): _amounts(amounts, part) for part, amounts in value.items()}
    requests, limits = parts.get("requests", {}), parts.get("limits", {})
    over = [key for key in requests.keys() & limits.keys() if quantity(requests[key]) > quantity(limits[key])]
    if over:
        raise Failed("invalid_payload", f"The request for {over[0]} is above its limit.")
    return parts


def _amounts(value: object, part: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value or value.keys() - RESOURCES:
        raise Failed("invalid_payload", f"{part} may name cpu and memory only.")
    amounts = {str(key): str(amount) for key, amount in value.items()}
    try:
        is_positive = all(quantity(amount) > 0 for amount in amounts.values())
    except ValueError as error:
        raise Failed("invalid_payload", str(error)) from error
    if not is_positive:
        raise Failed("invalid_payload", f"{part} must be above zero.")
    return amounts


def _comparable(resources: object) -> dict[str, Any]:
    """Return resources with their quantities as numbers, so that 1000m equals 1."""
    if not isinstance(resources, dict):
        raise Failed("invalid_payload", "before must hold requests, limits or both.")
    try:
        return {
            part: {key: quantity(str(amount)) for key, amount in amounts.items()}
            for part, amounts in resources.items()
            if amounts and part in ("requests", "limits")
        }
    except (ValueError, AttributeError) as error:
        raise Failed("invalid_payload", "before must hold quantities.") from error


def _merged(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a strategic merge patch with the wanted resources makes of those before."""
    return {part: before.get(part, {}) | wanted.get(part, {}) for part in before.keys() | wanted.keys()}
