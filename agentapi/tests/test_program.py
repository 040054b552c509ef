"""Two whole agents over one cluster: one leads, the other takes over."""

import asyncio
import json
from contextlib import suppress
from types import SimpleNamespace

import pytest

from agentapi.agent import lease as leases
from agentapi.agent import program
from agentapi.agent.clock import Clock
from agentapi.agent.program import Agent
from agentapi.agent.settings import Settings
from agentapi.tests.test_push import served
from agentapi.tests.worlds import fast_world
from simulator.tests.world.standin import deployment

pytestmark = pytest.mark.asyncio

NAMESPACE = "spot-optimizer"


class Product:
    """A product that takes every document in and answers what an agent needs to go on."""

    def __init__(self):
        self.paths = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return
        self.paths.append(scope["path"].partition("/c-1/")[2])
        while (await receive()).get("more_body"):
            pass
        answer = {
            "agent/register": {"cluster_id": "c-1", "cluster_name": "c", "signing_public_key": "k"},
            "metrics": {"acknowledged": 1},
        }.get(self.paths[-1], {})
        if self.paths[-1] == "actions/claim":
            await asyncio.sleep(0.2)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    def count(self, path):
        return self.paths.count(path)


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came true")


async def test_given_two_replicas_when_the_leader_leaves_then_the_other_registers_and_not_before(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(leases, "RETRY_SECONDS", 0.1)
    product = Product()
    with fast_world(deployment("web", 1)) as world, served(product) as url:
        with world.served.client() as admin:
            secret = {"metadata": {"name": "identity"}, "type": "Opaque"}
            admin.post(f"/api/v1/namespaces/{NAMESPACE}/secrets", json=secret).raise_for_status()
            role = {
                "metadata": {"name": "spotopt-agent"},
                "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "patch"]}],
            }
            account = {"kind": "ServiceAccount", "namespace": NAMESPACE, "name": "spotopt-agent"}
            rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
            admin.post(f"{rbac}/roles", json=role).raise_for_status()
            binding = {"metadata": {"name": "spotopt-agent"}, "subjects": [account]}
            reference = {"kind": "Role", "name": "spotopt-agent", "apiGroup": "rbac.authorization.k8s.io"}
            admin.post(f"{rbac}/rolebindings", json=binding | {"roleRef": reference}).raise_for_status()

        def agent(name):
            (tmp_path / name).mkdir()
            fields = {"api_url": url, "cluster_id": "c-1", "replica": name, "key_secret": "identity"}
            return Agent(world.settings(tmp_path / name, **fields, has_websocket=False), world.clock)

        first, second = agent("pod-1"), agent("pod-2")
        leading = asyncio.ensure_future(first.run())
        await until(lambda: product.count("metrics") >= 1 and first.is_ready)
        standing_by = asyncio.ensure_future(second.run())
        await until(lambda: second.is_ready)

        assert product.count("agent/register") == 1
        leading.cancel()
        with suppress(asyncio.CancelledError):
            await leading
        await until(lambda: product.count("agent/register") == 2)
        await until(lambda: second.is_ready and product.count("metrics") >= 2)
        standing_by.cancel()
        with suppress(asyncio.CancelledError):
            await standing_by

    assert product.count("agent/deregister") == 2


async def test_given_a_product_that_does_not_answer_when_the_leader_leaves_then_the_next_may_lead_at_once(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(program, "_FAREWELL_SECONDS", 0.2)
    done = []

    async def note(what):
        done.append(what)

    async def hang():
        await asyncio.Event().wait()

    agent = Agent(
        Settings(api_url="http://127.0.0.1:1", cluster_id="c", token="", state_dir=tmp_path), Clock()
    )
    executor = SimpleNamespace(stop=lambda: note("stopped"), send_results=hang)
    agent._parts = SimpleNamespace(executor=executor)
    agent._lease = SimpleNamespace(is_held=True, give_up=lambda: note("lease given up"))

    await agent._leave()

    assert done == ["stopped", "lease given up"]
