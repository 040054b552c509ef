"""What Karpenter orders from EC2, and from whom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from simulator.machines import Machine

CAPACITY_TYPE = "karpenter.sh/capacity-type"


@dataclass(frozen=True, slots=True, order=True)
class Choice:
    """One kind of node that would do."""

    instance_type: str
    zone: str
    zone_id: str
    capacity_type: str


@dataclass(frozen=True, slots=True)
class Order:
    """A node to buy: the cheapest of the choices that AWS has."""

    account_id: str
    region: str
    cluster: str
    choices: Sequence[Choice]
    labels: Mapping[str, str]
    """What every node gets; the capacity type and the type's own labels come on top."""
    taints: Sequence[Mapping[str, str]]
    tags: Mapping[str, str]


class Seller(Protocol):
    """The EC2 that Karpenter buys from."""

    def offered(self, region: str, zone_id: str) -> frozenset[str]: ...

    def buy(self, order: Order, now: datetime) -> Machine | None: ...


def labels_of(choice: Choice, vcpu: int) -> dict[str, str]:
    """The labels that say which kind of node it is (karpenter.sh, "Scheduling", well-known labels)."""
    family, _, size = choice.instance_type.partition(".")
    letters = family.rstrip("abcdefghijklmnopqrstuvwxyz-") or family
    category = letters.rstrip("0123456789")
    return {
        "node.kubernetes.io/instance-type": choice.instance_type,
        "topology.kubernetes.io/zone": choice.zone,
        "kubernetes.io/os": "linux",
        CAPACITY_TYPE: choice.capacity_type,
        "karpenter.k8s.aws/instance-family": family,
        "karpenter.k8s.aws/instance-size": size,
        "karpenter.k8s.aws/instance-category": category,
        "karpenter.k8s.aws/instance-generation": letters.removeprefix(category)[:1],
        "karpenter.k8s.aws/instance-cpu": str(vcpu),
    }
