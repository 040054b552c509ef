"""What no command may touch: fixed in this program, or excluded by the cluster's policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROTECTED_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease", "spot-optimizer"})
"""No policy, and no product that was taken over, can open these; AWS can, by taking a node."""


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What voluntary commands leave alone; ``version`` is the policy's that they come from."""

    version: int = 0
    namespaces: frozenset[str] = PROTECTED_NAMESPACES
    node_labels: Mapping[str, str] | None = None
    own_namespace: str = "spot-optimizer"
    """The agent's."""

    @classmethod
    def from_config(cls, version: int, config: Mapping[str, Any], *, own_namespace: str) -> "Exclusions":
        """Return the exclusions of a policy slice; what it does not say is not excluded."""
        named, labels = config.get("excluded_namespaces"), config.get("excluded_labels")
        namespaces = {str(each) for each in named} if isinstance(named, list) else set()
        return cls(
            version=version,
            namespaces=PROTECTED_NAMESPACES | namespaces | {own_namespace},
            node_labels={str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {},
            own_namespace=own_namespace,
        )

    def of_node(self, labels: Mapping[str, str]) -> str:
        """Return the label by which a node is excluded; empty when it is not."""
        excluded = self.node_labels or {}
        return next((f"{key}={value}" for key, value in excluded.items() if labels.get(key) == value), "")
