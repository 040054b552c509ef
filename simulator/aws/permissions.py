"""Which permissions a call needs: actions, resources, and the values its conditions can ask about."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from simulator.aws.estate import Estate
from simulator.aws.groups import Groups
from simulator.aws.launching import tags_for, template_version
from simulator.aws.network import ec2_of

Parameters = Callable[[str], Any]
Context = dict[str, str | list[str]]

ON_INSTANCES = frozenset(
    {"TerminateInstances", "StopInstances", "StartInstances", "RebootInstances", "ModifyInstanceAttribute"}
)
ON_TEMPLATE = frozenset(
    {
        "DeleteLaunchTemplate",
        "DeleteLaunchTemplateVersions",
        "CreateLaunchTemplateVersion",
        "ModifyLaunchTemplate",
    }
)
LAUNCHES = frozenset({"RunInstances", "CreateFleet"})
EC2_RESOURCES = {
    "i": "instance",
    "lt": "launch-template",
    "vol": "volume",
    "subnet": "subnet",
    "fleet": "fleet",
}


@dataclass(frozen=True, slots=True)
class Need:
    """One permission that the caller must have."""

    action: str
    resource: str = "*"
    context: Context = field(default_factory=dict)


class Permissions:
    """Derives the needs of a call from its parameters and from the tags of what it touches."""

    def __init__(self, estate: Estate, groups: Groups) -> None:
        self._estate = estate
        self._groups = groups

    def needed(
        self, service: str, action: str, read: Parameters, *, account_id: str, region: str
    ) -> list[Need]:
        """Every permission the call needs; all must be given."""
        if (service, action) == ("sts", "GetCallerIdentity"):  # AWS lets everyone ask who they are
            return []
        place = (account_id, region)
        find = {
            "ec2": self._ec2,
            "autoscaling": self._autoscaling,
            "eks": self._eks,
            "sts": self._sts,
            "sqs": self._sqs,
        }.get(service)
        needs = list(find(action, read, place)) if find else []
        always: Context = {"aws:RequestedRegion": region, "ec2:Region": region}
        return [
            Need(need.action, need.resource, {**always, **need.context})
            for need in needs or [Need(f"{service}:{action}")]
        ]

    def _sts(self, action: str, read: Parameters, _: tuple[str, str]) -> Iterator[Need]:
        if action == "AssumeRole":
            yield Need("sts:AssumeRole", str(read("RoleArn")))

    def _ec2(self, action: str, read: Parameters, place: tuple[str, str]) -> Iterator[Need]:
        if action in LAUNCHES:
            yield from self._launch(action, read, place)
        elif action in ON_INSTANCES:
            for instance_id in read("InstanceIds") or [read("InstanceId")]:
                yield self._on_resource(action, str(instance_id), place)
        elif action in ON_TEMPLATE:
            yield self._on_resource(action, _template_id(read, place), place)
        elif action == "CreateLaunchTemplate":
            tags = tags_for(read("TagSpecifications") or [], "launch-template")
            yield from self._create("launch-template", tags, action, place)
        elif action in {"CreateTags", "DeleteTags"}:
            tags = {tag["Key"]: tag.get("Value") or "" for tag in read("Tags") or []}
            for resource_id in read("Resources") or []:
                need = self._on_resource(action, resource_id, place)
                yield Need(need.action, need.resource, {**need.context, **_request_tags(tags)})

    def _launch(self, action: str, read: Parameters, place: tuple[str, str]) -> Iterator[Need]:
        """RunInstances on each kind of resource it touches; CreateFleet needs that and its own permission."""
        specifications = list(read("TagSpecifications") or [])
        configs = read("LaunchTemplateConfigs") or []
        chosen = [config.get("LaunchTemplateSpecification") for config in configs] or [read("LaunchTemplate")]
        data: dict[str, Any] = {}
        for specification in filter(None, chosen):
            version = template_version(*place, specification)
            data = version.data
            specifications += data.get("TagSpecifications") or []
            yield self._on_resource("RunInstances", version.template.id, place)
        if action == "CreateFleet":
            yield Need(
                "ec2:CreateFleet", _arn("fleet", "*", place), _request_tags(tags_for(specifications, "fleet"))
            )
        yield from self._create("instance", tags_for(specifications, "instance"), "RunInstances", place)
        for kind in ("volume", "network-interface", "subnet", "security-group"):
            yield Need(
                "ec2:RunInstances", _arn(kind, "*", place), _request_tags(tags_for(specifications, kind))
            )
        yield Need("ec2:RunInstances", f"arn:aws:ec2:{place[1]}::image/*")
        yield from _pass_role(read("IamInstanceProfile") or data.get("IamInstanceProfile") or {}, place[0])

    def _create(self, kind: str, tags: dict[str, str], action: str, place: tuple[str, str]) -> Iterator[Need]:
        """Creating a resource with tags needs CreateTags as well."""
        resource, context = _arn(kind, "*", place), _request_tags(tags)
        yield Need(f"ec2:{action}", resource, context)
        if tags:
            yield Need("ec2:CreateTags", resource, {**context, "ec2:CreateAction": action})

    def _on_resource(self, action: str, resource_id: str, place: tuple[str, str]) -> Need:
        machine = self._estate.machine(*place, resource_id)
        tags = machine.tags if machine else ec2_of(*place).tags.get(resource_id, {})
        kind = EC2_RESOURCES.get(resource_id.partition("-")[0], "*")
        return Need(f"ec2:{action}", _arn(kind, resource_id, place), _resource_tags(tags, "aws", "ec2"))

    def _autoscaling(self, action: str, read: Parameters, place: tuple[str, str]) -> Iterator[Need]:
        name = read("AutoScalingGroupName")
        machine = self._estate.machine(*place, str(read("InstanceId"))) if not name else None
        name = name or (machine.group if machine else None)
        if name and not action.startswith("Describe"):
            arn = f"arn:aws:autoscaling:{place[1]}:{place[0]}:autoScalingGroup:*:autoScalingGroupName/{name}"
            tags = self._groups.get(*place, name).tag_map if self._groups.exists(*place, name) else {}
            yield Need(f"autoscaling:{action}", arn, _resource_tags(tags, "aws", "autoscaling"))

    def _sqs(self, action: str, read: Parameters, place: tuple[str, str]) -> Iterator[Need]:
        name = read("QueueName") or str(read("QueueUrl") or "").rpartition("/")[2]
        single = action.removesuffix("Batch")
        context: Context = {"aws:ResourceAccount": place[0]}
        yield Need(f"sqs:{single}", f"arn:aws:sqs:{place[1]}:{place[0]}:{name}", context)

    def _eks(self, action: str, read: Parameters, place: tuple[str, str]) -> Iterator[Need]:
        name = read("name")
        if name and action != "CreateCluster":
            kind = (
                f"cluster/{name}"
                if not read("nodegroupName")
                else f"nodegroup/{name}/{read('nodegroupName')}/*"
            )
            yield Need(f"eks:{action}", f"arn:aws:eks:{place[1]}:{place[0]}:{kind}")


def _template_id(read: Parameters, place: tuple[str, str]) -> str:
    given = read("LaunchTemplateId")
    return str(given or ec2_of(*place).launch_template_name_to_ids.get(read("LaunchTemplateName"), "*"))


def _pass_role(profile: dict[str, str], account_id: str) -> Iterator[Need]:
    name = profile.get("Name") or profile.get("Arn", "").rpartition("/")[2]
    if name:
        context: Context = {"iam:PassedToService": "ec2.amazonaws.com"}
        yield Need("iam:PassRole", f"arn:aws:iam::{account_id}:role/{name}", context)


def _arn(kind: str, name: str, place: tuple[str, str]) -> str:
    return f"arn:aws:ec2:{place[1]}:{place[0]}:{kind}/{name}"


def _request_tags(tags: dict[str, str]) -> Context:
    keys: Context = {"aws:TagKeys": list(tags)} if tags else {}
    return keys | {f"aws:RequestTag/{key}": value for key, value in tags.items()}


def _resource_tags(tags: dict[str, str], *prefixes: str) -> Context:
    return {f"{prefix}:ResourceTag/{key}": value for prefix in prefixes for key, value in tags.items()}
