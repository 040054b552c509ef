"""Launching machines: launch templates, user data, architecture, capacity."""

import re
from base64 import b64decode
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from moto.ec2.models.launch_templates import LaunchTemplateVersion
from moto.ec2.models.subnets import Subnet

from simulator.aws.answers import ApiError
from simulator.aws.estate import Estate
from simulator.aws.network import default_subnet, dns_name, ec2_of
from simulator.machines import Machine

CLUSTER_TAG = "kubernetes.io/cluster/"
TAINT = re.compile(r"(?P<key>[^=:]+)(=(?P<value>[^:]*))?:(?P<effect>\w+)")
JOINED_CLUSTER = re.compile(
    r"bootstrap\.sh(?:\s+--[\w-]+\s+(?:'[^']*'|\"[^\"]*\"|\S+))*\s+'?\"?([\w-]+)|cluster:\s*(?:[\w-]+:.*\n\s*)*?name:\s*\"?([\w-]+)"
)

Specification = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Launch:
    """One kind of instance to launch; `lifecycle` is spot or on-demand."""

    instance_type: str
    lifecycle: str
    subnet: Subnet
    image_id: str
    tags: dict[str, str]
    user_data: str = ""
    launched_by: str = ""
    client_token: str | None = None
    fleet_id: str | None = None
    group: str | None = None

    @property
    def zone_id(self) -> str:
        return str(self.subnet.availability_zone_id)

    @property
    def account_id(self) -> str:
        return str(self.subnet.ec2_backend.account_id)

    @property
    def region(self) -> str:
        return str(self.subnet.ec2_backend.region_name)


def template_version(account_id: str, region: str, specification: Specification) -> LaunchTemplateVersion:
    """The launch template version that a call names by id or name; ApiError if absent."""
    ec2 = ec2_of(account_id, region)
    if "LaunchTemplateId" in specification:
        template = ec2.get_launch_template(specification["LaunchTemplateId"])
    else:
        template = ec2.get_launch_template_by_name(specification["LaunchTemplateName"])
    version = template.get_version(specification.get("Version") or "$Default")
    if not version.data:
        raise ApiError(
            "InvalidLaunchTemplateId.VersionNotFound",
            f"Could not find launch template version {version.number} for {template.id}.",
        )
    return version


def launch_of(
    account_id: str, region: str, specification: Specification, version: LaunchTemplateVersion | None = None
) -> Launch:
    """What a RunInstances-shaped specification, laid over a launch template, asks for."""
    content = {
        **(version.data if version else {}),
        **{key: value for key, value in specification.items() if value},
    }
    instance_type, image_id = content.get("InstanceType"), content.get("ImageId")
    if not instance_type or not image_id:
        raise ApiError("MissingParameter", "The request must contain an instance type and an image.")
    specifications = [*((version.data if version else {}).get("TagSpecifications") or [])]
    specifications += specification.get("TagSpecifications") or []
    tags = tags_for(specifications, "instance")
    if version:
        tags["aws:ec2launchtemplate:id"] = version.template.id
        tags["aws:ec2launchtemplate:version"] = str(version.number)
    market = content.get("InstanceMarketOptions") or {}
    return Launch(
        instance_type=instance_type,
        lifecycle="spot" if market.get("MarketType") == "spot" else "on-demand",
        subnet=_subnet(account_id, region, content),
        image_id=image_id,
        tags=tags,
        user_data=_decoded(content.get("UserData")),
    )


def tags_for(specifications: list[Specification], resource_type: str) -> dict[str, str]:
    """The tags that TagSpecifications give to one type of resource."""
    return {
        tag["Key"]: tag.get("Value", "")
        for specification in specifications
        if specification.get("ResourceType") == resource_type
        for tag in specification.get("Tags", [])
    }


def obstacle(estate: Estate, launch: Launch) -> tuple[str, str] | None:
    """Why AWS would not launch this now, as (error code, message); None when it would."""
    kind, zone = launch.instance_type, launch.subnet.availability_zone
    try:
        shape = estate.market.shape(kind)
    except LookupError:
        return "InvalidParameterValue", f"Invalid value '{kind}' for InstanceType."
    images = ec2_of(launch.account_id, launch.region).describe_images(ami_ids=[launch.image_id])
    architecture = {"amd64": "x86_64"}.get(shape.arch, shape.arch)
    if images[0].architecture != architecture:
        return "InvalidParameterValue", (
            f"The architecture '{architecture}' of the specified instance type does not match the "
            f"architecture '{images[0].architecture}' of the specified AMI."
        )
    if not estate.market.offers(launch.region, launch.zone_id, kind):
        return "Unsupported", (
            f"Your requested instance type ({kind}) is not supported in your requested "
            f"Availability Zone ({zone})."
        )
    if not _has_capacity(estate, launch):
        return "InsufficientInstanceCapacity", (
            f"We currently do not have sufficient {kind} capacity in the Availability Zone "
            f"you requested ({zone})."
        )
    return None


def build(estate: Estate, launch: Launch, count: int) -> list[Machine]:
    """The machines of a launch, with ids, addresses and today's price, not yet in the room."""
    return [_machine(estate, launch) for _ in range(count)]


def registration(user_data: str) -> tuple[str | None, dict[str, str], list[dict[str, str]]]:
    """The cluster, node labels and taints that bootstrap.sh or nodeadm user data register a node with."""
    joined = JOINED_CLUSTER.search(user_data)
    cluster = (joined[1] or joined[2]) if joined else None
    labels = dict(
        pair.split("=", 1)
        for text in _flags(user_data, "node-labels")
        for pair in text.split(",")
        if "=" in pair
    )
    taints = [
        {"key": match["key"], "value": match["value"] or "", "effect": match["effect"]}
        for text in _flags(user_data, "register-with-taints")
        for match in map(TAINT.fullmatch, text.split(","))
        if match
    ]
    return cluster, labels, taints


def _machine(estate: Estate, launch: Launch) -> Machine:
    now = estate.now()
    joined, labels, taints = registration(launch.user_data)
    tagged = next((key.removeprefix(CLUSTER_TAG) for key in launch.tags if key.startswith(CLUSTER_TAG)), None)
    pool = (launch.region, launch.zone_id, launch.instance_type)
    spot = launch.lifecycle == "spot"
    market = estate.market
    slow = estate.faults.boot_seconds()
    return Machine(
        instance_id=estate.new_instance_id(),
        account_id=launch.account_id,
        region=launch.region,
        zone=launch.subnet.availability_zone,
        zone_id=launch.zone_id,
        instance_type=launch.instance_type,
        lifecycle=launch.lifecycle,
        usd_per_hour=market.spot(*pool, now) if spot else market.on_demand(pool[0], pool[2]),
        launched_at=now,
        ready_at=now + timedelta(seconds=slow) if slow else None,
        private_dns=dns_name(estate.addresses.take(launch.subnet), launch.region),
        cluster=tagged or joined,
        group=launch.group,
        labels=labels,
        taints=taints,
        tags=dict(launch.tags),
        client_token=launch.client_token,
        fleet_id=launch.fleet_id,
        launched_by=launch.launched_by,
    )


def _has_capacity(estate: Estate, launch: Launch) -> bool:
    pool = (launch.zone_id, launch.instance_type)
    if estate.faults.is_dry(*pool, launch.lifecycle):
        return False
    return launch.lifecycle == "on-demand" or estate.market.has_capacity(launch.region, *pool, estate.now())


def _subnet(account_id: str, region: str, content: Specification) -> Subnet:
    interfaces = content.get("NetworkInterfaces") or [{}]
    subnet_id = content.get("SubnetId") or interfaces[0].get("SubnetId")
    if subnet_id:
        found: Subnet = ec2_of(account_id, region).get_subnet(subnet_id)
        return found
    zone = (content.get("Placement") or {}).get("AvailabilityZone") or content.get("AvailabilityZone")
    try:
        return default_subnet(account_id, region, zone)
    except LookupError as missing:
        raise ApiError("InvalidParameterValue", f"Invalid availability zone: [{zone}]") from missing


def _decoded(user_data: Any) -> str:
    return b64decode(str(user_data)).decode(errors="replace") if user_data else ""


def _flags(user_data: str, name: str) -> list[str]:
    return [match[1] for match in re.finditer(rf"--{name}[= ]([^\s'\"]+)", user_data)]
