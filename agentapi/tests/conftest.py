"""A cluster with an agent, and ways to speak for it."""

import gzip
import json
from datetime import timedelta

import pytest

from accounts.models import Account
from agentapi import protocol
from agentapi.services import keys
from clusters.models import Action, Cluster, Instance
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant

AGENT_ID = "agent-0000-0000"


def _cluster_of(organization, aws_account_id="111122223333"):
    with tenant(organization.pk):
        account = Account.objects.create(
            organization=organization, alias="main", aws_account_id=aws_account_id, status="active"
        )
        return Cluster.objects.create(
            organization=organization, account=account, name="prod", region="us-east-1"
        )


@pytest.fixture
def cluster(acme):
    return _cluster_of(acme)


@pytest.fixture
def owner_actor(acme):
    return Actor(kind="user", organization_id=acme.pk, label="alice@acme.test", role="owner")


@pytest.fixture
def bootstrap(cluster, owner_actor):
    with tenant(cluster.organization_id):
        return keys.issue_bootstrap_key(cluster=cluster, actor=owner_actor).token


@pytest.fixture
def agent_token(cluster, owner_actor):
    with tenant(cluster.organization_id):
        return keys.create_key(cluster=cluster, description="test", expires_at=None, actor=owner_actor).token


@pytest.fixture
def speak(client):
    """Return a function that posts an agent's document with a token."""

    def post(cluster_id, path, document, token, *, compress=True):
        body = json.dumps(document).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if compress:
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        return client.post(
            f"/api/v1/clusters/{cluster_id}/{path}",
            data=body,
            content_type="application/json",
            headers=headers,
        )

    return post


@pytest.fixture
def registration():
    return protocol.dump(protocol.Registration(agent_id=AGENT_ID, version="1.0.0", k8s_version="v1.33.0"))


@pytest.fixture
def registered(cluster, agent_token, registration, speak):
    """The token of an agent that has registered."""
    assert speak(cluster.pk, "agent/register", registration, agent_token).status_code == 200
    return agent_token


@pytest.fixture
def neighbour(rival, registration, speak):
    """Another organization's cluster, and the token of its agent, which has registered."""
    cluster = _cluster_of(rival, "444455556666")
    actor = Actor(kind="user", organization_id=rival.pk, label="mallory@rival.test", role="owner")
    with tenant(rival.pk):
        token = keys.create_key(cluster=cluster, description="test", expires_at=None, actor=actor).token
    assert speak(cluster.pk, "agent/register", registration, token).status_code == 200
    return cluster, token


@pytest.fixture
def make_action(cluster):
    def make(number=0, *, cluster=cluster, **fields):
        defaults = {
            "organization_id": cluster.organization_id,
            "cluster": cluster,
            "kind": Action.Kind.UNCORDON_NODE,
            "route": Action.Route.AGENT,
            "target": f"node-{number}",
            "params": {"node_name": f"node-{number}", "instance_id": f"i-{number:017x}"},
            "requested_by": "test",
            "idempotency_key": f"key-{number}",
            "expires_at": utcnow() + timedelta(minutes=5),
        }
        with tenant(cluster.organization_id):
            return Action.objects.create(**(defaults | fields))

    return make


@pytest.fixture
def make_instance(cluster):
    def make(number):
        with tenant(cluster.organization_id):
            return Instance.objects.create(
                organization_id=cluster.organization_id,
                account_id=cluster.account_id,
                cluster=cluster,
                instance_id=f"i-{number:017x}",
                instance_type="m5.large",
                lifecycle=Instance.Lifecycle.ON_DEMAND,
                region="us-east-1",
                az="us-east-1a",
                launched_at=utcnow(),
            )

    return make
