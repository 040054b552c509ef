"""Where machines sit: moto's VPCs and subnets, and the private addresses given out in them."""

import ipaddress
import re

from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.security_groups import SecurityGroup
from moto.ec2.models.subnets import Subnet

from simulator.machines import Machine, MachineRoom

FIRST_HOST = 10


def ec2_of(account_id: str, region: str) -> EC2Backend:
    """The moto EC2 backend of one account and region."""
    return ec2_backends[account_id][region]


def address_of(machine: Machine) -> str:
    """The private IPv4 address that is in the machine's DNS name."""
    match = re.match(r"ip-(\d+)-(\d+)-(\d+)-(\d+)\.", machine.private_dns)
    if match is None:
        raise ValueError(f"{machine.private_dns} names no address.")
    return ".".join(match.groups())


def dns_name(address: str, region: str) -> str:
    """The private DNS name (and node name) of an address."""
    domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
    return f"ip-{address.replace('.', '-')}.{domain}"


def default_subnet(account_id: str, region: str, zone: str | None) -> Subnet:
    """The default VPC's subnet in a zone (the first zone without one); LookupError when there is none."""
    subnets = ec2_of(account_id, region).get_default_subnets()
    return subnets[zone or min(subnets)]


def security_group_of(subnet: Subnet) -> SecurityGroup:
    """The security group that nodes in this subnet's VPC wear: the cluster's, else the default one."""
    groups = list(subnet.ec2_backend.groups[subnet.vpc_id].values())
    named = [group for group in groups if group.name != "default"]
    found: SecurityGroup = (named or groups)[0]
    return found


class Addresses:
    """Gives out private addresses, never one that a known machine has or had."""

    def __init__(self, room: MachineRoom) -> None:
        self._room = room
        self._next: dict[str, int] = {}
        self._subnets: dict[str, Subnet] = {}

    def take(self, subnet: Subnet) -> str:
        """A free address; RuntimeError when the subnet is full."""
        if subnet.id not in self._next:
            self._next[subnet.id] = self._first_free(subnet)
        offset = self._next[subnet.id]
        if offset >= subnet.cidr.num_addresses - 1:
            raise RuntimeError(f"{subnet.id} has no free addresses.")
        self._next[subnet.id] = offset + 1
        return str(subnet.cidr[offset])

    def subnet(self, account_id: str, region: str, subnet_id: str) -> Subnet:
        """A subnet by id; moto's InvalidSubnetID.NotFound when there is none."""
        found: Subnet = ec2_of(account_id, region).get_subnet(subnet_id)
        return found

    def subnet_of(self, machine: Machine) -> Subnet:
        """The subnet a machine's address belongs to; LookupError when no subnet holds it."""
        subnet = self._subnets.get(machine.instance_id)
        if subnet is None:
            subnet = self._subnets[machine.instance_id] = _holder(machine)
        return subnet

    def _first_free(self, subnet: Subnet) -> int:
        backend = subnet.ec2_backend
        first = int(subnet.cidr.network_address)
        taken = [
            int(ipaddress.IPv4Address(address_of(machine))) - first
            for machine in self._room.all()
            if (machine.account_id, machine.region) == (backend.account_id, backend.region_name)
        ]
        inside = [offset for offset in taken if 0 <= offset < subnet.cidr.num_addresses]
        return max(inside, default=FIRST_HOST - 1) + 1


def _holder(machine: Machine) -> Subnet:
    address = ipaddress.IPv4Address(address_of(machine))
    zones = ec2_of(machine.account_id, machine.region).subnets
    for subnet in zones.get(machine.zone, {}).values():
        if address in subnet.cidr:
            found: Subnet = subnet
            return found
    raise LookupError(f"No subnet of {machine.zone} holds {address}.")
