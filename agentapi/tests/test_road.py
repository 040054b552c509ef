"""The whole road between an agent process's parts, the product over HTTP, and a living cluster."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from django.db import connection

from agentapi.agent import claims
from agentapi.agent.program import Agent
from agentapi.models import AgentAction, AgentInstance, APIKey
from agentapi.services.waiting import in_database
from agentapi.tests.worlds import fast_world
from clusters.models import Action, Cluster, Instance, Placement, Workload
from clusters.services import actions
from simulator.fleet import Budget
from simulator.tests.world.standin import deployment
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant

PATIENCE_SECONDS = 120.0
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


@pytest.fixture
def world():
    with fast_world(deployment("web", 6, budget=Budget(max_unavailable=1)), nodes=5) as world:
        yield world


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch):
    """Let no poll and no connection of the server's threads outlive the test."""
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    monkeypatch.setattr(claims, "LONG_POLL_SECONDS", 1)
    yield
    time.sleep(1.5)


@pytest.fixture
def known_machines(world, cluster):
    with tenant(cluster.organization_id):
        for machine in world.served.world.room.all():
            Instance.objects.create(
                organization_id=cluster.organization_id,
                account_id=cluster.account_id,
                cluster=cluster,
                instance_id=machine.instance_id,
                instance_type=machine.instance_type,
                lifecycle=Instance.Lifecycle.ON_DEMAND,
                region=machine.region,
                az=machine.zone,
                launched_at=utcnow() - timedelta(days=1),
            )


@asynccontextmanager
async def agent_at_work(world, cluster, live_server, tmp_path, token):
    settings = world.settings(
        tmp_path,
        api_url=live_server.url,
        cluster_id=str(cluster.pk),
        token=token,
        collection_seconds=30,
        heartbeat_seconds=30,
    )
    work = asyncio.ensure_future(Agent(settings, world.clock).run())
    try:
        yield work
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def look(cluster, question):
    """Return the answer to a question inside the cluster's organization."""

    def check():
        with tenant(cluster.organization_id):
            return question()

    return await in_database(check)


async def until(cluster, condition):
    """Wait, a busy machine's long while, until the condition holds; return what it returned."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := await look(cluster, condition)):
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.05)
    return found


def ask(cluster, kind, instance, key, **params):
    return actions.request_action(
        cluster=cluster,
        kind=kind,
        target=instance.node_name,
        params={"node_name": instance.node_name, "instance_id": instance.instance_id, **params},
        reason="test",
        actor=actions.Actor.system(cluster.organization_id),
        idempotency_key=key,
    )


async def test_given_a_bootstrap_key_when_the_agent_starts_then_the_inventory_fills_and_a_drain_is_done(
    world, cluster, bootstrap, known_machines, live_server, tmp_path
):
    async with agent_at_work(world, cluster, live_server, tmp_path, bootstrap):
        await until(cluster, lambda: Cluster.objects.get(pk=cluster.pk).status == Cluster.Status.ACTIVE)

        def is_filled():
            ready = Instance.objects.exclude(node_name="").filter(is_ready=True).count()
            web = Workload.objects.filter(key="default/Deployment/web", replicas=6, budget_count=1)
            placed = sum(Placement.objects.values_list("count", flat=True))
            return ready == 5 and web.exists() and placed == 6

        await until(cluster, is_filled)
        name = world.busiest()

        def request():
            instance = Instance.objects.get(node_name=name)
            return ask(cluster, Action.Kind.DRAIN_NODE, instance, "drain-1", timeout_seconds=600)

        action = await until(cluster, request)
        done = await until(
            cluster, lambda: Action.objects.filter(pk=action.pk, finished_at__isnull=False).first()
        )

        assert (done.status, done.error_message) == (Action.Status.SUCCEEDED, "")

        def empty():
            instance = Instance.objects.get(node_name=name)
            return instance.is_cordoned and not Placement.objects.filter(instance=instance).exists()

        assert await look(cluster, empty)  # the report came after the effect was shown
        delivery = await until(cluster, lambda: AgentAction.objects.get(action=action))
        assert delivery.status == AgentAction.Status.COMPLETED
        assert world.pods_on(name) == set()

    assert await until(cluster, lambda: AgentInstance.objects.get().status == AgentInstance.Status.OFFLINE)
    kept = (tmp_path / "identity.json").stat()
    assert kept.st_mode & 0o777 == 0o600
    keys = await until(cluster, lambda: list(APIKey.objects.filter(kind=APIKey.Kind.AGENT)))
    assert len(keys) == 1
