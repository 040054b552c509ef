"""EC2 Fleet (type instant): which pools to try, in which order, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from simulator.aws.answers import ApiError
from simulator.aws.estate import Estate
from simulator.aws.launching import (
    Launch,
    Specification,
    build,
    launch_of,
    obstacle,
    template_version,
)
from simulator.machines import Machine

RISK_WEIGHT = Decimal("0.15")
OVERRIDDEN = ("InstanceType", "SubnetId", "ImageId")


@dataclass(frozen=True, slots=True)
class Pool:
    """One override of the request as a place to launch."""

    launch: Launch
    override: Specification
    template: Specification
    weight: int
    usd_per_hour: Decimal
    bucket: int
    priority: float
    max_usd_per_hour: Decimal | None

    @property
    def described(self) -> Specification:
        return {"LaunchTemplateSpecification": self.template, "Overrides": self.override}


@dataclass(frozen=True, slots=True)
class FleetResult:
    """The machines to launch and the answer that CreateFleet gives about them."""

    machines: list[Machine]
    instances: list[Specification]
    errors: list[Specification]


def allocate(
    estate: Estate, account_id: str, region: str, request: Specification, *, fleet_id: str, caller: str
) -> FleetResult:
    """Choose pools for an instant fleet; the machines are built but not yet launched."""
    pools = _pools(estate, account_id, region, request)
    target = request.get("TargetCapacitySpecification") or {}
    total = int(target.get("TotalTargetCapacity", 0))
    wanted = {
        "spot": int(target.get("SpotTargetCapacity", 0)),
        "on-demand": int(target.get("OnDemandTargetCapacity", 0)),
    }
    default = "spot" if target.get("DefaultTargetCapacityType") == "spot" else "on-demand"
    wanted[default] += max(0, total - sum(wanted.values()))
    result = FleetResult([], [], [])
    for lifecycle, units in wanted.items():
        options = request.get("SpotOptions" if lifecycle == "spot" else "OnDemandOptions") or {}
        if units > 0:
            priced = [_priced(estate, pool, lifecycle, fleet_id=fleet_id, caller=caller) for pool in pools]
            _fill(estate, priced, units, options, result)
    return result


def _fill(estate: Estate, pools: list[Pool], units: int, options: Specification, result: FleetResult) -> None:
    """Put all units into the best pool that has capacity; keep an error for each pool tried before it."""
    order = ORDERS.get(options.get("AllocationStrategy") or "", _unit_price)
    for pool in sorted(pools, key=order):
        found = _refusal(estate, pool)
        count = -(-units // pool.weight)
        if found is None and count >= int(options.get("MinTargetCapacity", 0)) // pool.weight:
            machines = build(estate, pool.launch, count)
            result.machines.extend(machines)
            result.instances.append(_instances(pool, machines))
            return
        code, message = found or (
            "InsufficientInstanceCapacity",
            "The minimum target capacity cannot be met.",
        )
        result.errors.append(
            {
                "LaunchTemplateAndOverrides": pool.described,
                "Lifecycle": pool.launch.lifecycle,
                "ErrorCode": code,
                "ErrorMessage": message,
            }
        )


def _pools(estate: Estate, account_id: str, region: str, request: Specification) -> list[Pool]:
    """Every override of every launch template configuration; ApiError when one is malformed."""
    pools = []
    extra = request.get("TagSpecifications") or []
    for config in request.get("LaunchTemplateConfigs") or []:
        version = template_version(account_id, region, config["LaunchTemplateSpecification"])
        template = {"LaunchTemplateId": version.template.id, "Version": str(version.number)}
        for override in config.get("Overrides") or [{}]:
            if override.get("InstanceRequirements"):
                raise ApiError(
                    "InvalidFleetConfiguration", "Attribute-based selection is not supported here."
                )
            given = {name: override[name] for name in OVERRIDDEN if override.get(name)}
            given["AvailabilityZone"] = override.get("AvailabilityZone")
            launch = launch_of(account_id, region, {**given, "TagSpecifications": extra}, version)
            pools.append(_pool(launch, override, template))
    if not pools:
        raise ApiError("MissingParameter", "The request must contain the parameter LaunchTemplateConfigs")
    return pools


def _pool(launch: Launch, override: Specification, template: Specification) -> Pool:
    price = override.get("MaxPrice")
    return Pool(
        launch=launch,
        override={**override, "AvailabilityZone": launch.subnet.availability_zone},
        template=template,
        weight=int(override.get("WeightedCapacity") or 1),
        usd_per_hour=Decimal(0),
        bucket=0,
        priority=float(override.get("Priority") or 0),
        max_usd_per_hour=Decimal(price) if price else None,
    )


def _priced(estate: Estate, pool: Pool, lifecycle: str, *, fleet_id: str, caller: str) -> Pool:
    """The pool with its price and risk as this lifecycle; priced out of reach when it does not exist."""
    launch = replace(pool.launch, lifecycle=lifecycle, fleet_id=fleet_id, launched_by=caller)
    market, kind = estate.market, launch.instance_type
    try:
        price = (
            market.spot(launch.region, launch.zone_id, kind, estate.now())
            if lifecycle == "spot"
            else market.on_demand(launch.region, kind)
        )
    except LookupError:
        price = Decimal("Infinity")
    bucket = market.interruption_bucket(launch.region, kind) if lifecycle == "spot" else 0
    return replace(pool, launch=launch, usd_per_hour=price, bucket=bucket)


def _refusal(estate: Estate, pool: Pool) -> tuple[str, str] | None:
    if pool.max_usd_per_hour is not None and pool.usd_per_hour > pool.max_usd_per_hour:
        return "SpotMaxPriceTooLow", (
            f"Your Spot request price of {pool.max_usd_per_hour} is lower than the minimum required "
            f"Spot request fulfillment price of {pool.usd_per_hour}."
        )
    return obstacle(estate, pool.launch)


def _instances(pool: Pool, machines: list[Machine]) -> Specification:
    return {
        "LaunchTemplateAndOverrides": pool.described,
        "Lifecycle": pool.launch.lifecycle,
        "InstanceIds": [machine.instance_id for machine in machines],
        "InstanceType": pool.launch.instance_type,
        "AvailabilityZone": pool.launch.subnet.availability_zone,
        "AvailabilityZoneId": pool.launch.zone_id,
        "SubnetId": pool.launch.subnet.id,
    }


def _unit_price(pool: Pool) -> Decimal:
    return pool.usd_per_hour / pool.weight


ORDERS: dict[str, Callable[[Pool], Any]] = {
    "lowest-price": _unit_price,
    "price-capacity-optimized": lambda pool: _unit_price(pool) * (1 + RISK_WEIGHT * pool.bucket),
    "capacity-optimized": lambda pool: (pool.bucket, _unit_price(pool)),
    "capacity-optimized-prioritized": lambda pool: (pool.priority, pool.bucket, _unit_price(pool)),
    "prioritized": lambda pool: (pool.priority, _unit_price(pool)),
    "diversified": _unit_price,
}
