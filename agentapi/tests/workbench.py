"""An executor over a living cluster, with a product that only remembers."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from agentapi import protocol
from agentapi.agent.backend import Unreachable
from agentapi.agent.executor import Executor
from agentapi.agent.facts import instance_id_of
from agentapi.agent.guard import Guard
from agentapi.agent.kube import Kube
from agentapi.agent.memory import Journal
from agentapi.agent.need import Need
from agentapi.tests.worlds import fast_world
from simulator.kube.rbac import AGENT as AGENT_USER
from simulator.kube.rbac import token_of
from simulator.tests.world.standin import deployment
from spotopt.core import crypto

CLUSTER, AGENT = "cluster-1", "agent-0000-0001"


class Product:
    """A product that remembers what it was told, and may be away."""

    def __init__(self, clock):
        self.clock, self.silent_for = clock, 0
        self.results = {}
        self.away = False
        self.refusal = None

    @property
    def last_contact(self):
        return self.clock.seconds() - self.silent_for

    async def send_result(self, action_id, result):
        if self.away:
            raise Unreachable("away")
        self.results[action_id] = result
        if self.refusal:
            raise self.refusal


class Bench:
    """An executor over a living cluster."""

    def __init__(self, world, kube, tmp_path, **options):
        self.kube = kube
        self.world, self.product, self.journal = (
            world,
            Product(world.clock),
            Journal(tmp_path / "journal.json"),
        )
        self.journal.load()
        self.shown, self.told, self.warned = [], [], set()
        guard = Guard(
            cluster_id=CLUSTER,
            agent_id=AGENT,
            public_key=crypto.public_key(),
            journal=self.journal,
            clock=world.clock,
        )
        self.executor = Executor(
            kube=kube,
            backend=self.product,
            journal=self.journal,
            guard=guard,
            agent_id=AGENT,
            clock=world.clock,
            show=self._show,
            tell=lambda *event: self.told.append(event),
            need=Need(world.clock, self.warned.__contains__),
            **options,
        )

    async def _show(self):
        self.shown.append(dict(self.product.results))
        return True

    def command(self, action_type="cordon_node", **fields):
        name = self.world.busiest()
        now = self.world.clock.now()
        payload = {"node_name": name, "instance_id": instance_id_of(self.world.node(name))}
        unsigned = protocol.Command(
            action_id=fields.pop("action_id", "action-1"),
            cluster_id=fields.pop("cluster_id", CLUSTER),
            agent_id=fields.pop("agent_id", AGENT),
            action_type=action_type,
            payload=fields.pop("payload", payload),
            created_at=now,
            expires_at=now + fields.pop("lifetime", timedelta(minutes=15)),
            nonce=fields.pop("nonce", "nonce-1"),
            is_voluntary=fields.pop("is_voluntary", True),
        )
        return replace(unsigned, signature=crypto.sign(unsigned.signed_document()))

    async def carry_out(self, command):
        self.executor.accept(command)
        while self.executor.running_actions:
            await asyncio.sleep(0.02)
        await self.executor.send_results()
        return self.product.results.get(command.action_id)

    def is_open(self, command):
        return "unschedulable" not in self.world.node(command.payload["node_name"])["spec"]


@asynccontextmanager
async def bench(tmp_path, *workloads, user=AGENT_USER, **options):
    with fast_world(*(workloads or (deployment("web", 3),))) as world:
        kube = await Kube.connect(world.settings(tmp_path, kube_token=token_of(world.cluster, user)))
        try:
            yield Bench(world, kube, tmp_path, **options)
        finally:
            await kube.close()
