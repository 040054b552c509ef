"""Rows for tests, each valid by itself inside the active tenant."""

from datetime import timedelta
from decimal import Decimal

import factory

from accounts.models import Account
from clusters.models import Cluster, Instance, NodeGroup, Placement, Workload
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import active_organization_id


class _TenantFactory(factory.django.DjangoModelFactory):
    class Meta:
        abstract = True

    organization_id = factory.LazyFunction(active_organization_id)


class AccountFactory(_TenantFactory):
    class Meta:
        model = Account

    alias = factory.Sequence(lambda n: f"Account {n}")
    aws_account_id = factory.Sequence(lambda n: f"{111100000000 + n}")
    role_arn = factory.LazyAttribute(lambda o: f"arn:aws:iam::{o.aws_account_id}:role/SpotOptimizerRole")
    status = Account.Status.ACTIVE


class ClusterFactory(_TenantFactory):
    class Meta:
        model = Cluster

    account = factory.SubFactory(AccountFactory)
    name = factory.Sequence(lambda n: f"cluster-{n}")
    region = "us-east-1"
    arn = factory.LazyAttribute(
        lambda o: f"arn:aws:eks:us-east-1:{o.account.aws_account_id}:cluster/{o.name}"
    )
    status = Cluster.Status.ACTIVE
    k8s_version = "1.33"
    agent_installed = True
    snapshot_at = factory.LazyFunction(utcnow)
    last_heartbeat_at = factory.LazyFunction(utcnow)


class NodeGroupFactory(_TenantFactory):
    class Meta:
        model = NodeGroup

    cluster = factory.SubFactory(ClusterFactory)
    name = factory.Sequence(lambda n: f"group-{n}")
    kind = NodeGroup.Kind.ASG
    asg_name = factory.SelfAttribute("name")
    launch_template_id = "lt-0123456789abcdef0"
    launch_template_version = "1"
    min_size, desired_capacity, max_size = 3, 10, 20


class InstanceFactory(_TenantFactory):
    class Meta:
        model = Instance

    cluster = factory.SubFactory(ClusterFactory)
    account = factory.SelfAttribute("cluster.account")
    node_group = factory.SubFactory(NodeGroupFactory, cluster=factory.SelfAttribute("..cluster"))
    instance_id = factory.Sequence(lambda n: f"i-{n:017x}")
    instance_type = "m5.xlarge"
    lifecycle = Instance.Lifecycle.ON_DEMAND
    region = "us-east-1"
    az, az_id = "us-east-1a", "use1-az1"
    state = Instance.State.RUNNING
    price = Decimal("0.192000")
    launched_at = factory.LazyFunction(lambda: utcnow() - timedelta(days=30))
    node_name = factory.Sequence(lambda n: f"ip-10-0-{n // 250}-{n % 250}.ec2.internal")
    is_ready = True
    cpu_allocatable_millis, memory_allocatable_mib, pods_allocatable = 3920, 14800, 58
    cpu_requested_millis, memory_requested_mib = 1200, 4000
    cpu_util, memory_util = 12.0, 30.0
    labels = factory.LazyAttribute(
        lambda o: {
            "node.kubernetes.io/instance-type": o.instance_type,
            "topology.kubernetes.io/zone": o.az,
            "topology.kubernetes.io/region": o.region,
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
            "eks.amazonaws.com/capacityType": "SPOT" if o.lifecycle == "spot" else "ON_DEMAND",
        }
    )


class WorkloadFactory(_TenantFactory):
    class Meta:
        model = Workload

    cluster = factory.SubFactory(ClusterFactory)
    namespace, kind = "shop", "Deployment"
    name = factory.Sequence(lambda n: f"web-{n}")
    key = factory.LazyAttribute(lambda o: f"{o.namespace}/{o.kind}/{o.name}")
    replicas = ready_replicas = 4
    cpu_request_millis, memory_request_mib = 500, 1024
    reported_at = factory.LazyFunction(utcnow)


class PlacementFactory(_TenantFactory):
    class Meta:
        model = Placement

    workload = factory.SubFactory(WorkloadFactory)
    instance = factory.SubFactory(InstanceFactory, cluster=factory.SelfAttribute("..workload.cluster"))
    count = 1
