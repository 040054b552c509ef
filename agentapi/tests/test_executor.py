import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from agentapi import protocol
from agentapi.agent.backend import Refused, Unreachable
from agentapi.agent.executor import SILENCE_SECONDS, Executor
from agentapi.agent.facts import instance_id_of
from agentapi.agent.guard import Guard
from agentapi.agent.kube import Kube
from agentapi.agent.memory import Journal
from agentapi.agent.nodes import CORDONED_BY
from agentapi.tests.worlds import fast_world
from simulator.fleet import Budget
from simulator.tests.world.standin import deployment
from spotopt.core import crypto

pytestmark = pytest.mark.asyncio

CLUSTER, AGENT = "cluster-1", "agent-0000-0001"
STUCK = deployment("single", 1, budget=Budget(min_available=1))


class Product:
    """A product that remembers what it was told, and may be away."""

    def __init__(self, clock):
        self.last_contact = clock.seconds()
        self.results = {}
        self.away = False
        self.refusal = None

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
        self.shown, self.told = [], []
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
async def bench(tmp_path, *workloads, **options):
    with fast_world(*(workloads or (deployment("web", 3),))) as world:
        kube = await Kube.connect(world.settings(tmp_path))
        try:
            yield Bench(world, kube, tmp_path, **options)
        finally:
            await kube.close()


async def test_given_a_signed_command_when_accepted_then_it_is_done_shown_and_then_reported(tmp_path):
    async with bench(tmp_path) as it:
        command = it.command()

        result = await it.carry_out(command)

        assert (result.status, result.result) == ("completed", {"changed": True})
        assert not it.is_open(command)
        assert it.shown == [{}]
        assert it.journal.known_actions == ()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: replace(c, payload=c.payload | {"node_name": "other"}), "bad_signature"),
        (lambda c: replace(c, signature=""), "bad_signature"),
        (lambda c: replace(c, action_type="uncordon_node"), "bad_signature"),
        (lambda c: replace(c, expires_at=c.expires_at + timedelta(hours=1)), "bad_signature"),
    ],
)
async def test_given_a_forged_command_when_accepted_then_nothing_is_done_and_it_is_reported(
    change, code, tmp_path
):
    async with bench(tmp_path) as it:
        genuine = it.command()

        result = await it.carry_out(change(genuine))

        assert (result.status, result.error_code) == ("failed", code)
        assert it.is_open(genuine)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"cluster_id": "cluster-2"}, "wrong_cluster"),
        ({"agent_id": "agent-of-another"}, "wrong_agent"),
        ({"lifetime": timedelta(seconds=-1)}, "expired"),
        ({"action_type": "delete_node"}, "unknown_action"),
        ({"payload": {}}, "invalid_payload"),
        ({"payload": {"node_name": "../pods", "instance_id": "i-1"}}, "invalid_payload"),
        ({"payload": {"node_name": "gone", "instance_id": "i-0123456789abcdef0"}}, "node_gone"),
    ],
)
async def test_given_a_signed_command_that_is_not_for_here_and_now_when_accepted_then_it_is_refused(
    fields, code, tmp_path
):
    async with bench(tmp_path) as it:
        result = await it.carry_out(it.command(**fields))

        assert (result.status, result.error_code) == ("failed", code)
        assert all("unschedulable" not in n["spec"] for n in it.world.body("/api/v1/nodes")["items"])


async def test_given_a_command_that_was_done_when_it_comes_again_then_it_is_not_done_again(tmp_path):
    async with bench(tmp_path) as it:
        command = it.command()
        await it.carry_out(command)
        await it.carry_out(it.command("uncordon_node", action_id="action-2", nonce="nonce-2"))
        it.product.results.clear()

        assert await it.carry_out(command) is None
        assert it.is_open(command)


async def test_given_a_restart_when_an_old_command_is_replayed_then_it_is_refused(tmp_path):
    async with bench(tmp_path) as it:
        command = it.command("uncordon_node")
        await it.carry_out(command)
        restarted = Bench(it.world, it.kube, tmp_path)

        assert restarted.executor._guard.refusal(command)[0] == "replayed"


async def test_given_a_crash_in_a_drain_when_restarted_then_the_drain_is_finished(tmp_path):
    async with bench(tmp_path) as it:
        command = it.command("drain_node")
        it.journal.take(command, it.world.clock.seconds())
        restarted = Bench(it.world, it.kube, tmp_path)

        restarted.executor.resume()
        while restarted.executor.running_actions:
            await asyncio.sleep(0.02)
        await restarted.executor.send_results()

        assert restarted.product.results["action-1"].status == "completed"
        assert it.world.pods_on(command.payload["node_name"]) == set()


async def test_given_a_crash_when_restarted_after_the_end_then_the_node_is_released_and_it_is_reported(
    tmp_path,
):
    async with bench(tmp_path) as it:
        cordon = it.command(action_id="action-0", nonce="nonce-0")
        await it.carry_out(cordon)
        late = it.command("drain_node", lifetime=timedelta(seconds=-1))
        it.journal.take(late, it.world.clock.seconds())
        restarted = Bench(it.world, it.kube, tmp_path)

        restarted.executor.resume()
        while restarted.executor.running_actions:
            await asyncio.sleep(0.02)
        await restarted.executor.send_results()

        assert restarted.product.results["action-1"].error_code == "interrupted"
        assert it.is_open(late)


async def test_given_a_drain_under_way_when_stopped_then_the_node_is_released_and_it_is_reported(tmp_path):
    async with bench(tmp_path, STUCK) as it:
        command = it.command("drain_node")
        it.executor.accept(command)
        await asyncio.sleep(0.3)
        assert not it.is_open(command)

        await it.executor.stop()
        await it.executor.send_results()

        assert it.product.results["action-1"].error_code == "interrupted"
        assert it.is_open(command)
        assert CORDONED_BY not in it.world.node(command.payload["node_name"])["metadata"].get(
            "annotations", {}
        )


async def test_given_a_blocked_drain_when_its_time_is_over_then_it_says_what_blocked_it(tmp_path):
    async with bench(tmp_path, STUCK) as it:
        command = it.command("drain_node")
        command = it.command("drain_node", payload={**command.payload, "timeout_seconds": 30})

        result = await it.carry_out(command)

        assert (result.status, result.error_code) == ("failed", "eviction_blocked")
        assert result.result["uncordoned"] is True
        assert it.is_open(command)


async def test_given_dry_run_when_commanded_then_nothing_is_done_and_it_counts_as_failed(tmp_path):
    async with bench(tmp_path, dry_run=True) as it:
        command = it.command()

        result = await it.carry_out(command)

        assert (result.status, result.error_code) == ("failed", "dry_run")
        assert it.is_open(command)


async def test_given_a_silent_product_when_a_command_begins_then_it_is_not_begun(tmp_path):
    async with bench(tmp_path) as it:
        it.product.last_contact -= SILENCE_SECONDS + 1
        command = it.command()

        result = await it.carry_out(command)

        assert (result.status, result.error_code) == ("failed", "backend_silent")
        assert it.is_open(command)


async def test_given_a_product_that_is_away_when_done_then_the_result_waits_for_it_even_over_a_restart(
    tmp_path,
):
    async with bench(tmp_path) as it:
        it.product.away = True
        with pytest.raises(Unreachable):
            await it.carry_out(it.command())
        restarted = Bench(it.world, it.kube, tmp_path)

        await restarted.executor.send_results()

        assert restarted.product.results["action-1"].status == "completed"
        assert restarted.journal.known_actions == ()


async def test_given_a_product_that_knows_better_when_reported_then_the_result_is_dropped(tmp_path):
    async with bench(tmp_path) as it:
        it.product.refusal = Refused(410, "", "over")

        await it.carry_out(it.command())

        assert it.journal.known_actions == ()
