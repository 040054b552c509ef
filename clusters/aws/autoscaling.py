"""Auto Scaling: groups, their sizes, and taking one member out for good."""

from collections.abc import Mapping, Sequence
from typing import Any

from clusters.aws.errors import ResourceMissing, translated
from clusters.aws.session import RegionSession
from clusters.domain.capacity import LaunchTemplate, ScalingGroup

PAGE = 100


def describe_groups(session: RegionSession, *, names: Sequence[str] = ()) -> tuple[ScalingGroup, ...]:
    """Return all groups of the region, or those with the names that exist."""
    query: dict[str, Any] = {"AutoScalingGroupNames": list(names)} if names else {}
    with translated(action="autoscaling:DescribeAutoScalingGroups", region=session.region):
        pages = session.autoscaling.get_paginator("describe_auto_scaling_groups").paginate(
            **query, PaginationConfig={"PageSize": PAGE}
        )
        return tuple(_group(row) for page in pages for row in page["AutoScalingGroups"])


def describe_group(session: RegionSession, *, name: str) -> ScalingGroup:
    """Return one group; raise ResourceMissing when there is none of this name."""
    found = describe_groups(session, names=[name])
    if not found:
        raise ResourceMissing(
            f"There is no Auto Scaling group {name} in {session.region}.",
            action="autoscaling:DescribeAutoScalingGroups",
            region=session.region,
        )
    return found[0]


def terminate_in_group(*, session: RegionSession, instance_id: str, decrement: bool = True) -> None:
    """Terminate a member and, with ``decrement``, ask for one instance less, so that none replaces it.

    Raises GroupAtMinimum when the group may not shrink, and ResourceMissing when no group has the instance.
    """
    with translated(action="autoscaling:TerminateInstanceInAutoScalingGroup", region=session.region):
        session.autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=instance_id, ShouldDecrementDesiredCapacity=decrement
        )


def detach(*, session: RegionSession, group_name: str, instance_id: str) -> None:
    """Take an instance out of its group without ending it, and ask for one less, so that nothing replaces it.

    Raises ResourceMissing when the group does not have it.
    """
    with translated(action="autoscaling:DetachInstances", region=session.region):
        session.autoscaling.detach_instances(
            AutoScalingGroupName=group_name, InstanceIds=[instance_id], ShouldDecrementDesiredCapacity=True
        )


def suspend(*, session: RegionSession, group_name: str, process: str) -> None:
    """Keep a group from doing one of the things that it does by itself; raise ResourceMissing without it."""
    with translated(action="autoscaling:SuspendProcesses", region=session.region):
        session.autoscaling.suspend_processes(AutoScalingGroupName=group_name, ScalingProcesses=[process])


def resume(*, session: RegionSession, group_name: str, process: str) -> None:
    """Let a group do it again; raise ResourceMissing for an unknown group."""
    with translated(action="autoscaling:ResumeProcesses", region=session.region):
        session.autoscaling.resume_processes(AutoScalingGroupName=group_name, ScalingProcesses=[process])


def set_sizes(
    *,
    session: RegionSession,
    group_name: str,
    minimum: int | None = None,
    desired: int | None = None,
    maximum: int | None = None,
) -> None:
    """Set the sizes that are given and leave the others; raise ResourceMissing for an unknown group."""
    sizes = {"MinSize": minimum, "DesiredCapacity": desired, "MaxSize": maximum}
    given: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
    with translated(action="autoscaling:UpdateAutoScalingGroup", region=session.region):
        session.autoscaling.update_auto_scaling_group(AutoScalingGroupName=group_name, **given)


def _group(row: Mapping[str, Any]) -> ScalingGroup:
    mixed = row.get("MixedInstancesPolicy") or {}
    template = mixed.get("LaunchTemplate") or {}
    specification = row.get("LaunchTemplate") or template.get("LaunchTemplateSpecification")
    overrides = {item["InstanceType"] for item in template.get("Overrides", []) if item.get("InstanceType")}
    members = row.get("Instances", [])
    types = overrides or {member["InstanceType"] for member in members if member.get("InstanceType")}
    on_demand_share = mixed.get("InstancesDistribution", {}).get("OnDemandPercentageAboveBaseCapacity", 100)
    return ScalingGroup(
        name=row["AutoScalingGroupName"],
        min_size=row["MinSize"],
        desired=row["DesiredCapacity"],
        max_size=row["MaxSize"],
        launch_template=_template(specification) if specification else None,
        subnet_ids=tuple(filter(None, (row.get("VPCZoneIdentifier") or "").split(","))),
        instance_types=tuple(sorted(types)),
        is_spot_enabled=bool(mixed) and on_demand_share < 100,  # noqa: PLR2004  # a percentage
        suspended=frozenset(item["ProcessName"] for item in row.get("SuspendedProcesses", [])),
        instance_ids=tuple(member["InstanceId"] for member in members),
        tags={tag["Key"]: tag.get("Value", "") for tag in row.get("Tags", [])},
        leaving_ids=frozenset(
            member["InstanceId"] for member in members if member["LifecycleState"].startswith("Terminating")
        ),
        protected_ids=frozenset(
            member["InstanceId"] for member in members if member.get("ProtectedFromScaleIn")
        ),
    )


def _template(specification: Mapping[str, str]) -> LaunchTemplate:
    return LaunchTemplate(
        id=specification["LaunchTemplateId"], version=specification.get("Version", "$Default")
    )
