"""Read from a pod's specification what scheduling and disruption need to know."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentapi.agent.neighbours import hard_spread
from agentapi.agent.quantities import MOST, mib, millis, quantity, whole
from agentapi.protocol import Constraints, Requirement, Spread, Toleration

Body = Mapping[str, Any]
GPU = "nvidia.com/gpu"
GIVEN_TOLERATIONS = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
"""Admission gives these to every pod."""
CAPACITY_KEYS = frozenset(
    {
        "eks.amazonaws.com/capacityType",
        "karpenter.sh/capacity-type",
        "node.kubernetes.io/lifecycle",
        "spotopt.io/capacity-type",
    }
)
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT = {
    "karpenter.sh/do-not-disrupt": "true",
    "spotopt.io/do-not-disrupt": "true",
    SAFE_TO_EVICT: "false",
}
ON_DEMAND_PODS = "spotopt.io/on-demand-pods"
"""How many pods of the workload must be on on-demand capacity: ``2``, or ``50%`` of them."""
DEFAULT_SCHEDULER = "default-scheduler"
_AMOUNT = re.compile(r"\d{1,6}|(100|\d{1,2})%")
_COUNTED = frozenset({"cpu", "memory", "ephemeral-storage", GPU})
_HARD = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Request:
    """What the scheduler reserves for one pod."""

    cpu_millis: int = 0
    memory_mib: int = 0
    gpu: int = 0
    ephemeral_mib: int = 0

    def largest(self, other: "Request") -> "Request":
        """Return the larger of each resource."""
        return Request(
            max(self.cpu_millis, other.cpu_millis),
            max(self.memory_mib, other.memory_mib),
            max(self.gpu, other.gpu),
            max(self.ephemeral_mib, other.ephemeral_mib),
        )

    def __add__(self, other: "Request") -> "Request":
        return Request(
            min(MOST, self.cpu_millis + other.cpu_millis),
            min(MOST, self.memory_mib + other.memory_mib),
            min(MOST, self.gpu + other.gpu),
            min(MOST, self.ephemeral_mib + other.ephemeral_mib),
        )


def request_of(spec: Body) -> Request:
    """Return a pod's effective request: containers and sidecars together, or the largest init step."""
    running = sum((_quantities(_reserved(each)) for each in spec.get("containers") or ()), Request())
    sidecars, peak = Request(), Request()
    for each in spec.get("initContainers") or ():
        reserved = _quantities(_reserved(each))
        if each.get("restartPolicy") == "Always":
            sidecars += reserved
            peak = peak.largest(sidecars)
        else:
            peak = peak.largest(sidecars + reserved)
    return (running + sidecars).largest(peak) + _quantities(spec.get("overhead") or {})


def _reserved(container: Body) -> Mapping[str, str]:
    resources = container.get("resources") or {}
    return {**(resources.get("limits") or {}), **(resources.get("requests") or {})}


def _quantities(amounts: Mapping[str, str]) -> Request:
    return Request(
        millis(str(amounts.get("cpu", "0"))),
        mib(str(amounts.get("memory", "0"))),
        whole(str(amounts.get(GPU, "0"))),
        mib(str(amounts.get("ephemeral-storage", "0"))),
    )


def constraints_of(metadata: Body, spec: Body, *, controlled: bool) -> Constraints:
    """Return where such pods may run and how they may be disturbed.

    Zones of volumes, and what the pods ask of other pods, are added later: that takes the whole cluster.
    """
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    marks = {**labels, **annotations}
    requirements, alternatives = _node_affinity((spec.get("affinity") or {}).get("nodeAffinity") or {})
    node_selector = {str(key): str(value) for key, value in (spec.get("nodeSelector") or {}).items()}
    terms = alternatives or (requirements,)
    return Constraints(
        node_selector=node_selector,
        requirements=requirements,
        alternatives=alternatives,
        tolerations=_tolerations(spec.get("tolerations") or ()),
        spread=tuple(_spread(each) for each in hard_spread(spec)),
        on_demand=marks.get(ON_DEMAND_PODS, "") if _AMOUNT.fullmatch(marks.get(ON_DEMAND_PODS, "")) else "",
        do_not_disrupt=is_protected(annotations),
        has_local_storage=keeps_local_data(annotations, spec),
        controlled=controlled,
        spot_tolerant=_is_spot_tolerant(marks, node_selector, terms),
        grace_seconds=min(MOST, max(0, int(spec.get("terminationGracePeriodSeconds") or 0))),
        unmodelled=tuple(_unmodelled(spec, marks)),
    )


def _unmodelled(spec: Body, marks: Mapping[str, str]) -> Iterator[str]:
    """Yield what keeps the pod to certain nodes in ways that are not planned with."""
    if spec.get("schedulerName", DEFAULT_SCHEDULER) != DEFAULT_SCHEDULER:
        yield "scheduler"
    if spec.get("resourceClaims"):
        yield "resource_claims"
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    asked = {name for each in containers for name, amount in _reserved(each).items() if quantity(str(amount))}
    yield from (f"resource {name}"[:64] for name in sorted(asked - _COUNTED))
    if marks.get(ON_DEMAND_PODS) and not _AMOUNT.fullmatch(marks[ON_DEMAND_PODS]):
        yield "on_demand_pods"


def is_protected(annotations: Mapping[str, str]) -> bool:
    """Tell whether a pod asks not to be disrupted."""
    return any(annotations.get(key) == value for key, value in DO_NOT_DISRUPT.items())


def keeps_local_data(annotations: Mapping[str, str], spec: Body) -> bool:
    """Tell whether a pod would lose data with its node and does not say that this is fine."""
    if annotations.get(SAFE_TO_EVICT) == "true":
        return False
    return any("emptyDir" in volume or "hostPath" in volume for volume in spec.get("volumes") or ())


def claims_of(spec: Body) -> tuple[str, ...]:
    """Return the names of the volume claims that a pod mounts."""
    volumes = spec.get("volumes") or ()
    return tuple(
        each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each
    )


def _node_affinity(
    node_affinity: Body,
) -> tuple[tuple[Requirement, ...], tuple[tuple[Requirement, ...], ...]]:
    """Return the expressions of a single term, or the terms of which one must hold; one is always empty."""
    terms = (node_affinity.get(_HARD) or {}).get("nodeSelectorTerms") or ()
    read = tuple(_expressions(term) for term in terms)
    return (read[0], ()) if len(read) == 1 and read[0] else ((), read)


def _expressions(term: Body) -> tuple[Requirement, ...]:
    expressions = [*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())]
    return tuple(
        Requirement(each["key"], each["operator"], tuple(each.get("values") or ())) for each in expressions
    )


def _tolerations(tolerations: Iterable[Body]) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(
            key=each.get("key") or "",
            operator=each.get("operator") or "Equal",
            value=each.get("value") or "",
            effect=each.get("effect") or "",
        )
        for each in tolerations
        if each.get("key") not in GIVEN_TOLERATIONS
    )


def _spread(rule: Body) -> Spread:
    return Spread(
        topology_key=rule["topologyKey"],
        max_skew=int(rule["maxSkew"]),
        min_domains=int(rule.get("minDomains") or 0),
        honors_affinity=rule.get("nodeAffinityPolicy", "Honor") == "Honor",
        honors_taints=rule.get("nodeTaintsPolicy", "Ignore") == "Honor",
    )


def _is_spot_tolerant(
    marks: Mapping[str, str], node_selector: Mapping[str, str], terms: Iterable[tuple[Requirement, ...]]
) -> bool:
    if marks.get("spotopt.io/spot") == "false" or _is_on_demand(marks.get("spotopt.io/capacity-type", "")):
        return False
    if any(key in CAPACITY_KEYS and _is_on_demand(value) for key, value in node_selector.items()):
        return False
    return not all(any(each.key in CAPACITY_KEYS and _excludes_spot(each) for each in term) for term in terms)


def _excludes_spot(requirement: Requirement) -> bool:
    if requirement.operator == "In":
        return not any(value.lower() == "spot" for value in requirement.values)
    return requirement.operator == "NotIn" and any(value.lower() == "spot" for value in requirement.values)


def _is_on_demand(value: str) -> bool:
    return value.lower().replace("_", "-") in ("on-demand", "normal")
