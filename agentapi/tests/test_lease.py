import asyncio
import time
from types import SimpleNamespace

import pytest

from agentapi.agent import lease as leases
from agentapi.agent.kube import Kube, KubeUnreachable
from agentapi.agent.lease import Lease
from agentapi.agent.memory import Journal
from agentapi.tests.workbench import bench
from agentapi.tests.worlds import fast_world
from simulator.tests.world.standin import deployment

pytestmark = pytest.mark.asyncio

NAMESPACE = "spot-optimizer"
PATH = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/spotopt-agent"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(leases, "DURATION_SECONDS", 3.0)
    monkeypatch.setattr(leases, "RENEW_SECONDS", 2.0)
    monkeypatch.setattr(leases, "RETRY_SECONDS", 0.05)


async def test_given_two_replicas_when_one_falls_silent_then_the_other_leads_only_after_it_stopped(tmp_path):
    with fast_world(deployment("web", 1)) as world:
        kube = await Kube.connect(world.settings(tmp_path))
        first, second = Lease(kube, NAMESPACE, "pod-1"), Lease(kube, NAMESPACE, "pod-2")
        await first.acquire()
        waiting = asyncio.ensure_future(second.acquire())
        both = []

        while not waiting.done():
            await asyncio.sleep(0.01)
            both.append(first.is_held and second.is_held)

        assert not any(both)
        assert (first.is_held, second.is_held) == (False, True)
        spec = world.body(PATH)["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("pod-2", 2)
        assert await asyncio.wait_for(first.keep(), 5) is None
        await kube.close()


async def test_given_a_leader_when_it_renews_then_nobody_else_leads_until_it_gives_up(tmp_path):
    with fast_world(deployment("web", 1)) as world:
        kube = await Kube.connect(world.settings(tmp_path))
        first, second = Lease(kube, NAMESPACE, "pod-1"), Lease(kube, NAMESPACE, "pod-2")
        await first.acquire()
        renewing = asyncio.ensure_future(first.keep())
        waiting = asyncio.ensure_future(second.acquire())

        await asyncio.sleep(3.5)
        assert (first.is_held, waiting.done()) == (True, False)
        renewing.cancel()
        await first.give_up()
        await asyncio.wait_for(waiting, 5)

        assert (first.is_held, second.is_held) == (False, True)
        await kube.close()


async def test_given_an_api_server_that_does_not_answer_when_it_renews_then_the_lease_is_lost_in_time(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.5)
    with fast_world(deployment("web", 1)) as world:
        kube = await Kube.connect(world.settings(tmp_path))
        lease = Lease(kube, NAMESPACE, "pod-1")
        await lease.acquire()

        async def hang(*_):
            await asyncio.Event().wait()

        kube.get = hang

        assert await asyncio.wait_for(lease.keep(), 5) is None
        assert not lease.is_held
        await kube.close()


async def test_given_a_lost_lease_when_a_command_runs_then_it_writes_nothing_more(tmp_path, monkeypatch):
    clock = SimpleNamespace(time=time.time, monotonic=lambda: 1000.0)
    monkeypatch.setattr(leases, "time", clock)
    async with bench(tmp_path) as it:
        lease = Lease(it.kube, NAMESPACE, "pod-1")
        await lease.acquire()
        gated = it.kube.while_allowed(lambda: lease.is_held)
        name = it.world.busiest()
        await gated.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {"a": "1"}}})

        clock.monotonic = lambda: 1000.0 + leases.RENEW_SECONDS

        with pytest.raises(KubeUnreachable, match="does not lead"):
            await gated.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {"a": "2"}}})
        assert it.world.node(name)["metadata"]["labels"]["a"] == "1"


async def test_given_a_journal_of_an_earlier_term_when_read_then_nothing_is_done_twice(tmp_path):
    async with bench(tmp_path) as it:
        path, command = tmp_path / "journal.json", it.command()
        journal = Journal(path, term=1)
        journal.take(command, it.world.clock.seconds())
        journal.save()

        mine, other = Journal(path, term=1), Journal(path, term=2)
        mine.load()
        other.load()

        assert (mine.known_actions, other.known_actions) == (("action-1",), ())
        assert command.nonce in other.nonces
