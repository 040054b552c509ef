"""Read from a pod's specification what scheduling and disruption need to know."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agentapi.agent.labels import selects
from agentapi.agent.quantities import mib, millis
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
_HARD = "requiredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Request:
    """What the scheduler reserves for one pod."""

    cpu_millis: int = 0
    memory_mib: int = 0
    gpu: int = 0

    def largest(self, other: "Request") -> "Request":
        """Return the larger of each resource."""
        return Request(
            max(self.cpu_millis, other.cpu_millis),
            max(self.memory_mib, other.memory_mib),
            max(self.gpu, other.gpu),
        )

    def __add__(self, other: "Request") -> "Request":
        return Request(
            self.cpu_millis + other.cpu_millis, self.memory_mib + other.memory_mib, self.gpu + other.gpu
        )


def request_of(spec: Body) -> Request:
    """Return a pod's effective request: containers and sidecars together, or the largest init step."""
    running = sum((_reserved(each) for each in spec.get("containers") or ()), Request())
    sidecars, peak = Request(), Request()
    for each in spec.get("initContainers") or ():
        reserved = _reserved(each)
        if each.get("restartPolicy") == "Always":
            sidecars += reserved
            peak = peak.largest(sidecars)
        else:
            peak = peak.largest(sidecars + reserved)
    return (running + sidecars).largest(peak) + _quantities(spec.get("overhead") or {})


def _reserved(container: Body) -> Request:
    resources = container.get("resources") or {}
    return _quantities({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _quantities(amounts: Mapping[str, str]) -> Request:
    return Request(
        millis(str(amounts.get("cpu", "0"))),
        mib(str(amounts.get("memory", "0"))),
        int(str(amounts.get(GPU, "0"))),
    )


def constraints_of(metadata: Body, spec: Body, *, controlled: bool) -> Constraints:
    """Return where such pods may run and how they may be disturbed; zones of volumes are added later."""
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    affinity = spec.get("affinity") or {}
    requirements = _requirements(affinity.get("nodeAffinity") or {})
    own_keys, is_foreign = _anti_affinity(affinity.get("podAntiAffinity") or {}, labels)
    unmodelled = ["foreign_anti_affinity"] * is_foreign
    if (affinity.get("podAffinity") or {}).get(_HARD):
        unmodelled.append("pod_affinity")
    node_selector = {str(key): str(value) for key, value in (spec.get("nodeSelector") or {}).items()}
    return Constraints(
        node_selector=node_selector,
        requirements=requirements,
        tolerations=_tolerations(spec.get("tolerations") or ()),
        spread=_spread(spec.get("topologySpreadConstraints") or ()),
        anti_affinity_keys=own_keys,
        do_not_disrupt=is_protected(annotations),
        has_local_storage=keeps_local_data(annotations, spec),
        controlled=controlled,
        spot_tolerant=_is_spot_tolerant({**labels, **annotations}, node_selector, requirements),
        grace_seconds=max(0, int(spec.get("terminationGracePeriodSeconds") or 0)),
        unmodelled=tuple(unmodelled),
    )


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


def _requirements(node_affinity: Body) -> tuple[Requirement, ...]:
    terms = (node_affinity.get(_HARD) or {}).get("nodeSelectorTerms") or ()
    if not terms:
        return ()
    first = terms[0]
    expressions = [*(first.get("matchExpressions") or ()), *(first.get("matchFields") or ())]
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


def _spread(rules: Iterable[Body]) -> tuple[Spread, ...]:
    return tuple(
        Spread(each["topologyKey"], int(each["maxSkew"]))
        for each in rules
        if each.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"
    )


def _anti_affinity(anti_affinity: Body, labels: Mapping[str, str]) -> tuple[tuple[str, ...], bool]:
    """Return the keys on which a pod keeps away from its own kind, and whether it also does from others."""
    terms = anti_affinity.get(_HARD) or ()
    own = [each["topologyKey"] for each in terms if selects(each.get("labelSelector"), labels)]
    return tuple(own), len(own) < len(terms)


def _is_spot_tolerant(
    marks: Mapping[str, str], node_selector: Mapping[str, str], requirements: Iterable[Requirement]
) -> bool:
    if marks.get("spotopt.io/spot") == "false" or _is_on_demand(marks.get("spotopt.io/capacity-type", "")):
        return False
    if any(key in CAPACITY_KEYS and _is_on_demand(value) for key, value in node_selector.items()):
        return False
    return not any(each.key in CAPACITY_KEYS and _excludes_spot(each) for each in requirements)


def _excludes_spot(requirement: Requirement) -> bool:
    if requirement.operator == "In":
        return not any(value.lower() == "spot" for value in requirement.values)
    return requirement.operator == "NotIn" and any(value.lower() == "spot" for value in requirement.values)


def _is_on_demand(value: str) -> bool:
    return value.lower().replace("_", "-") in ("on-demand", "normal")
