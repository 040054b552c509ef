"""Auto Scaling: groups of the world's machines."""

from typing import Any

from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult

from simulator.aws.answers import ApiError
from simulator.aws.filters import page_of
from simulator.aws.groups import Activity, Group, Groups
from simulator.aws.launching import template_version
from simulator.aws.operation import Operation
from simulator.machines import Machine

USUAL_PAGE, LARGEST_PAGE = 50, 100
LIFECYCLE = {"pending": "Pending", "running": "InService", "shutting-down": "Terminating"}


class SimulatedAutoScaling(Operation, AutoScalingResponse):
    """The actions on groups and their members; everything else is not simulated."""

    groups: Groups

    def create_auto_scaling_group(self) -> ActionResult:
        name, subnets = self._get_param("AutoScalingGroupName"), self._get_param("VPCZoneIdentifier")
        template = self._get_param("LaunchTemplate")
        if self.groups.exists(*self.place, name):
            raise ApiError("AlreadyExists", "AutoScalingGroup by this name already exists")
        if not template or not subnets or self._get_param("MixedInstancesPolicy"):
            raise ApiError("ValidationError", "Only groups with a launch template and subnets are simulated.")
        low, high = self._get_int_param("MinSize", 0), self._get_int_param("MaxSize", 0)
        group = Group(
            name=name,
            account_id=self.place[0],
            region=self.region,
            min_size=low,
            max_size=high,
            desired=low,
            subnet_ids=subnets.split(","),
            template=dict(template),
            created_at=self.estate.now().isoformat(),
            tags=[dict(tag) for tag in self._get_param("Tags", [])],
            protects_new=self._get_bool_param("NewInstancesProtectedFromScaleIn", False),
        )
        template_version(*self.place, group.template)
        self.groups.resize(group, desired=self._get_int_param("DesiredCapacity", low))
        return EmptyResult()

    def describe_auto_scaling_groups(self) -> ActionResult:
        names, size = (
            self._get_param("AutoScalingGroupNames", []),
            self._get_int_param("MaxRecords", USUAL_PAGE),
        )
        if not 1 <= size <= LARGEST_PAGE:
            raise ApiError("ValidationError", f"MaxRecords must be between 1 and {LARGEST_PAGE}.")
        found = [
            group
            for group in self.groups.all(*self.place)
            if (not names or group.name in names) and self._passes(group)
        ]
        page, token = page_of(found, self._get_param("NextToken"), size)
        return ActionResult(
            {"AutoScalingGroups": [self._described(group) for group in page], "NextToken": token}
        )

    def update_auto_scaling_group(self) -> ActionResult:
        group = self._group()
        if subnets := self._get_param("VPCZoneIdentifier"):
            group.subnet_ids = subnets.split(",")
        if template := self._get_param("LaunchTemplate"):
            template_version(*self.place, template)
            group.template = dict(template)
        if (protects := self._get_bool_param("NewInstancesProtectedFromScaleIn")) is not None:
            group.protects_new = protects
        self.groups.resize(
            group,
            minimum=self._get_int_param("MinSize"),
            maximum=self._get_int_param("MaxSize"),
            desired=self._get_int_param("DesiredCapacity"),
        )
        return EmptyResult()

    def set_desired_capacity(self) -> ActionResult:
        group, wanted = self._group(), self._get_int_param("DesiredCapacity")
        if not group.min_size <= wanted <= group.max_size:
            side, limit = (
                ("below min", group.min_size) if wanted < group.min_size else ("above max", group.max_size)
            )
            raise ApiError(
                "ValidationError",
                f"New SetDesiredCapacity value {wanted} is {side} value {limit} for the AutoScalingGroup.",
            )
        self.groups.resize(group, desired=wanted)
        return EmptyResult()

    def delete_auto_scaling_group(self) -> ActionResult:
        group = self._group()
        members = self.groups.members(group)
        if members and not self._get_bool_param("ForceDelete", False):
            raise ApiError(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances in the group.",
            )
        self.groups.release(group, members, decrement=False, terminate=True)
        self.groups.remove(group)
        return EmptyResult()

    def describe_auto_scaling_instances(self) -> ActionResult:
        ids = self._get_param("InstanceIds", [])
        details = [
            {**self._member(group, machine), "AutoScalingGroupName": group.name}
            for group in self.groups.all(*self.place)
            for machine in self.groups.members(group)
            if not ids or machine.instance_id in ids
        ]
        page, token = page_of(
            details, self._get_param("NextToken"), self._get_int_param("MaxRecords", USUAL_PAGE)
        )
        return ActionResult({"AutoScalingInstances": page, "NextToken": token})

    def terminate_instance_in_auto_scaling_group(self) -> ActionResult:
        group, machine = self._membership(self._get_param("InstanceId"))
        decrement = self._get_bool_param("ShouldDecrementDesiredCapacity", False)
        activity = self.groups.release(group, [machine], decrement=decrement, terminate=True)[0]
        return ActionResult({"Activity": _activity(group, activity, "InProgress")})

    def detach_instances(self) -> ActionResult:
        group = self._group()
        members = {machine.instance_id: machine for machine in self.groups.members(group)}
        ids = self._get_param("InstanceIds", [])
        for instance_id in ids:
            if instance_id not in members:
                raise ApiError("ValidationError", f"The instance {instance_id} is not part of {group.name}.")
        decrement = self._get_bool_param("ShouldDecrementDesiredCapacity", False)
        leaving = [members[instance_id] for instance_id in ids]
        done = self.groups.release(group, leaving, decrement=decrement, terminate=False)
        return ActionResult({"Activities": [_activity(group, activity, "InProgress") for activity in done]})

    def suspend_processes(self) -> ActionResult:
        group = self._group()
        named = self._get_param("ScalingProcesses", []) or list(PROCESSES)
        group.suspended = sorted({*group.suspended, *named})
        self.groups.save(group)
        return EmptyResult()

    def resume_processes(self) -> ActionResult:
        group = self._group()
        named = set(self._get_param("ScalingProcesses", []) or PROCESSES)
        group.suspended = [process for process in group.suspended if process not in named]
        self.groups.save(group)
        return EmptyResult()

    def set_instance_protection(self) -> ActionResult:
        group, ids = self._group(), set(self._get_param("InstanceIds", []))
        kept = set(group.protected) - ids
        group.protected = sorted(kept | ids if self._get_bool_param("ProtectedFromScaleIn", False) else kept)
        self.groups.save(group)
        return EmptyResult()

    def describe_scaling_activities(self) -> ActionResult:
        group = self._group()
        page, token = page_of(
            self.groups.activities(group),
            self._get_param("NextToken"),
            self._get_int_param("MaxRecords", LARGEST_PAGE),
        )
        described = [_activity(group, entry, "Failed" if entry.failure else "Successful") for entry in page]
        return ActionResult({"Activities": described, "NextToken": token})

    def create_or_update_tags(self) -> ActionResult:
        for tag in self._get_param("Tags", []):
            group = self.groups.get(*self.place, tag["ResourceId"])
            group.tags = [old for old in group.tags if old["Key"] != tag["Key"]] + [dict(tag)]
            self.groups.save(group)
        return EmptyResult()

    def delete_tags(self) -> ActionResult:
        for tag in self._get_param("Tags", []):
            group = self.groups.get(*self.place, tag["ResourceId"])
            group.tags = [old for old in group.tags if old["Key"] != tag["Key"]]
            self.groups.save(group)
        return EmptyResult()

    def describe_tags(self) -> ActionResult:
        tags = [tag for group in self.groups.all(*self.place) for tag in _tags(group)]
        for item in self._get_param("Filters", []):
            read = {"auto-scaling-group": "ResourceId", "key": "Key", "value": "Value"}[item["Name"]]
            tags = [tag for tag in tags if tag[read] in item["Values"]]
        return ActionResult({"Tags": tags, "NextToken": None})

    def _group(self) -> Group:
        return self.groups.get(*self.place, self._get_param("AutoScalingGroupName"))

    def _membership(self, instance_id: str) -> tuple[Group, Machine]:
        machine = self.estate.machine(*self.place, instance_id)
        group = self.groups.of_machine(machine) if machine and machine.is_alive else None
        if machine is None or group is None:
            raise ApiError(
                "ValidationError",
                f"Instance Id not found - No managed instance found for instance ID: {instance_id}",
            )
        return group, machine

    def _passes(self, group: Group) -> bool:
        for item in self._get_param("Filters", []):
            name, values = item["Name"], item.get("Values", [])
            if name == "tag-key":
                kept = bool(set(values) & group.tag_map.keys())
            elif name == "tag-value":
                kept = bool(set(values) & set(group.tag_map.values()))
            else:
                kept = group.tag_map.get(name.removeprefix("tag:")) in values
            if not kept:
                return False
        return True

    def _described(self, group: Group) -> dict[str, Any]:
        ec2 = self.estate.addresses
        subnets = [ec2.subnet(group.account_id, group.region, subnet_id) for subnet_id in group.subnet_ids]
        return {
            "AutoScalingGroupName": group.name,
            "AutoScalingGroupARN": arn_of(group),
            "LaunchTemplate": self._template(group),
            "MinSize": group.min_size,
            "MaxSize": group.max_size,
            "DesiredCapacity": group.desired,
            "DefaultCooldown": group.cooldown_seconds,
            "AvailabilityZones": sorted({subnet.availability_zone for subnet in subnets}),
            "LoadBalancerNames": [],
            "HealthCheckType": group.health_check_type,
            "HealthCheckGracePeriod": 300,
            "Instances": [self._member(group, machine) for machine in self.groups.members(group)],
            "CreatedTime": group.created_at,
            "SuspendedProcesses": [
                {"ProcessName": process, "SuspensionReason": "User suspended"} for process in group.suspended
            ],
            "VPCZoneIdentifier": ",".join(group.subnet_ids),
            "Tags": _tags(group),
            "TerminationPolicies": ["Default"],
            "NewInstancesProtectedFromScaleIn": group.protects_new,
        }

    def _member(self, group: Group, machine: Machine) -> dict[str, Any]:
        return {
            "InstanceId": machine.instance_id,
            "InstanceType": machine.instance_type,
            "AvailabilityZone": machine.zone,
            "LifecycleState": LIFECYCLE[machine.state],
            "HealthStatus": "Healthy" if machine.failed_at is None else "Unhealthy",
            "LaunchTemplate": self._template(group),
            "ProtectedFromScaleIn": machine.instance_id in group.protected,
        }

    def _template(self, group: Group) -> dict[str, Any]:
        version = template_version(group.account_id, group.region, group.template)
        return {
            "LaunchTemplateId": version.template.id,
            "LaunchTemplateName": version.template.name,
            "Version": group.template.get("Version") or "$Default",
        }


PROCESSES = (
    "AddToLoadBalancer", "AlarmNotification", "AZRebalance", "HealthCheck", "InstanceRefresh", "Launch",
    "ReplaceUnhealthy", "ScheduledActions", "Terminate",
)  # fmt: skip


def arn_of(group: Group) -> str:
    """The group's ARN."""
    return (
        f"arn:aws:autoscaling:{group.region}:{group.account_id}:autoScalingGroup:"
        f"00000000-0000-4000-8000-000000000000:autoScalingGroupName/{group.name}"
    )


def _tags(group: Group) -> list[dict[str, Any]]:
    fixed = {"ResourceId": group.name, "ResourceType": "auto-scaling-group"}
    return [
        {
            **fixed,
            "Key": tag["Key"],
            "Value": tag.get("Value", ""),
            "PropagateAtLaunch": bool(tag.get("PropagateAtLaunch")),
        }
        for tag in group.tags
    ]


def _activity(group: Group, activity: Activity, status: str) -> dict[str, Any]:
    return {
        "ActivityId": f"00000000-0000-4000-8000-{activity.number:012d}",
        "AutoScalingGroupName": group.name,
        "Description": activity.description,
        "Cause": f"At {activity.at:%Y-%m-%dT%H:%M:%SZ} {activity.cause}.",
        "StartTime": activity.at,
        "StatusCode": status,
        "StatusMessage": activity.failure or None,
        "Progress": 50 if status == "InProgress" else 100,
    }
