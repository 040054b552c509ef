from datetime import timedelta

import pytest

from accounts import services
from accounts.models import Account
from clusters.models import Action, Cluster
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict


@pytest.fixture
def account(in_acme):
    return Account.objects.create(
        organization=in_acme, alias="Main", status="active", aws_account_id="123412341234"
    )


@pytest.fixture
def cluster(in_acme, account):
    return Cluster.objects.create(
        organization=in_acme, account=account, name="c", region="eu-west-1", agent_installed=True
    )


def test_given_a_quiet_cluster_when_its_account_is_disconnected_then_it_is_counted(owner, account, cluster):
    left = services.disconnect(actor=owner, account_id=account.pk, confirmation="Main")

    assert (left.clusters, left.instances, left.agents) == (1, 0, 1)


@pytest.mark.parametrize("status", ["pending", "running"])
def test_given_an_action_under_way_when_disconnecting_then_conflict_and_nothing_changes(
    owner, account, cluster, status
):
    Action.objects.create(
        organization_id=owner.organization_id,
        cluster=cluster,
        kind=Action.Kind.DRAIN_NODE,
        route=Action.Route.AGENT,
        target="node-1",
        idempotency_key="once",
        status=status,
        expires_at=utcnow() + timedelta(hours=1),
    )

    with pytest.raises(Conflict, match="under way"):
        services.disconnect(actor=owner, account_id=account.pk, confirmation="Main")

    account.refresh_from_db()
    assert (account.status, account.disconnected_at) == ("active", None)
