"""A simulated AWS for tests, an account row before and after its link, and a cluster to act on."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from accounts.models import Account
from clusters.aws import autoscaling, ec2
from clusters.aws.session import RoleGrant, session_for
from clusters.models import Price
from clusters.tests.acting import CLUSTER, GROUP, request
from clusters.tests.aws_world import start_world
from clusters.tests.factories import ClusterFactory, InstanceFactory, NodeGroupFactory
from simulator.fleets import CUSTOMER
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow


@pytest.fixture(scope="module")  # moto's state is global: one AWS in a process at a time
def aws_server(tmp_path_factory):
    world = start_world(tmp_path_factory.mktemp("aws"))
    yield world
    world.server.stop()


@pytest.fixture
def aws(aws_server, monkeypatch):
    """Everything healthy, no role of ours, and only Spotopt's own credentials in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASPOTOPTPLATFORM")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "simulated")
    session_for.cache_clear()
    yield aws_server
    faults = aws_server.server.faults
    faults.unreachable, faults.throttle_rate, faults.latency_ms = False, 0.0, 0
    faults.disabled_regions = set()
    aws_server.remove_roles()
    session_for.cache_clear()


@pytest.fixture
def owner(in_acme, alice):
    return Actor(kind="user", organization_id=in_acme.pk, label=alice.email, id=str(alice.pk), role="owner")


@pytest.fixture
def pending(in_acme, alice):
    """The account row as the start of a link leaves it."""
    account = Account.objects.create(
        organization=in_acme, alias="Acme", aws_account_id=CUSTOMER, created_by=alice
    )
    account.refresh_from_db()  # the external id as text
    return account


@pytest.fixture
def linked(aws, pending):
    """An account whose role is proved and whose first scan is due."""
    role_arn = aws.make_role(pending.external_id)
    Account.objects.filter(pk=pending.pk).update(role_arn=role_arn, status=Account.Status.SCANNING)
    pending.refresh_from_db()
    return pending


@pytest.fixture
def catalogue(db):
    """The on-demand prices of what the small fleet runs; loading all of them is another test's business."""
    for instance_type, usd_per_hour in (("m5.large", "0.096"), ("m5.xlarge", "0.192")):
        Price.objects.create(
            region="us-east-1",
            instance_type=instance_type,
            capacity_type="on_demand",
            usd_per_hour=Decimal(usd_per_hour),
            observed_at=utcnow(),
            source=Price.Source.BUNDLED,
        )


@pytest.fixture
def session(linked):
    return session_for(RoleGrant(linked.role_arn, linked.external_id)).in_region("us-east-1")


@pytest.fixture
def group(aws, session):
    """The group of the production cluster with its four members, whatever a test before took out of it."""
    autoscaling.set_sizes(session=session, group_name=GROUP, minimum=1, desired=4)
    aws.server.tick(utcnow())
    aws.room.advance(utcnow())
    return autoscaling.describe_group(session, name=GROUP)


@pytest.fixture
def cluster(aws, linked, session, group, catalogue):
    """The production cluster with the rows that a scan and the agent would have written."""
    row = ClusterFactory(account=linked, name=CLUSTER)
    node_group = NodeGroupFactory(
        cluster=row, name=GROUP, launch_template_id=group.launch_template.id,
        launch_template_version=group.launch_template.version, subnet_ids=list(group.subnet_ids),
        min_size=group.min_size, desired_capacity=group.desired, max_size=group.max_size,
    )  # fmt: skip
    for instance_id in group.instance_ids:
        InstanceFactory(cluster=row, node_group=node_group, instance_id=instance_id)
    others = NodeGroupFactory(cluster=row, name="others", launch_template_id="")
    InstanceFactory.create_batch(4, cluster=row, node_group=others)
    yield row
    aws.server.faults.no_capacity, aws.server.faults.fail_after = set(), {}
    for machine in aws.alive():
        if "spotopt:action-id" in machine.tags:
            aws.room.terminate(machine.instance_id, reason="test", at=datetime.now(UTC))  # noqa: TID251


@pytest.fixture
def zone_id(session, group):
    return min(ec2.subnets_by_zone(session, subnet_ids=group.subnet_ids))


@pytest.fixture
def launch(cluster, zone_id):
    """A launch in a spot pool, with an on-demand pool to fall back on."""
    params = {
        "instance_type": "m5.large", "zone_id": zone_id, "capacity_type": "spot",
        "alternatives": [f"{zone_id}:m5.large:on_demand"],
    }  # fmt: skip
    return request(cluster, "launch_node", "n1", params)
