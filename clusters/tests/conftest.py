"""A simulated AWS for tests, and an account row before and after its link."""

from decimal import Decimal

import pytest

from accounts.models import Account
from clusters.aws.session import session_for
from clusters.models import Price
from clusters.tests.aws_world import start_world
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
