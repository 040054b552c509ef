"""What the agent reads of Karpenter: its node pools, and whose hands are on the fields that we set.

They are listed with each snapshot, not watched: there are few, and where Karpenter is not installed or the
right to read is not given, a watch would have nothing to hold on to.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from agentapi.agent.kube import Body, Kube, KubeError, KubeUnreachable
from agentapi.protocol import KarpenterReport, NodePoolReport

POOLS = "/apis/karpenter.sh/v1/nodepools"
FIELD_MANAGER = "spotopt"
MANAGED = ("spotopt.io/managed", "true")
"""The label of what is ours."""
STEERS = "spotopt.io/steers"
"""Annotation of a pool of ours: the customer's pool that it stands beside."""
POOL_FIELDS = frozenset({"disruption", "limits", "template", "weight"})
"""What of a node pool may be set."""
_FORBIDDEN, _NOT_FOUND = 403, 404
_ABSENT = {_NOT_FOUND: "absent", _FORBIDDEN: "forbidden"}


async def read_karpenter(kube: Kube, before: KarpenterReport | None) -> KarpenterReport | None:
    """Return what there is of Karpenter, or what was there before while nobody can say."""
    try:
        bodies, _ = await kube.list(POOLS)
    except KubeError as error:
        return KarpenterReport(_ABSENT[error.status]) if error.status in _ABSENT else before
    except KubeUnreachable:
        return before
    pools = sorted((_pool(body) for body in bodies), key=lambda pool: pool.name)
    return KarpenterReport("running", tuple(pools))


def is_ours(body: Body) -> bool:
    """Tell whether an object carries our label."""
    name, value = MANAGED
    return bool((body["metadata"].get("labels") or {}).get(name) == value)


def _pool(body: Body) -> NodePoolReport:
    metadata, status = body["metadata"], body.get("status") or {}
    return NodePoolReport(
        name=metadata["name"],
        spec=body.get("spec") or {},
        ours=is_ours(body),
        steers=str((metadata.get("annotations") or {}).get(STEERS, "")),
        used={name: str(value) for name, value in (status.get("resources") or {}).items()},
        managers=_foreign_managers(metadata.get("managedFields") or ()),
    )


def _foreign_managers(entries: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return who else manages which of the fields that we set; what a status says is nobody's wish."""
    managers: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry["manager"] == FIELD_MANAGER or entry.get("subresource"):
            continue
        for path in (entry.get("fieldsV1") or {}).get("f:spec") or ():
            if (name := path.removeprefix("f:")) in POOL_FIELDS:
                managers[name].add(entry["manager"])
    return {name: tuple(sorted(who)) for name, who in sorted(managers.items())}
