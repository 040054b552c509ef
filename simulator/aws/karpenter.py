"""What Karpenter buys on EC2, under its own role: one instance in the cluster's subnets."""

from datetime import datetime
from decimal import Decimal

from moto.ec2.models.subnets import Subnet
from moto.eks.models import eks_backends

from simulator.aws.estate import Estate
from simulator.aws.launching import Launch, build, obstacle
from simulator.aws.network import ec2_of
from simulator.kube.orders import Choice, Order, labels_of
from simulator.machines import Machine

RISK_WEIGHT = Decimal("0.15")
"""How much a step of the Spot Advisor weighs against price, as in the fleets of this AWS."""


class Ec2Seller:
    """Sells from the one AWS of this process, with its capacity and faults."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate

    def offered(self, region: str, zone_id: str) -> frozenset[str]:
        """The types that the zone sells."""
        return self._estate.market.offered(region, zone_id)

    def buy(self, order: Order, now: datetime) -> Machine | None:
        """Launch the best choice that AWS has, spot before on-demand; None when it has none of them."""
        with self._estate.lock:
            subnets = _subnets(order)
            for _, choice in sorted((self._rank(order, choice, now), choice) for choice in order.choices):
                if machine := self._launch(order, choice, subnets.get(choice.zone), now):
                    self._estate.room.launch(machine)
                    return machine
        return None

    def _rank(self, order: Order, choice: Choice, now: datetime) -> tuple[bool, Decimal]:
        market, kind = self._estate.market, choice.instance_type
        try:
            if choice.capacity_type == "on-demand":
                return True, market.on_demand(order.region, kind)
            price = market.spot(order.region, choice.zone_id, kind, now)
        except LookupError:
            return True, Decimal("Infinity")
        return False, price * (1 + RISK_WEIGHT * market.interruption_bucket(order.region, kind))

    def _launch(self, order: Order, choice: Choice, subnet: Subnet | None, now: datetime) -> Machine | None:
        if subnet is None:
            return None
        market = self._estate.market
        shape = market.shape(choice.instance_type)
        launch = Launch(
            instance_type=choice.instance_type,
            lifecycle=choice.capacity_type,
            subnet=subnet,
            image_id=_image(order, shape.arch),
            tags=dict(order.tags),
            launched_by="karpenter",
        )
        if obstacle(self._estate, launch) is not None:
            return None
        [machine] = build(self._estate, launch, 1)
        machine.launched_at = now  # at the birth of a world its clusters live through the past
        machine.labels = {**order.labels, **labels_of(choice, shape.vcpu)}
        machine.taints = [dict(taint) for taint in order.taints]
        return machine


def _subnets(order: Order) -> dict[str, Subnet]:
    cluster = eks_backends[order.account_id][order.region].clusters[order.cluster]
    ec2 = ec2_of(order.account_id, order.region)
    found = [ec2.get_subnet(name) for name in cluster.resources_vpc_config["subnetIds"]]
    return {subnet.availability_zone: subnet for subnet in found}


def _image(order: Order, arch: str) -> str:
    architecture = {"amd64": "x86_64"}.get(arch, arch)
    images = ec2_of(order.account_id, order.region).amis.values()
    return next(str(image.id) for image in images if f"-{architecture}-" in str(image.name))
