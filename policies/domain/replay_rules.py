"""What keeps a pod from a node, as the checker reads Kubernetes' rules: one small function for each."""

from collections.abc import Iterator, Mapping, Sequence

from policies.domain.shapes import (
    CapacityType,
    Node,
    Offer,
    Requirement,
    Resources,
    SpreadRule,
    Taint,
    Toleration,
    Workload,
)

RESOURCES = ("cpu", "memory", "max_pods", "gpu", "ephemeral_storage")
"""Violation codes of the resources, in the order of ``amounts``."""


class Host:
    """A node as the checker sees it."""

    def __init__(self, name: str, source: Node | Offer, *, ready: bool, taints: tuple[Taint, ...]) -> None:
        self.name, self.zone, self.spot = name, source.zone, source.capacity_type is CapacityType.SPOT
        self.taints, self.ready = taints, ready
        defaults = {"topology.kubernetes.io/zone": source.zone, "kubernetes.io/hostname": name}
        if isinstance(source, Offer):
            defaults |= _labels_of_new(source)
            self.labels: Mapping[str, str] = {**defaults, **source.labels, "kubernetes.io/hostname": name}
        else:
            self.labels = {**defaults, **source.labels}

    def domain(self, key: str) -> str | None:
        """Return the topology domain that the node belongs to."""
        return self.zone if key == "topology.kubernetes.io/zone" else self.labels.get(key)


def _labels_of_new(offer: Offer) -> dict[str, str]:
    spot = offer.capacity_type is CapacityType.SPOT
    return {
        "node.kubernetes.io/instance-type": offer.instance_type,
        "kubernetes.io/arch": "amd64" if offer.arch == "x86_64" else offer.arch,
        "kubernetes.io/os": "linux",
        "eks.amazonaws.com/capacityType": "SPOT" if spot else "ON_DEMAND",
        "karpenter.sh/capacity-type": "spot" if spot else "on-demand",
    }


def amounts(amount: Resources) -> tuple[float, ...]:
    """Return CPU, memory, pods, GPUs and ephemeral storage."""
    return (amount.cpu_millis, amount.memory_mib, amount.pods, amount.gpu, amount.ephemeral_mib)


def needs(workload: Workload) -> tuple[float, ...]:
    """Return what one pod takes; it always takes a pod slot."""
    cpu, memory, pods, gpu, ephemeral = amounts(workload.request)
    return (cpu, memory, max(pods, 1), gpu, ephemeral)


def barriers(workload: Workload, host: Host, *, tolerant: bool) -> Iterator[str]:
    """Yield the code of each rule of the workload that the node itself breaks; ``tolerant`` of spot."""
    if host.spot and not tolerant:
        yield "capacity_type"
    if workload.pinned_zone not in ("", host.zone):
        yield "volume_zone"
    if any(host.labels.get(key) != value for key, value in workload.node_selector.items()):
        yield "selector"
    if not _affinity_holds(workload, host):
        yield "affinity"
    if not _taints_borne(workload, host):
        yield "taint"


def is_counted(workload: Workload, rule: SpreadRule, host: Host) -> bool:
    """Tell whether the node counts among the domains of a spread rule."""
    chosen = all(host.labels.get(key) == value for key, value in workload.node_selector.items())
    if rule.honors_affinity and not (chosen and _affinity_holds(workload, host)):
        return False
    return _taints_borne(workload, host) or not rule.honors_taints


def _affinity_holds(workload: Workload, host: Host) -> bool:
    if not _all_met(workload.requirements, host):
        return False
    terms = workload.alternatives
    return not terms or any(len(term) > 0 and _all_met(term, host) for term in terms)


def _all_met(term: Sequence[Requirement], host: Host) -> bool:
    labels = {**host.labels, "metadata.name": host.name}
    return all(_meets(requirement, labels.get(requirement.key)) for requirement in term)


def _meets(requirement: Requirement, value: str | None) -> bool:
    match requirement.operator:
        case "In" | "NotIn":
            return (value in requirement.values) is (requirement.operator == "In")
        case "Exists" | "DoesNotExist":
            return (value is not None) is (requirement.operator == "Exists")
        case "Gt" | "Lt":
            return _is_beyond(value or "", requirement.operator, "".join(requirement.values[:1]))
    return False


def _is_beyond(value: str, operator: str, bound: str) -> bool:
    digits = (value.removeprefix("-"), bound.removeprefix("-"))
    if not all(text.isdecimal() for text in digits):
        return False
    return int(value) > int(bound) if operator == "Gt" else int(value) < int(bound)


def _taints_borne(workload: Workload, host: Host) -> bool:
    hard = [taint for taint in host.taints if taint.effect in ("NoSchedule", "NoExecute")]
    return all(_borne(taint, workload.tolerations) for taint in hard)


def _borne(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    for t in tolerations:
        same_key = t.key in ("", taint.key) if t.operator == "Exists" else t.key == taint.key != ""
        same_value = t.operator == "Exists" or t.value == taint.value
        if same_key and same_value and t.effect in ("", taint.effect):
            return True
    return False
