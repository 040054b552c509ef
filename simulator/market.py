"""The market: on-demand and seeded spot prices, capacity, interruptions: pure functions of time."""

import csv
import gzip
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

CHANGE_EVERY = timedelta(hours=8)
DROUGHT_LASTS = timedelta(minutes=40)
DROUGHT_SHARE = (0.002, 0.006, 0.012, 0.02, 0.03)
INTERRUPTED_PER_MONTH = (0.025, 0.075, 0.125, 0.175, 0.25)
MONTH = timedelta(hours=730)
WALK = ((2.6, 0.0018), (11.0, 0.0140), (37.0, 0.0330))
CALM, ROUGH = 0.6, 1.4
UNKNOWN_BUCKET = 2
SAME_PRICE_AS_US_EAST_1 = frozenset({"us-east-1", "us-east-2", "us-west-2"})
SPOT_DIGITS, ON_DEMAND_DIGITS = Decimal("0.0001"), Decimal("0.000001")
ARM_RESERVED_MIB = 64
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class InstanceShape:
    """What one instance type offers a cluster; allocatable is after the EKS AMI's reservations."""

    instance_type: str
    vcpu: int
    memory_mib: int
    arch: str
    max_pods: int
    allocatable_cpu_millis: int
    allocatable_memory_mib: int
    gpu: int


@dataclass(frozen=True, slots=True)
class _Pool:
    """The fixed character of one spot pool."""

    level: float
    phases: tuple[float, ...]
    amplitude: float
    offset: timedelta


class Market:
    """Prices in USD per hour and the state of spot pools; the same seed and instant give the same answer."""

    def __init__(self, *, seed: int, data_dir: Path) -> None:
        self._seed = seed
        self._data_dir = data_dir
        self._types = {row["instance_type"]: row for row in _rows(data_dir / "ec2/instance_types.csv")}
        self._shapes: dict[str, InstanceShape] = {}
        self._on_demand: dict[tuple[str, str], Decimal] = {}
        self._pools: dict[tuple[str, str, str], _Pool] = {}

    def load(self) -> None:
        """Read the data files now instead of at the first question (about a second)."""
        self.on_demand("eu-west-1", "m5.large")
        self.offers("eu-west-1", "", "")
        self.interruption_bucket("eu-west-1", "m5.large")

    def on_demand(self, region: str, instance_type: str) -> Decimal:
        """The Linux on-demand price; LookupError for a type that AWS has no price for."""
        key = (region, instance_type)
        if key not in self._on_demand:
            base = self._us_east_1_prices[instance_type]
            price = base * self._region_multiplier(region, instance_type.split(".", maxsplit=1)[0])
            self._on_demand[key] = price.quantize(ON_DEMAND_DIGITS)
        return self._on_demand[key]

    def spot(self, region: str, zone_id: str, instance_type: str, at: datetime) -> Decimal:
        """The spot price in force at an instant, always below on-demand; LookupError when no pool exists."""
        return self._price_since(
            region, zone_id, instance_type, self._changed_at((region, zone_id, instance_type), at)
        )

    def spot_history(
        self, region: str, zone_id: str, instance_type: str, start: datetime, end: datetime
    ) -> list[tuple[datetime, Decimal]]:
        """Each change of price up to `end`, newest first, ending with the price in force at `start`."""
        pool = (region, zone_id, instance_type)
        changed_at, oldest = self._changed_at(pool, end), self._changed_at(pool, start)
        history = []
        while changed_at >= oldest:
            price = self._price_since(*pool, changed_at)
            if changed_at == oldest or price != self._price_since(*pool, changed_at - CHANGE_EVERY):
                history.append((changed_at, price))
            changed_at -= CHANGE_EVERY
        return history

    def has_capacity(self, region: str, zone_id: str, instance_type: str, at: datetime) -> bool:
        """Whether the spot pool can give an instance now; pools run dry at times, risky ones more often."""
        if not self.offers(region, zone_id, instance_type) or not self.is_spot(instance_type):
            return False
        window = int((at - EPOCH) / DROUGHT_LASTS)
        share = DROUGHT_SHARE[self.interruption_bucket(region, instance_type)]
        return self._draw("drought", zone_id, instance_type, window) >= share

    def offers(self, region: str, zone_id: str, instance_type: str) -> bool:
        """Whether AWS sells the type in this zone at all."""
        return instance_type in self._offerings.get((region, zone_id), frozenset())

    def offered(self, region: str, zone_id: str) -> frozenset[str]:
        """Every type sold in the zone; empty for an unknown zone."""
        return self._offerings.get((region, zone_id), frozenset())

    def is_spot(self, instance_type: str) -> bool:
        """Whether the type can be bought as spot."""
        return self._types[instance_type]["spot_supported"] == "1" and instance_type in self._us_east_1_prices

    def shape(self, instance_type: str) -> InstanceShape:
        """Capacity and allocatable of a node of this type; LookupError for an unknown type."""
        if instance_type not in self._shapes:
            self._shapes[instance_type] = _shape(self._types[instance_type])
        return self._shapes[instance_type]

    def interruption_bucket(self, region: str, instance_type: str) -> int:
        """The Spot Advisor's bucket, 0 (under 5 % interrupted per month) to 4 (over 20 %)."""
        advice = self._advice.get((region, instance_type))
        return advice[0] if advice else UNKNOWN_BUCKET

    def interrupted_at(
        self, region: str, instance_type: str, instance_id: str, launched_at: datetime
    ) -> datetime:
        """When AWS takes this spot instance back: a seeded draw with the bucket's monthly rate."""
        monthly = INTERRUPTED_PER_MONTH[self.interruption_bucket(region, instance_type)]
        months = math.log(1 - self._draw("interrupted", instance_id)) / math.log(1 - monthly)
        return launched_at + MONTH * months

    def _price_since(self, region: str, zone_id: str, instance_type: str, changed_at: datetime) -> Decimal:
        pool = self._pool(region, zone_id, instance_type)
        days = (changed_at - EPOCH) / timedelta(days=1)
        moves = zip(WALK, pool.phases, strict=True)
        walk = sum(share * math.sin(math.tau * (days / period + phase)) for (period, share), phase in moves)
        factor = Decimal(pool.level * math.exp(pool.amplitude * walk))
        on_demand = self.on_demand(region, instance_type)
        bounded = min(max(factor, Decimal("0.05")), Decimal("0.95"))
        return (on_demand * bounded).quantize(SPOT_DIGITS)

    def _changed_at(self, pool: tuple[str, str, str], at: datetime) -> datetime:
        start = EPOCH + self._pool(*pool).offset
        return start + ((at - start) // CHANGE_EVERY) * CHANGE_EVERY

    def _pool(self, region: str, zone_id: str, instance_type: str) -> _Pool:
        key = (region, zone_id, instance_type)
        if key not in self._pools:
            if not self.offers(*key) or not self.is_spot(instance_type):
                raise LookupError(f"There is no spot pool of {instance_type} in {zone_id}.")
            bucket = self.interruption_bucket(region, instance_type)
            self._pools[key] = _Pool(
                level=(1 - self._saving(region, instance_type)) * (0.93 + 0.14 * self._draw("zone", *key)),
                phases=tuple(self._draw("phase", *key, number) for number in range(len(WALK))),
                amplitude=CALM + (ROUGH - CALM) * bucket / 4,
                offset=timedelta(seconds=int(CHANGE_EVERY.total_seconds() * self._draw("offset", *key))),
            )
        return self._pools[key]

    def _saving(self, region: str, instance_type: str) -> float:
        advice = self._advice.get((region, instance_type))
        if advice:
            return advice[1] / 100
        category = self._types[instance_type]["category"]
        return self._typical_savings.get((region, category), self._typical_savings["", ""]) / 100

    def _region_multiplier(self, region: str, family: str) -> Decimal:
        if region in SAME_PRICE_AS_US_EAST_1:
            return Decimal(1)
        known = self._multipliers.get((region, family)) or self._multipliers.get((region, ""))
        if known is None:
            raise LookupError(f"There are no on-demand prices for {region}.")
        return known

    def _draw(self, *key: Any) -> float:
        """A number in [0, 1) that belongs to this key and seed."""
        text = "/".join(map(str, (self._seed, *key)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big") / 2**56

    @cached_property
    def _us_east_1_prices(self) -> dict[str, Decimal]:
        rows = _rows(self._data_dir / "prices/karpenter_current.csv")
        return {
            row["instance_type"]: Decimal(row["price_per_hour"])
            for row in rows
            if row["region"] == "us-east-1"
        }

    @cached_property
    def _multipliers(self) -> dict[tuple[str, str], Decimal]:
        """Price relative to us-east-1 by region and family; family "" is the region's median."""
        found: dict[tuple[str, str], Decimal] = {}
        for row in _rows(self._data_dir / "prices/region_multiplier_by_family_2023_cleaned.csv"):
            found[row["region"], row["family"]] = Decimal(row["mult"])
        for row in _rows(self._data_dir / "prices/region_multiplier_by_family_2021-11.csv"):
            found[row["region"], row["family"]] = Decimal(row["median"])
        by_region: dict[str, list[Decimal]] = {}
        for (region, _), multiplier in found.items():
            by_region.setdefault(region, []).append(multiplier)
        return found | {(region, ""): median(values) for region, values in by_region.items()}

    @cached_property
    def _offerings(self) -> dict[tuple[str, str], frozenset[str]]:
        found: dict[tuple[str, str], set[str]] = {}
        for row in _rows(self._data_dir / "ec2/offerings_by_az.csv.gz"):
            found.setdefault((row["region"], row["az_id"]), set()).add(row["instance_type"])
        return {zone: frozenset(types & self._types.keys()) for zone, types in found.items()}

    @cached_property
    def _advice(self) -> dict[tuple[str, str], tuple[int, float]]:
        """The Spot Advisor's (bucket, saving in percent) by region and type, Linux."""
        rows = _rows(self._data_dir / "spot_advisor/spot_advisor_2024-02-28.csv.gz")
        return {
            (row["region"], row["instance_type"]): (
                int(row["interruption_bucket"]),
                float(row["savings_pct"]),
            )
            for row in rows
            if row["os"] == "Linux"
        }

    @cached_property
    def _typical_savings(self) -> dict[tuple[str, str], float]:
        """Median saving by region and category, for types the Advisor lacks; ("", "") overall."""
        groups: dict[tuple[str, str], list[float]] = {("", ""): []}
        for (region, instance_type), (_, saving) in self._advice.items():
            if instance_type in self._types:
                groups.setdefault((region, self._types[instance_type]["category"]), []).append(saving)
                groups["", ""].append(saving)
        return {key: median(values) for key, values in groups.items()}


def _shape(row: dict[str, str]) -> InstanceShape:
    """Apply the EKS AMI's kubelet reservation: CPU by core, 255 MiB + 11 MiB a pod, 100 MiB eviction."""
    vcpu, memory_mib, max_pods = int(row["vcpu"]), int(row["memory_mib"]), int(row["max_pods_eni_formula"])
    arch = "arm64" if row["arch"] == "arm64" else "amd64"
    usable_mib = memory_mib - (ARM_RESERVED_MIB if arch == "arm64" else 0)
    usable_mib -= math.ceil(usable_mib * 0.075)
    return InstanceShape(
        instance_type=row["instance_type"],
        vcpu=vcpu,
        memory_mib=memory_mib,
        arch=arch,
        max_pods=max_pods,
        allocatable_cpu_millis=vcpu * 1000 - _reserved_cpu_millis(vcpu),
        allocatable_memory_mib=usable_mib - (255 + 11 * max_pods) - 100,
        gpu=int(float(row["gpu_count"] or 0)),
    )


def _reserved_cpu_millis(vcpu: int) -> int:
    reserved = 60.0 + (10 if vcpu > 1 else 0) + 5 * max(0, min(vcpu, 4) - 2) + 2.5 * max(0, vcpu - 4)
    return int(reserved)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    yield from csv.DictReader(text.decode().splitlines())
