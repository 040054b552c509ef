"""The plain world under the generated cases: instance types, pools, nodes, workloads and lenient rules."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from policies.domain.policy import Rules, TemplateRules
from policies.domain.shapes import CapacityType, Node, Offer, Resources, Workload

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
DAEMONS = Resources(200, 300, 4, 0, 500)
_SIZES = {"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16}
_GIB_AND_USD = {
    "c5": (2, 0.0425),
    "m5": (4, 0.048),
    "r5": (8, 0.063),
    "m6g": (4, 0.0385),
    "g4dn": (4, 0.1315),
}
"""Family: GiB and USD per hour for each vCPU."""
FAMILIES = tuple(_GIB_AND_USD)
_ARM, _GPU, _BURSTABLE = "m6g", "g4dn", "c5"
_DISK_MIB = 17_000


def offers() -> tuple[Offer, ...]:
    """Return every pool: five families in three sizes, three zones, spot and on-demand."""
    return tuple(
        _offer(family, size, zone, capacity_type)
        for family in FAMILIES
        for size in ("large", "xlarge", "2xlarge", "4xlarge")
        for zone in ZONES
        for capacity_type in CapacityType
    )


def _offer(family: str, size: str, zone: str, capacity_type: CapacityType) -> Offer:
    per_vcpu, usd = _GIB_AND_USD[family]
    vcpus = _SIZES[size]
    price = Decimal(str(usd)) * vcpus
    is_spot = capacity_type is CapacityType.SPOT
    if is_spot:
        place = 7 * FAMILIES.index(family) + 3 * ZONES.index(zone) + list(_SIZES).index(size)
        price = (price * (30 + place % 17) / 100).quantize(Decimal("0.000001"))
    return Offer(
        instance_type=f"{family}.{size}",
        family=family,
        arch="arm64" if family == _ARM else "x86_64",
        zone=zone,
        zone_id=f"use1-az{ZONES.index(zone) + 1}",
        capacity_type=capacity_type,
        usd_per_hour=price,
        interruption_risk=(5 + 3 * FAMILIES.index(family)) / 100 if is_spot else 0.0,
        allocatable=Resources(
            vcpus * 1000 - 80 - vcpus * 5,
            vcpus * per_vcpu * 942 - 400,
            min(110, 14 * vcpus),
            vcpus // 4 if family == _GPU else 0,
            _DISK_MIB,
        ),
        daemon_overhead=DAEMONS,
        labels=_labels(family, vcpus),
        burstable=family == _BURSTABLE,
    )


def _labels(family: str, vcpus: int) -> dict[str, str]:
    return {"example.com/family": family, "example.com/cpu": str(vcpus)}


def node(name: str, offer: Offer) -> Node:
    """Return a running node of the offer's pool."""
    spot = offer.capacity_type is CapacityType.SPOT
    return Node(
        id=name,
        instance_id=f"i-{name}",
        instance_type=offer.instance_type,
        zone=offer.zone,
        zone_id=offer.zone_id,
        capacity_type=offer.capacity_type,
        usd_per_hour=offer.usd_per_hour,
        allocatable=offer.allocatable,
        daemon_overhead=offer.daemon_overhead,
        labels={
            **offer.labels,
            "kubernetes.io/arch": "arm64" if offer.arch == "arm64" else "amd64",
            "karpenter.sh/capacity-type": "spot" if spot else "on-demand",
        },
        taints=(),
        launched_at=NOW - timedelta(days=3),
        ready=True,
        cordoned=False,
        group="workers",
        group_kind="asg",
    )


def workload(name: str, chance: Random) -> Workload:
    """Return a small deployment that may run anywhere."""
    cpu = chance.choice((50, 100, 250, 400, 500, 1000, 1500))
    return Workload(
        id=f"shop/Deployment/{name}",
        namespace="shop",
        kind="Deployment",
        name=name,
        replicas=chance.randint(1, 8),
        request=Resources(cpu, cpu * chance.choice((1, 2, 3, 4)), 1),
    )


def template(**changes: Any) -> TemplateRules:
    """Return a template that allows every pool of one architecture, with these changes."""
    return TemplateRules(**{"families": frozenset(FAMILIES), "strategy": "cheapest", **changes})


def rules() -> Rules:
    """Return rules that bind as little as rules can."""
    return Rules(
        template=template(),
        spot_percentage=100,
        az_spread=False,
        min_nodes=1,
        headroom_cpu_percent=0,
        headroom_memory_percent=0,
        pool_share_percent=100,
        max_disrupted_percent=40,
        max_risk=1.0,
        spot_to_spot_pools=1,
        spot_to_spot_saving_percent=0,
    ).without_thresholds()
