"""What nodes give to pods, what they cost, and how a price list for all regions comes about."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median

REFRESH_EVERY = timedelta(minutes=5)
LEAST_WALL_SECONDS = 60
"""However fast the clock runs, AWS is not asked for prices more often."""
MISSED_REFRESHES = 2
STALE_BUFFER = Decimal("1.10")
MICRO_USD = Decimal("0.000001")

VM_OVERHEAD_SHARE = 0.075
ARM_RESERVED_MIB = 64
KUBELET_BASE_MIB, KUBELET_MIB_PER_POD, EVICTION_MIB = 255, 11, 100

SAME_PRICE_AS_HOME = frozenset({"us-east-2", "us-west-2"})
HOME_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Allocatable:
    """What a node offers to pods."""

    cpu_millis: int
    memory_mib: int
    pods: int


@dataclass(frozen=True, slots=True)
class Quote:
    """A price in USD per hour, where it comes from (aws, bundled, estimate) and when it was observed."""

    usd_per_hour: Decimal
    source: str
    observed_at: datetime

    def age(self, now: datetime) -> timedelta:
        """Return how long ago the price was observed."""
        return now - self.observed_at

    def planning_usd(self, now: datetime, *, clock_rate: float = 1.0) -> Decimal:
        """Return the price to plan with: 10 % more than AWS's once two refreshes were missed."""
        is_stale = self.source == "aws" and self.age(now) > MISSED_REFRESHES * refresh_pause(clock_rate)
        return (self.usd_per_hour * STALE_BUFFER).quantize(MICRO_USD) if is_stale else self.usd_per_hour


@dataclass(frozen=True, slots=True)
class ListPrice:
    """An on-demand price in one region; an estimate when AWS's current list was not at hand."""

    region: str
    instance_type: str
    usd_per_hour: Decimal
    is_estimate: bool


def refresh_pause(clock_rate: float) -> timedelta:
    """Return how much time of the clock passes from one reading of spot prices to the next."""
    return max(REFRESH_EVERY, timedelta(seconds=LEAST_WALL_SECONDS * clock_rate))


def allocatable(*, vcpu: int, memory_mib: int, max_pods: int, is_arm: bool) -> Allocatable:
    """Return what a node of the Amazon EKS image offers.

    CPU and memory reservations are those of the image (amazon-eks-ami, nodeadm ``kubelet/config.go``:
    6 % of the first core, 1 % of the second, 0.5 % of the next two, 0.25 % of the rest; 255 MiB and
    11 MiB a pod; 100 MiB eviction threshold). What the hypervisor and kernel keep is Karpenter's estimate
    (``vmMemoryOverheadPercent`` 7.5 %, and 64 MiB on Graviton). The agent's report replaces both.
    """
    usable_mib = memory_mib - (ARM_RESERVED_MIB if is_arm else 0)
    usable_mib -= math.ceil(usable_mib * VM_OVERHEAD_SHARE)
    kubelet_mib = KUBELET_BASE_MIB + KUBELET_MIB_PER_POD * max_pods
    return Allocatable(
        cpu_millis=vcpu * 1000 - _reserved_cpu_millis(vcpu),
        memory_mib=max(0, usable_mib - kubelet_mib - EVICTION_MIB),
        pods=max_pods,
    )


def _reserved_cpu_millis(vcpu: int) -> int:
    first, second = 60, 10 if vcpu > 1 else 0
    return int(first + second + 5 * max(0, min(vcpu, 4) - 2) + 2.5 * max(0, vcpu - 4))


def list_prices(
    *,
    current: Mapping[tuple[str, str], Decimal],
    sold: Mapping[str, Iterable[str]],
    multipliers: Mapping[tuple[str, str], Decimal],
) -> Iterator[ListPrice]:
    """Yield an on-demand price for every type in every region where it is sold and a price is known.

    ``current`` holds AWS's own prices by (region, type), ``sold`` the regions of each type, and
    ``multipliers`` the ratio to us-east-1 by (region, family). A family that the ratios lack takes its
    region's median. Everything but AWS's own prices is an estimate.
    """
    typical = _medians(multipliers)
    for instance_type, regions in sold.items():
        home = current.get((HOME_REGION, instance_type))
        family = instance_type.partition(".")[0]
        for region in regions:
            if (exact := current.get((region, instance_type))) is not None:
                yield ListPrice(region, instance_type, exact, is_estimate=False)
                continue
            ratio = _ratio(region, family, multipliers, typical)
            if home is not None and ratio is not None:
                yield ListPrice(region, instance_type, (home * ratio).quantize(MICRO_USD), is_estimate=True)


def estimated_spot(on_demand: Quote, savings_percent: int) -> Quote:
    """Return what spot would cost by Spot Advisor's average saving, for a pool that nobody has priced yet."""
    usd = on_demand.usd_per_hour * (100 - savings_percent) / 100
    return Quote(max(usd, MICRO_USD).quantize(MICRO_USD), "estimate", on_demand.observed_at)


def _ratio(
    region: str,
    family: str,
    multipliers: Mapping[tuple[str, str], Decimal],
    typical: Mapping[str, Decimal],
) -> Decimal | None:
    if region in SAME_PRICE_AS_HOME:
        return Decimal(1)
    return multipliers.get((region, family)) or typical.get(region)


def _medians(multipliers: Mapping[tuple[str, str], Decimal]) -> dict[str, Decimal]:
    by_region: dict[str, list[Decimal]] = {}
    for (region, _), ratio in multipliers.items():
        by_region.setdefault(region, []).append(ratio)
    return {region: median(ratios) for region, ratios in by_region.items()}
