"""Instances as EC2 writes them; by hand, because a page holds a thousand."""

from xml.sax.saxutils import escape

from moto.ec2.models.subnets import Subnet

from simulator.aws.estate import Estate
from simulator.aws.network import address_of, security_group_of
from simulator.machines import Machine
from simulator.market import InstanceShape

STATE_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48}
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<{0} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
REASONS = {
    "spot-interruption": (
        "Server.SpotInstanceTermination",
        "Server.SpotInstanceTermination: Spot instance termination",
    ),
    "hardware": ("Server.InternalError", "Server.InternalError: Internal error on launch"),
}
USER_SHUTDOWN = ("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")


def document(root: str, content: str, *, next_token: str | None = None, request_id: str = "simulated") -> str:
    """A whole EC2 answer."""
    token = f"<nextToken>{next_token}</nextToken>" if next_token else ""
    return f"{HEAD.format(root)}<requestId>{request_id}</requestId>{content}{token}</{root}>"


def reservation(estate: Estate, machines: list[Machine]) -> str:
    """What a RunInstances answer holds: the reservation's fields and its instances."""
    first = machines[0]
    instances = "".join(_instance(estate, machine) for machine in machines)
    return (
        f"<reservationId>r-{estate.digest('reservation', first.instance_id)}</reservationId>"
        f"<ownerId>{first.account_id}</ownerId><groupSet/><instancesSet>{instances}</instancesSet>"
    )


def reservations(estate: Estate, machines: list[Machine]) -> str:
    """One reservation per machine."""
    items = "".join(f"<item>{reservation(estate, [machine])}</item>" for machine in machines)
    return f"<reservationSet>{items}</reservationSet>"


def state(machine: Machine) -> str:
    """The state as code and name."""
    return f"<code>{STATE_CODES[machine.state]}</code><name>{machine.state}</name>"


def _instance(estate: Estate, machine: Machine) -> str:
    gone = machine.state == "terminated"
    shape = estate.market.shape(machine.instance_type)
    subnet = estate.addresses.subnet_of(machine)
    dns = "" if gone else machine.private_dns
    return (
        f"<item><instanceId>{machine.instance_id}</instanceId>"
        f"<imageId>{image_id(estate, machine, shape)}</imageId>"
        f"<instanceState>{state(machine)}</instanceState>"
        f"<privateDnsName>{dns}</privateDnsName><dnsName/><amiLaunchIndex>0</amiLaunchIndex><productCodes/>"
        f"<instanceType>{machine.instance_type}</instanceType>"
        f"<launchTime>{timestamp(machine)}</launchTime>"
        f"<placement><availabilityZone>{machine.zone}</availabilityZone>"
        f"<availabilityZoneId>{machine.zone_id}</availabilityZoneId><groupName/><tenancy>default</tenancy></placement>"
        f"<monitoring><state>disabled</state></monitoring>"
        f"{'' if gone else _network(machine, subnet)}"
        f"<architecture>{'arm64' if shape.arch == 'arm64' else 'x86_64'}</architecture>"
        f"<rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/xvda</rootDeviceName>"
        f"{_volumes(estate, machine)}<virtualizationType>hvm</virtualizationType>"
        f"<clientToken>{escape(machine.client_token or '')}</clientToken>{_tags(machine)}"
        f"<hypervisor>xen</hypervisor><ebsOptimized>true</ebsOptimized><enaSupport>true</enaSupport>"
        f"<platformDetails>Linux/UNIX</platformDetails><usageOperation>RunInstances</usageOperation>"
        f"{_profile(machine)}{_lifecycle(estate, machine)}{_reason(machine)}</item>"
    )


def image_id(estate: Estate, machine: Machine, shape: InstanceShape) -> str:
    """The EKS image a machine of this architecture runs."""
    return f"ami-{estate.digest('ami', machine.account_id, machine.region, shape.arch)}"


def timestamp(machine: Machine) -> str:
    """When the machine was launched."""
    return machine.launched_at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _network(machine: Machine, subnet: Subnet) -> str:
    group = security_group_of(subnet)
    return (
        f"<subnetId>{subnet.id}</subnetId><vpcId>{subnet.vpc_id}</vpcId>"
        f"<privateIpAddress>{address_of(machine)}</privateIpAddress><sourceDestCheck>true</sourceDestCheck>"
        f"<groupSet><item><groupId>{group.id}</groupId><groupName>{group.name}</groupName></item></groupSet>"
    )


def _volumes(estate: Estate, machine: Machine) -> str:
    return (
        "<blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs>"
        f"<volumeId>vol-{estate.digest('volume', machine.instance_id)}</volumeId><status>attached</status>"
        f"<attachTime>{timestamp(machine)}</attachTime><deleteOnTermination>true</deleteOnTermination>"
        "</ebs></item></blockDeviceMapping>"
    )


def _tags(machine: Machine) -> str:
    items = "".join(
        f"<item><key>{escape(key)}</key><value>{escape(value)}</value></item>"
        for key, value in machine.tags.items()
    )
    return f"<tagSet>{items}</tagSet>"


def _profile(machine: Machine) -> str:
    if machine.cluster is None:
        return ""
    arn = f"arn:aws:iam::{machine.account_id}:instance-profile/{machine.cluster}-node"
    return f"<iamInstanceProfile><arn>{arn}</arn></iamInstanceProfile>"


def _lifecycle(estate: Estate, machine: Machine) -> str:
    if machine.lifecycle != "spot":
        return ""
    request_id = estate.digest("spot", machine.instance_id, length=8)
    return (
        "<instanceLifecycle>spot</instanceLifecycle>"
        f"<spotInstanceRequestId>sir-{request_id}</spotInstanceRequestId>"
    )


def _reason(machine: Machine) -> str:
    if machine.is_alive:
        return ""
    code, message = REASONS.get(machine.termination_reason, USER_SHUTDOWN)
    transition = (
        f"User initiated ({machine.terminated_at:%Y-%m-%d %H:%M:%S} GMT)"
        if code == USER_SHUTDOWN[0]
        else code
    )
    reason = f"<code>{code}</code><message>{message}</message>"
    return f"<reason>{transition}</reason><stateReason>{reason}</stateReason>"
