"""What the engine computes with: places that can run pods, and vectors of resources."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from policies.domain.shapes import CapacityType, Node, Offer, Resources, Taint, Workload

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Vector = tuple[int, int, int, int, int]
"""One amount of each resource, in the order of ``vector``."""
RESOURCE_COUNT = 5

ZONE_KEY = "topology.kubernetes.io/zone"
HOSTNAME_KEY = "kubernetes.io/hostname"
NAME_FIELD = "metadata.name"
"""The one field that node affinity may match beside labels."""
DAEMON_KINDS = frozenset({"DaemonSet", "Node"})
"""Owners whose pods live and die with their node: daemon sets and static pods."""

_ARCH_LABEL = {"x86_64": "amd64", "amd64": "amd64", "arm64": "arm64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere pods can run: a running node, or a node that an offer would become."""

    id: str
    instance_type: str
    zone: str
    capacity_type: CapacityType
    usd_per_hour: Decimal
    allocatable: Resources
    daemon_overhead: Resources
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    schedulable: bool
    """True when ready and not cordoned, so that the scheduler may use it."""

    @property
    def room(self) -> Resources:
        """Return what it offers to pods other than daemon sets when empty."""
        return self.allocatable - self.daemon_overhead


def place_of_node(node: Node) -> Place:
    """Return the place that a running node is."""
    well_known = {ZONE_KEY: node.zone, HOSTNAME_KEY: node.id, NAME_FIELD: node.id}
    return Place(
        node.id,
        node.instance_type,
        node.zone,
        node.capacity_type,
        node.usd_per_hour,
        node.allocatable,
        node.daemon_overhead,
        {**well_known, **node.labels},
        node.taints,
        node.ready and not node.cordoned,
    )


def place_of_offer(offer: Offer, place_id: str) -> Place:
    """Return the place that a node bought from ``offer`` will be; the scheduler may use it."""
    spot = offer.capacity_type is CapacityType.SPOT
    well_known = {
        "node.kubernetes.io/instance-type": offer.instance_type,
        ZONE_KEY: offer.zone,
        "kubernetes.io/arch": architecture(offer.arch),
        "kubernetes.io/os": "linux",
        "eks.amazonaws.com/capacityType": "SPOT" if spot else "ON_DEMAND",
        "karpenter.sh/capacity-type": "spot" if spot else "on-demand",
    }
    return Place(
        place_id,
        offer.instance_type,
        offer.zone,
        offer.capacity_type,
        offer.usd_per_hour,
        offer.allocatable,
        offer.daemon_overhead,
        {**well_known, **offer.labels, HOSTNAME_KEY: place_id},
        (),
        True,
    )


def architecture(name: str) -> str:
    """Return the Kubernetes spelling of a processor architecture."""
    return _ARCH_LABEL.get(name, name)


def vector(amount: Resources) -> Vector:
    """Return the amount as (milli-CPU, MiB, pods, GPUs, MiB of ephemeral storage)."""
    return (amount.cpu_millis, amount.memory_mib, amount.pods, amount.gpu, amount.ephemeral_mib)


def pod_vector(workload: Workload) -> Vector:
    """Return what one pod of the workload takes; a pod always takes one pod slot."""
    request = workload.request
    return (
        request.cpu_millis,
        request.memory_mib,
        max(1, request.pods),
        request.gpu,
        request.ephemeral_mib,
    )
