"""The customer's side of AWS at the start: networks, images, clusters, groups, instances."""

import ipaddress
import json
import textwrap
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from moto.core.types import Base64EncodedString
from moto.ec2.models.amis import Ami
from moto.ec2.models.launch_templates import LaunchTemplate
from moto.ec2.models.subnets import Subnet
from moto.eks.models import EKSBackend, Nodegroup, eks_backends
from moto.moto_api._internal import mock_random

from simulator.aws.estate import Estate
from simulator.aws.groups import SERVICE_ROLE, Group, Groups
from simulator.aws.identity import iam_of
from simulator.aws.launching import Launch, build, launch_of
from simulator.aws.network import default_subnet, ec2_of
from simulator.fleet import StartingFleet
from simulator.machines import Machine, seconds_of

FACTS = "provision/facts"
EKS_IMAGES_OWNER = "602401143452"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}
STARTED_WITHIN = (30.0, 600.0)
NODE_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
USER_DATA = textwrap.dedent(
    """\
    MIME-Version: 1.0
    Content-Type: multipart/mixed; boundary="//"

    --//
    Content-Type: application/node.eks.aws

    apiVersion: node.eks.aws/v1alpha1
    kind: NodeConfig
    spec:
      cluster:
        name: {cluster}
        apiServerEndpoint: {endpoint}
      kubelet:
        flags: {flags}
    --//--
    """
)

Facts = dict[str, Any]


def facts_of(fleet: StartingFleet, now: datetime) -> Facts:
    """What AWS needs to know about a starting fleet, as JSON values."""
    accounts = []
    for account in fleet.accounts:
        clusters = [asdict(replace(cluster, workloads=())) for cluster in account.clusters]
        instances = [asdict(instances) for instances in account.instances]
        accounts.append({"account_id": account.account_id, "clusters": clusters, "instances": instances})
    plain: Facts = json.loads(json.dumps({"started_at": (now - fleet.age).isoformat(), "accounts": accounts}))
    return plain


class Provisioner:
    """Builds the same AWS from the same facts, ids included."""

    def __init__(self, estate: Estate, groups: Groups) -> None:
        self._estate = estate
        self._groups = groups
        self._imaged: set[tuple[str, str]] = set()

    def build(self, facts: Facts) -> list[Group]:
        """Put networks, roles, launch templates and clusters into moto; return the groups they start with."""
        started_at = datetime.fromisoformat(facts["started_at"])
        return [
            group
            for account in facts["accounts"]
            for number, cluster in enumerate(account["clusters"])
            for group in self._cluster(account["account_id"], number, cluster, started_at)
        ]

    def starting_machines(self, facts: Facts, groups: list[Group]) -> list[Machine]:
        """The machines that run when the world begins, launched at its beginning."""
        machines = [machine for group in groups for machine in self._members(group)]
        for account in facts["accounts"]:
            for bare in account["instances"]:
                machines += self._bare(account["account_id"], bare)
        started_at = datetime.fromisoformat(facts["started_at"])
        for machine in machines:
            machine.launched_at = started_at + timedelta(
                seconds=seconds_of(machine.instance_id, "started", STARTED_WITHIN)
            )
            machine.state, machine.launched_by = "running", "fleet:starting"
        return machines

    def provide_images(self, account_id: str, region: str) -> None:
        """Give an account its EKS images (and default network) in a region, once."""
        if (account_id, region) in self._imaged:
            return
        self._imaged.add((account_id, region))
        mock_random.seed(self._estate.digest("region", account_id, region))
        ec2 = ec2_of(account_id, region)
        for arch, architecture in ARCHITECTURES.items():
            image_id = self._image_id(account_id, region, arch)
            ec2.amis[image_id] = Ami(
                ec2,
                image_id,
                name=f"amazon-eks-node-al2023-{architecture}-standard-1.33-v20260701",
                description="EKS-optimized Kubernetes node based on Amazon Linux 2023",
                owner_id=EKS_IMAGES_OWNER,
                owner_alias="amazon",
                public=True,
                virtualization_type="hvm",
                architecture=architecture,
                root_device_type="ebs",
                root_device_name="/dev/xvda",
                hypervisor="xen",
            )

    def _cluster(self, account_id: str, number: int, cluster: Facts, started_at: datetime) -> list[Group]:
        self.provide_images(account_id, cluster["region"])
        mock_random.seed(self._estate.digest("cluster", account_id, cluster["region"], cluster["name"]))
        subnets, security_group_id = self._network(account_id, number, cluster)
        _node_profile(account_id, f"{cluster['name']}-node")
        eks: EKSBackend = eks_backends[account_id][cluster["region"]]
        made = eks.create_cluster(
            name=cluster["name"],
            role_arn=f"arn:aws:iam::{account_id}:role/{cluster['name']}-cluster",
            version=cluster["k8s_version"],
            resources_vpc_config={
                "subnetIds": [subnet.id for subnet in subnets],
                "securityGroupIds": [security_group_id],
                "clusterSecurityGroupId": security_group_id,
                "vpcId": subnets[0].vpc_id,
                "endpointPublicAccess": True,
                "endpointPrivateAccess": True,
            },
            tags={"environment": cluster["environment"], "team": "platform"},
        )
        made.created_at = started_at
        made.endpoint = f"{self._estate.kube_url}/clusters/{cluster['name']}"
        issuer = self._estate.digest("issuer", account_id, cluster["name"], length=32).upper()
        made.identity = {
            "oidc": {"issuer": f"https://oidc.eks.{cluster['region']}.amazonaws.com/id/{issuer}"}
        }
        network = (subnets, security_group_id)
        return [self._group(account_id, cluster, group, network, started_at) for group in cluster["groups"]]

    def _group(
        self,
        account_id: str,
        cluster: Facts,
        facts: Facts,
        network: tuple[list[Subnet], str],
        started_at: datetime,
    ) -> Group:
        """A launch template and the Auto Scaling group over it; with an EKS node group when managed."""
        name, subnets = group_name(cluster, facts), network[0]
        template = self._template(account_id, cluster, facts, network[1])
        if facts["kind"] == "managed":
            nodegroup = self._nodegroup(account_id, cluster, facts, subnets, template)
            nodegroup.created_at = nodegroup.modified_at = started_at
        tags = {**_node_tags(cluster, facts), **_autoscaler_tags(cluster)}
        return Group(
            name=name,
            account_id=account_id,
            region=cluster["region"],
            min_size=facts["min"],
            max_size=facts["max"],
            desired=facts["count"],
            subnet_ids=[subnet.id for subnet in subnets],
            template={"LaunchTemplateId": template.id, "Version": "1"},
            created_at=started_at.isoformat(),
            tags=[{"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in tags.items()],
        )

    def _template(
        self, account_id: str, cluster: Facts, facts: Facts, security_group_id: str
    ) -> LaunchTemplate:
        region, name = cluster["region"], group_name(cluster, facts)
        arch = self._estate.market.shape(facts["instance_type"]).arch
        data = {
            "ImageId": self._image_id(account_id, region, arch),
            "InstanceType": facts["instance_type"],
            "SecurityGroupIds": [security_group_id],
            "IamInstanceProfile": {"Name": f"{cluster['name']}-node"},
            "UserData": Base64EncodedString.from_raw_string(self._user_data(cluster, facts)),
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": _listed(_node_tags(cluster, facts))},
            ],
        }
        if facts["lifecycle"] == "spot":
            data["InstanceMarketOptions"] = {"MarketType": "spot"}
        return ec2_of(account_id, region).create_launch_template(name, "", data, {})

    def _nodegroup(
        self, account_id: str, cluster: Facts, facts: Facts, subnets: list[Subnet], template: LaunchTemplate
    ) -> Nodegroup:
        eks: EKSBackend = eks_backends[account_id][cluster["region"]]
        made = eks.create_nodegroup(
            cluster_name=cluster["name"],
            nodegroup_name=facts["name"],
            node_role=f"arn:aws:iam::{account_id}:role/{cluster['name']}-node",
            subnets=[subnet.id for subnet in subnets],
            scaling_config={"minSize": facts["min"], "maxSize": facts["max"], "desiredSize": facts["count"]},
            instance_types=[facts["instance_type"]],
            ami_type="AL2023_x86_64_STANDARD",
            labels=facts["labels"],
            taints=[_eks_taint(taint) for taint in facts["taints"]],
            tags={"environment": cluster["environment"]},
            capacity_type="SPOT" if facts["lifecycle"] == "spot" else "ON_DEMAND",
            version=cluster["k8s_version"],
            release_version=f"{cluster['k8s_version']}.1-20260701",
        )
        made.launch_template = {"id": template.id, "name": template.name, "version": "1"}
        made.resources = {"autoScalingGroups": [{"name": group_name(cluster, facts)}]}
        return made

    def _user_data(self, cluster: Facts, facts: Facts) -> str:
        """EKS labels the nodes of managed groups; this customer labels those of other groups alike."""
        capacity_type = "SPOT" if facts["lifecycle"] == "spot" else "ON_DEMAND"
        labels = {**facts["labels"], "eks.amazonaws.com/capacityType": capacity_type}
        if facts["kind"] == "managed":
            labels["eks.amazonaws.com/nodegroup"] = facts["name"]
        taints = [f"{taint['key']}={taint.get('value', '')}:{taint['effect']}" for taint in facts["taints"]]
        registered = {
            "node-labels": ",".join(f"{key}={value}" for key, value in labels.items()),
            "register-with-taints": ",".join(taints),
        }
        return USER_DATA.format(
            cluster=cluster["name"],
            endpoint=f"{self._estate.kube_url}/clusters/{cluster['name']}",
            flags=json.dumps([f"--{name}={value}" for name, value in registered.items() if value]),
        )

    def _members(self, group: Group) -> list[Machine]:
        """The group's first machines, spread over its subnets in order."""
        ec2 = ec2_of(group.account_id, group.region)
        version = ec2.get_launch_template(group.template["LaunchTemplateId"]).get_version("1")
        tags = [*group.tags, {"Key": "aws:autoscaling:groupName", "Value": group.name}]
        specification = [{"ResourceType": "instance", "Tags": tags}]
        machines: list[Machine] = []
        for index in range(group.desired):
            request = {
                "SubnetId": group.subnet_ids[index % len(group.subnet_ids)],
                "TagSpecifications": specification,
            }
            launch = launch_of(group.account_id, group.region, request, version)
            owned = replace(launch, group=group.name, launched_by=SERVICE_ROLE.format(group.account_id))
            machines += build(self._estate, owned, 1)
        return machines

    def _bare(self, account_id: str, facts: Facts) -> list[Machine]:
        arch = self._estate.market.shape(facts["instance_type"]).arch
        self.provide_images(account_id, facts["region"])
        machines: list[Machine] = []
        for index in range(facts["count"]):
            launch = Launch(
                instance_type=facts["instance_type"],
                lifecycle=facts["lifecycle"],
                subnet=default_subnet(
                    account_id, facts["region"], facts["zones"][index % len(facts["zones"])]
                ),
                image_id=self._image_id(account_id, facts["region"], arch),
                tags=facts["tags"],
            )
            machines += build(self._estate, launch, 1)
        return machines

    def _image_id(self, account_id: str, region: str, arch: str) -> str:
        return f"ami-{self._estate.digest('ami', account_id, region, arch)}"

    def _network(self, account_id: str, number: int, cluster: Facts) -> tuple[list[Subnet], str]:
        """A VPC of its own with a subnet in each zone."""
        name, ec2 = cluster["name"], ec2_of(account_id, cluster["region"])
        vpc = ec2.create_vpc(f"10.{number}.0.0/16")
        ec2.create_tags([vpc.id], {"Name": f"{name}-vpc", f"kubernetes.io/cluster/{name}": "shared"})
        networks = ipaddress.ip_network(f"10.{number}.0.0/16").subnets(new_prefix=19)
        subnets = []
        for zone, network in zip(cluster["zones"], networks, strict=False):
            subnet = ec2.create_subnet(vpc.id, str(network), availability_zone=zone)
            tags = {"Name": f"{name}-private-{zone}", f"kubernetes.io/cluster/{name}": "shared"}
            ec2.create_tags([subnet.id], {**tags, "kubernetes.io/role/internal-elb": "1"})
            subnets.append(subnet)
        group = ec2.create_security_group(f"eks-cluster-sg-{name}", f"EKS cluster {name}", vpc.id)
        ec2.create_tags([group.id], {"aws:eks:cluster-name": name, f"kubernetes.io/cluster/{name}": "owned"})
        return subnets, str(group.id)


def _node_profile(account_id: str, name: str) -> None:
    iam = iam_of(account_id)
    iam.create_role(name, json.dumps(NODE_TRUST), "/", None, "Nodes", [], "3600")
    iam.create_instance_profile(name, "/", [])
    iam.add_role_to_instance_profile(name, name)


def group_name(cluster: Facts, facts: Facts) -> str:
    """The Auto Scaling group's name: the group's own, or the one EKS gives a managed node group's."""
    if facts["kind"] == "managed":
        return f"eks-{facts['name']}-{cluster['name']}"
    return str(facts["name"])


def _node_tags(cluster: Facts, facts: Facts) -> dict[str, str]:
    tags = {"Name": f"{cluster['name']}-{facts['name']}", f"kubernetes.io/cluster/{cluster['name']}": "owned"}
    if facts["kind"] == "managed":
        tags |= {"eks:cluster-name": cluster["name"], "eks:nodegroup-name": facts["name"]}
    return {**tags, "environment": cluster["environment"]}


def _autoscaler_tags(cluster: Facts) -> dict[str, str]:
    """What makes the cluster autoscaler (and others) find a group."""
    prefix = "k8s.io/cluster-autoscaler"
    return {f"{prefix}/enabled": "true", f"{prefix}/{cluster['name']}": "owned"}


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _eks_taint(taint: dict[str, str]) -> dict[str, str]:
    effects = {
        "NoSchedule": "NO_SCHEDULE",
        "NoExecute": "NO_EXECUTE",
        "PreferNoSchedule": "PREFER_NO_SCHEDULE",
    }
    return {"key": taint["key"], "value": taint.get("value", ""), "effect": effects[taint["effect"]]}
