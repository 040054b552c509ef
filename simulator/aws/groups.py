"""Auto Scaling groups: sizes, members, replacement, scale-in."""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from simulator.aws.answers import ApiError
from simulator.aws.estate import Estate
from simulator.aws.launching import Launch, build, launch_of, obstacle, template_version
from simulator.machines import Machine

RETRY_AFTER = timedelta(seconds=60)
UNHEALTHY_AFTER = timedelta(minutes=2)
SERVICE_ROLE = "arn:aws:iam::{}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"


@dataclass(slots=True)
class Group:
    """An Auto Scaling group; its members are the machines that name it, save the detached ones."""

    name: str
    account_id: str
    region: str
    min_size: int
    max_size: int
    desired: int
    subnet_ids: list[str]
    template: dict[str, str]
    created_at: str
    tags: list[dict[str, Any]] = field(default_factory=list)
    suspended: list[str] = field(default_factory=list)
    protected: list[str] = field(default_factory=list)
    detached: list[str] = field(default_factory=list)
    removing: list[str] = field(default_factory=list)
    protects_new: bool = False
    health_check_type: str = "EC2"
    cooldown_seconds: int = 300

    @property
    def key(self) -> str:
        return f"group/{self.account_id}/{self.region}/{self.name}"

    @property
    def tag_map(self) -> dict[str, str]:
        return {tag["Key"]: tag.get("Value", "") for tag in self.tags}


@dataclass(frozen=True, slots=True)
class Activity:
    """One thing a group did or failed to do."""

    number: int
    group: str
    at: datetime
    description: str
    cause: str
    failure: str = ""


class Groups:
    """Every Auto Scaling group of the estate, journaled at each change."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._groups = {key: Group(**record) for key, record in estate.journal.read("group/").items()}
        self._retry_at: dict[str, datetime] = {}
        self._activities: list[Activity] = []

    def all(self, account_id: str, region: str) -> list[Group]:
        """The groups of one account and region, by name."""
        found = [
            group
            for group in self._groups.values()
            if (group.account_id, group.region) == (account_id, region)
        ]
        return sorted(found, key=lambda group: group.name)

    def get(self, account_id: str, region: str, name: str) -> Group:
        """The group; ApiError (ValidationError) when there is none."""
        group = self._groups.get(f"group/{account_id}/{region}/{name}")
        if group is None:
            raise ApiError("ValidationError", f"AutoScalingGroup name not found - AutoScalingGroup {name}")
        return group

    def exists(self, account_id: str, region: str, name: str) -> bool:
        return f"group/{account_id}/{region}/{name}" in self._groups

    def save(self, *groups: Group) -> None:
        """Keep the groups as they are now."""
        self._estate.journal.write({group.key: asdict(group) for group in groups})
        self._groups.update({group.key: group for group in groups})

    def remove(self, group: Group) -> None:
        self._estate.journal.write({group.key: None})
        self._groups.pop(group.key, None)

    def members(self, group: Group) -> list[Machine]:
        """The group's living machines, oldest first."""
        found = [
            machine
            for machine in self._estate.room.alive()
            if machine.group == group.name
            and (machine.account_id, machine.region) == (group.account_id, group.region)
            and machine.instance_id not in group.detached
        ]
        return sorted(found, key=lambda machine: (machine.launched_at, machine.instance_id))

    def of_machine(self, machine: Machine) -> Group | None:
        """The group a machine is a member of, or None."""
        group = self._groups.get(f"group/{machine.account_id}/{machine.region}/{machine.group}")
        return group if group and machine.instance_id not in group.detached else None

    def activities(self, group: Group) -> list[Activity]:
        """What the group did since the simulator started, newest first."""
        return [activity for activity in reversed(self._activities) if activity.group == group.key]

    def resize(
        self,
        group: Group,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
        desired: int | None = None,
    ) -> None:
        """Change the sizes as UpdateAutoScalingGroup does; ApiError when they contradict."""
        low = group.min_size if minimum is None else minimum
        high = group.max_size if maximum is None else maximum
        if low > high:
            raise ApiError(
                "ValidationError", f"Max bound, {high}, must be greater than or equal to min bound, {low}"
            )
        wanted = min(max(group.desired, low), high) if desired is None else desired
        if not low <= wanted <= high:
            raise ApiError(
                "ValidationError",
                f"Desired capacity:{wanted} must be between the specified min size:{low} and max size:{high}",
            )
        group.min_size, group.max_size, group.desired = low, high, wanted
        self.save(group)

    def release(
        self, group: Group, machines: list[Machine], *, decrement: bool, terminate: bool
    ) -> list[Activity]:
        """Terminate or detach members, with or without a replacement; refuse to go below the minimum."""
        if decrement and group.desired - len(machines) < group.min_size:
            raise ApiError(
                "ValidationError",
                f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without "
                "replacement will violate group's min size constraint. Either set "
                "shouldDecrementDesiredCapacity flag to false or lower group's min size.",
            )
        group.desired -= len(machines) if decrement else 0
        ids = [machine.instance_id for machine in machines]
        if terminate:
            group.removing.extend(ids)
        else:
            group.detached.extend(ids)
        self.save(group)
        word = "Terminating" if terminate else "Detaching"
        done = [
            self._note(
                group,
                f"{word} EC2 instance: {instance_id}",
                f"instance {instance_id} was taken out of service",
            )
            for instance_id in ids
        ]
        self._finish_removals(group)
        return done

    def reconcile(self) -> None:
        """Bring every group to its desired size: replace what is gone, remove what is too much."""
        for group in list(self._groups.values()):
            self._finish_removals(group)
            self._retire_broken(group)
            members = self.members(group)
            missing = group.desired - len(members)
            if missing > 0 and "Launch" not in group.suspended:
                self._grow(group, members, missing)
            elif missing < 0 and "Terminate" not in group.suspended:
                self._shrink(group, members, -missing)

    def _retire_broken(self, group: Group) -> None:
        """Terminate members whose hardware failed a while ago; the next step replaces them."""
        if {"HealthCheck", "ReplaceUnhealthy"} & set(group.suspended):
            return
        latest = self._estate.now() - UNHEALTHY_AFTER
        broken = [
            machine for machine in self.members(group) if machine.failed_at and machine.failed_at <= latest
        ]
        if broken:
            self.release(group, broken, decrement=False, terminate=True)

    def _grow(self, group: Group, members: list[Machine], count: int) -> None:
        if self._retry_at.get(group.key, self._estate.now()) > self._estate.now():
            return
        zones = Counter(machine.zone for machine in members)
        for _ in range(count):
            launch, reason = self._place(group, zones)
            if launch is None:
                self._retry_at[group.key] = self._estate.now() + RETRY_AFTER
                self._note(
                    group, "Launching a new EC2 instance", "the group is below its desired capacity", reason
                )
                return
            machine = build(self._estate, launch, 1)[0]
            self._estate.room.launch(machine)
            zones[machine.zone] += 1
            if group.protects_new:
                group.protected.append(machine.instance_id)
                self.save(group)
            self._note(
                group,
                f"Launching a new EC2 instance: {machine.instance_id}",
                "an instance was started in response to a difference between desired and actual capacity",
            )

    def _place(self, group: Group, zones: Counter[str]) -> tuple[Launch | None, str]:
        """The launch in the emptiest zone that has capacity, or the reason there is none."""
        version = template_version(group.account_id, group.region, group.template)
        propagated = [tag for tag in group.tags if tag.get("PropagateAtLaunch")]
        specification = [{"ResourceType": "instance", "Tags": [*propagated, _name_tag(group)]}]
        launches = [
            launch_of(
                group.account_id,
                group.region,
                {"SubnetId": subnet_id, "TagSpecifications": specification},
                version,
            )
            for subnet_id in group.subnet_ids
        ]
        reason = "The group has no subnets."
        for launch in sorted(
            launches, key=lambda launch: (zones[launch.subnet.availability_zone], launch.zone_id)
        ):
            found = obstacle(self._estate, launch)
            if found is None:
                launched_by = SERVICE_ROLE.format(group.account_id)
                return _owned(launch, group, launched_by), ""
            reason = found[1]
        return None, reason

    def _shrink(self, group: Group, members: list[Machine], count: int) -> None:
        """Scale in: from the fullest zone, the oldest machine that is not protected."""
        zones = Counter(machine.zone for machine in members)
        left = [machine for machine in members if machine.instance_id not in group.protected]
        for _ in range(min(count, len(left))):
            chosen = min(left, key=lambda machine: (-zones[machine.zone], machine.launched_at))
            left.remove(chosen)
            zones[chosen.zone] -= 1
            group.removing.append(chosen.instance_id)
            self._note(group, f"Terminating EC2 instance: {chosen.instance_id}", "the group shrank")
        self.save(group)
        self._finish_removals(group)

    def _finish_removals(self, group: Group) -> None:
        if group.removing:
            for instance_id in group.removing:
                self._estate.room.terminate(instance_id, reason="auto-scaling", at=self._estate.now())
            group.removing = []
            self.save(group)

    def _note(self, group: Group, description: str, cause: str, failure: str = "") -> Activity:
        activity = Activity(len(self._activities), group.key, self._estate.now(), description, cause, failure)
        self._activities.append(activity)
        return activity


def _name_tag(group: Group) -> dict[str, str]:
    return {"Key": "aws:autoscaling:groupName", "Value": group.name}


def _owned(launch: Launch, group: Group, launched_by: str) -> Launch:
    return replace(launch, group=group.name, launched_by=launched_by)
