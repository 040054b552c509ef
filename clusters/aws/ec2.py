"""EC2: regions, instances, spot prices, instant fleets, termination, dry runs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from clusters.aws.errors import DryRunPassed, translated
from clusters.aws.session import RegionSession
from clusters.domain.capacity import (
    ACTION_TAG,
    FleetOverride,
    FoundInstance,
    LaunchedInstance,
    LaunchResult,
    LaunchTemplate,
    PoolRefusal,
    SpotQuote,
)

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef, TagSpecificationTypeDef

PAGE = 1000
FILTER_VALUES = 200
"""More in one filter AWS refuses."""
PRICE_RANGE = timedelta(days=1)
STATES = {
    "pending": "pending",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopped",
    "shutting-down": "terminated",
    "terminated": "terminated",
}
"""AWS stops billing when an instance begins to shut down, so that is the end for us."""
LIFECYCLES = {"spot": "spot", "on-demand": "on_demand"}
ENDED_AT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) GMT\)")
TAGGED = ("instance", "volume", "network-interface", "fleet")
"""All that a launch makes: the role's policy lets Spotopt make nothing without its tag."""


def enabled_regions(session: RegionSession) -> tuple[str, ...]:
    """Return the names of the regions that are enabled for the account, sorted."""
    with translated(action="ec2:DescribeRegions", region=session.region):
        answer = session.ec2.describe_regions()
    return tuple(sorted(region["RegionName"] for region in answer["Regions"]))


def describe_instances(
    session: RegionSession, *, instance_ids: Sequence[str] = (), tags: Mapping[str, str] | None = None
) -> tuple[FoundInstance, ...]:
    """Return all instances of the region, or those with the ids or with all of the tags.

    Raises ResourceMissing when an id is unknown. Terminated ones are included as long as AWS shows them.
    """
    query: dict[str, Any] = {"InstanceIds": list(instance_ids)} if instance_ids else {}
    if tags:
        query["Filters"] = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
    if not instance_ids:  # AWS refuses pages of named instances
        query["PaginationConfig"] = {"PageSize": PAGE}
    with translated(action="ec2:DescribeInstances", region=session.region):
        found = [
            instance
            for page in session.ec2.get_paginator("describe_instances").paginate(**query)
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]
    return _instances(session, found)


def known_instances(session: RegionSession, *, instance_ids: Sequence[str]) -> tuple[FoundInstance, ...]:
    """Return those of the instances that AWS shows; what it does not know (yet, any more) is left out."""
    parts = [
        instance_ids[start : start + FILTER_VALUES] for start in range(0, len(instance_ids), FILTER_VALUES)
    ]
    queries: Any = [[{"Name": "instance-id", "Values": list(part)}] for part in parts]
    with translated(action="ec2:DescribeInstances", region=session.region):
        found = [
            instance
            for query in queries
            for page in session.ec2.get_paginator("describe_instances").paginate(Filters=query)
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]
    return _instances(session, found)


def first_instances(session: RegionSession, *, limit: int) -> tuple[tuple[FoundInstance, ...], bool]:
    """Return up to ``limit`` (at least 5) instances, and whether there are more."""
    with translated(action="ec2:DescribeInstances", region=session.region):
        answer = session.ec2.describe_instances(MaxResults=limit)
    found = [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]
    return _instances(session, found), bool(answer.get("NextToken"))


def launched_for_action(session: RegionSession, *, action_id: str) -> tuple[FoundInstance, ...]:
    """Return what was launched for one Action: how a restarted actuator finds its machines again."""
    return describe_instances(session, tags={ACTION_TAG: action_id})


def subnets_by_zone(session: RegionSession, *, subnet_ids: Sequence[str]) -> dict[str, str]:
    """Return for each zone id the one of the subnets in it that has the most free addresses.

    One only: to AWS two subnets of a zone are the same pool, which a request may name once.
    """
    with translated(action="ec2:DescribeSubnets", region=session.region):
        answer = session.ec2.describe_subnets(SubnetIds=list(subnet_ids))
    emptiest_last = sorted(answer["Subnets"], key=lambda subnet: subnet["AvailableIpAddressCount"])
    return {subnet["AvailabilityZoneId"]: subnet["SubnetId"] for subnet in emptiest_last}


def zone_ids(session: RegionSession) -> dict[str, str]:
    """Return the zone id behind each zone name of this account: ``us-east-1a`` differs between accounts."""
    with translated(action="ec2:DescribeAvailabilityZones", region=session.region):
        answer = session.ec2.describe_availability_zones()
    return {zone["ZoneName"]: zone["ZoneId"] for zone in answer["AvailabilityZones"]}


def spot_prices(
    session: RegionSession, *, instance_types: Sequence[str], zones: Sequence[str], at: datetime
) -> tuple[SpotQuote, ...]:
    """Return the Linux spot price in force at an instant and its range over the day before.

    There is one quote for each (zone, type) that AWS sells; types that it does not know are left out.
    """
    history: dict[tuple[str, str], list[tuple[datetime, Decimal]]] = {}
    ids: dict[str, str] = {}
    paginator = session.ec2.get_paginator("describe_spot_price_history")
    with translated(action="ec2:DescribeSpotPriceHistory", region=session.region):
        pages = paginator.paginate(
            InstanceTypes=list(instance_types),  # type: ignore[arg-type]  # newer types than the stubs know
            ProductDescriptions=["Linux/UNIX"],
            Filters=[{"Name": "availability-zone", "Values": list(zones)}],
            StartTime=at - PRICE_RANGE,
            EndTime=at,
            PaginationConfig={"PageSize": PAGE},
        )
        for page in pages:
            for row in page["SpotPriceHistory"]:
                zone = row["AvailabilityZone"]
                ids[zone] = row.get("AvailabilityZoneId", "")
                pool = history.setdefault((zone, str(row["InstanceType"])), [])
                pool.append((row["Timestamp"], Decimal(row["SpotPrice"])))
    names = ids if all(ids.values()) else zone_ids(session)
    return tuple(
        SpotQuote(
            zone_id=names[zone],
            zone=zone,
            instance_type=instance_type,
            usd_per_hour=max(prices)[1],
            low_usd_per_hour=min(usd for _, usd in prices),
            high_usd_per_hour=max(usd for _, usd in prices),
        )
        for (zone, instance_type), prices in history.items()
    )


def create_instant_fleet(
    *,
    session: RegionSession,
    client_token: str,
    launch_template: LaunchTemplate,
    overrides: Sequence[FleetOverride],
    capacity_type: str,
    count: int,
    tags: Mapping[str, str],
    is_dry_run: bool = False,
) -> LaunchResult:
    """Launch ``count`` instances of one capacity type in the best of the pools, at once or not at all.

    The same token and request return the first answer again. Pools without capacity come back as
    refusals, not as errors. Raises DryRunPassed after a dry run that AWS would have let pass.
    """
    is_spot = capacity_type == "spot"
    strategy: dict[str, Any] = (
        {"SpotOptions": {"AllocationStrategy": "price-capacity-optimized"}}
        if is_spot
        else {"OnDemandOptions": {"AllocationStrategy": "prioritized"}}
    )
    pools: list[Any] = [
        {"InstanceType": pool.instance_type, "SubnetId": pool.subnet_id}
        | ({} if is_spot else {"Priority": pool.priority})
        for pool in overrides
    ]
    with translated(action="ec2:CreateFleet", region=session.region):
        answer = session.ec2.create_fleet(
            DryRun=is_dry_run,
            ClientToken=client_token,
            Type="instant",
            LaunchTemplateConfigs=[
                {
                    "LaunchTemplateSpecification": {
                        "LaunchTemplateId": launch_template.id,
                        "Version": launch_template.version,
                    },
                    "Overrides": pools,
                }
            ],
            TargetCapacitySpecification={
                "TotalTargetCapacity": count,
                "DefaultTargetCapacityType": "spot" if is_spot else "on-demand",
            },
            TagSpecifications=_tag_specifications(tags),
            **strategy,
        )
    return LaunchResult(
        fleet_id=answer["FleetId"],
        instances=tuple(_launched(answer.get("Instances", []))),
        refusals=tuple(_refusal(error) for error in answer.get("Errors", [])),
    )


def dry_run_launch(
    session: RegionSession, *, launch_template: LaunchTemplate, subnet_id: str, tags: Mapping[str, str]
) -> None:
    """Raise DryRunPassed when one instance could be launched, or the AwsError that says why not."""
    with translated(action="ec2:RunInstances", region=session.region):
        session.ec2.run_instances(
            DryRun=True,
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet_id,
            LaunchTemplate={"LaunchTemplateId": launch_template.id, "Version": launch_template.version},
            TagSpecifications=_tag_specifications(tags, kinds=TAGGED[:-1]),
        )


def terminate(*, session: RegionSession, instance_id: str, is_dry_run: bool = False) -> str:
    """Terminate an instance that no group would replace; return its state now. Repeating does no harm.

    Raises ResourceMissing when AWS does not know it (any more).
    """
    with translated(action="ec2:TerminateInstances", region=session.region):
        answer = session.ec2.terminate_instances(DryRun=is_dry_run, InstanceIds=[instance_id])
    return STATES[answer["TerminatingInstances"][0]["CurrentState"]["Name"]]


def dry_run_read(session: RegionSession, *, action: str) -> None:
    """Raise DryRunPassed when a describe call (by its IAM name) is allowed, or the AwsError otherwise."""
    calls: dict[str, Any] = {
        "ec2:DescribeAvailabilityZones": session.ec2.describe_availability_zones,
        "ec2:DescribeSubnets": session.ec2.describe_subnets,
        "ec2:DescribeLaunchTemplateVersions": session.ec2.describe_launch_template_versions,
        "ec2:DescribeSpotPriceHistory": session.ec2.describe_spot_price_history,
    }
    arguments = {"Versions": ["$Latest"]} if action == "ec2:DescribeLaunchTemplateVersions" else {}
    with translated(action=action, region=session.region):
        calls[action](DryRun=True, **arguments)
    raise DryRunPassed("AWS carried the call out.", action=action, region=session.region)


def _instances(session: RegionSession, found: "Iterable[InstanceTypeDef]") -> tuple[FoundInstance, ...]:
    """Older endpoints leave the zone id out; then one more call finds it."""
    rows = list(found)
    complete = all(row["Placement"].get("AvailabilityZoneId") for row in rows)
    names = {} if complete else zone_ids(session)
    return tuple(_instance(row, names) for row in rows)


def _instance(row: "InstanceTypeDef", names: Mapping[str, str]) -> FoundInstance:
    zone = row["Placement"]["AvailabilityZone"]
    state = STATES[row["State"]["Name"]]
    reason = row.get("StateTransitionReason", "")
    ended = ENDED_AT.search(reason) if state == "terminated" else None
    return FoundInstance(
        instance_id=row["InstanceId"],
        instance_type=str(row["InstanceType"]),
        lifecycle="spot" if row.get("InstanceLifecycle") == "spot" else "on_demand",
        state=state,
        az=zone,
        az_id=row["Placement"].get("AvailabilityZoneId") or names.get(zone, ""),
        launched_at=row["LaunchTime"],
        subnet_id=row.get("SubnetId", ""),
        ended_at=datetime.fromisoformat(ended[1]).replace(tzinfo=UTC) if ended else None,
        end_reason=row.get("StateReason", {}).get("Code", "") or reason,
        tags={tag["Key"]: tag["Value"] for tag in row.get("Tags", [])},
    )


def _launched(rows: Iterable[Any]) -> Iterable[LaunchedInstance]:
    for row in rows:
        override = row.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        for instance_id in row["InstanceIds"]:
            yield LaunchedInstance(
                instance_id=instance_id,
                instance_type=row["InstanceType"],
                lifecycle=LIFECYCLES[row["Lifecycle"]],
                az=row.get("AvailabilityZone") or override.get("AvailabilityZone", ""),
                az_id=row.get("AvailabilityZoneId") or override.get("AvailabilityZoneId", ""),
                subnet_id=row.get("SubnetId") or override.get("SubnetId", ""),
            )


def _refusal(error: Any) -> PoolRefusal:
    override = error.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
    return PoolRefusal(
        instance_type=override.get("InstanceType", ""),
        subnet_id=override.get("SubnetId", ""),
        az=override.get("AvailabilityZone", ""),
        code=error.get("ErrorCode", ""),
        message=error.get("ErrorMessage", ""),
    )


def _tag_specifications(
    tags: Mapping[str, str], kinds: Sequence[str] = TAGGED
) -> "list[TagSpecificationTypeDef]":
    listed = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
    return [{"ResourceType": kind, "Tags": listed} for kind in kinds]  # type: ignore[typeddict-item]
