"""However a command ends, it is reported once, and by what it did."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from agentapi.tests.test_executor import STUCK, WEB, payload_of
from agentapi.tests.workbench import Bench, bench
from simulator.kube.rbac import RIGHTSIZING_AGENT

pytestmark = pytest.mark.asyncio


async def test_given_a_command_that_expired_in_the_queue_of_its_node_then_the_drain_before_it_stays_done(
    tmp_path,
):
    """A node that was drained must not open again before it goes."""
    async with bench(tmp_path) as it:
        drain = it.command("drain_node")
        late = it.command(action_id="action-2", nonce="n-2", lifetime=timedelta(seconds=6))

        it.executor.accept(drain, late)
        while it.executor.running_actions:
            await asyncio.sleep(0.02)
        await it.executor.send_results()

        assert it.product.results["action-1"].status == "completed"
        assert it.product.results["action-2"].error_code == "expired"
        assert not it.is_open(drain)


async def test_given_two_commands_of_one_answer_when_one_is_urgent_then_the_other_is_reported(
    tmp_path,
):
    async with bench(tmp_path) as it:
        polite = it.command("drain_node")
        urgent = it.command(action_id="action-2", nonce="n-2", is_voluntary=False)

        it.executor.accept(polite, urgent)
        while it.executor.running_actions:
            await asyncio.sleep(0.02)
        await it.executor.send_results()

        assert it.product.results["action-1"].error_code == "interrupted"
        assert it.product.results["action-2"].status == "completed"
        assert it.journal.known_actions == ()


async def test_given_a_command_that_is_done_when_stopped_before_its_effect_was_shown_then_it_counts_as_done(
    tmp_path,
):
    async with bench(tmp_path) as it:
        is_shown = asyncio.Event()

        async def show():
            is_shown.set()
            await asyncio.Event().wait()

        it.executor._show = show
        command = it.command()
        it.executor.accept(command)
        await is_shown.wait()

        await it.executor.stop()
        await it.executor.send_results()

        assert it.product.results["action-1"].status == "completed"


async def test_z10_given_a_forgery_by_the_name_of_a_command_under_way_then_that_one_goes_on_undisturbed(
    tmp_path,
):
    async with bench(tmp_path, STUCK) as it:
        genuine = it.command("drain_node")
        it.executor.accept(genuine)
        await asyncio.sleep(0.2)

        it.executor.accept(replace(genuine, nonce="n-2", signature="AAAA"))

        assert [facts["code"] for _, _, facts in it.told] == ["bad_signature"]
        assert (it.journal.taken.keys(), it.journal.finished) == ({"action-1"}, {})
        assert it.executor.running_actions == ("action-1",)
        await it.executor.stop()


@pytest.mark.parametrize("kind", ["drain_node", "evict_pod"])
async def test_given_no_grace_at_all_when_commanded_then_nothing_is_evicted(kind, tmp_path):
    """The API server would forget a pod that still runs, and a second one could take its place."""
    async with bench(tmp_path) as it:
        pods = it.world.pods_on(it.world.busiest())
        payload = payload_of(it, grace_period_seconds=0, namespace="default", pod_name=min(pods))

        result = await it.carry_out(it.command(kind, payload=payload))

        assert result.error_code == "invalid_payload"
        assert it.world.pods_on(payload["node_name"]) == pods


async def test_given_a_crash_after_resources_were_set_when_tried_again_then_it_is_done_already(tmp_path):
    async with bench(tmp_path, user=RIGHTSIZING_AGENT) as it:
        path = "/apis/apps/v1/namespaces/default/deployments/web"
        [container] = it.world.body(path)["spec"]["template"]["spec"]["containers"]
        named = {**WEB, "container": container["name"], "before": container["resources"]}

        first = await it.carry_out(it.command("update_deployment", payload=named))
        version = it.world.body(path)["metadata"]["generation"]
        again = await it.carry_out(
            it.command("update_deployment", payload=named, action_id="a-2", nonce="n-2")
        )

        assert (again.status, again.result) == ("completed", first.result)
        assert it.world.body(path)["metadata"]["generation"] == version


async def test_given_another_agent_that_took_over_when_draining_then_the_node_is_released(
    tmp_path,
):
    leads = [True]
    async with bench(tmp_path, STUCK, stands_by=lambda: not leads[0]) as it:
        command = it.command("drain_node")
        it.executor.accept(command)
        await asyncio.sleep(0.2)

        leads[0] = False
        while it.executor.running_actions:
            await asyncio.sleep(0.02)
        later = await it.carry_out(it.command(action_id="action-2", nonce="n-2"))

        assert it.product.results["action-1"].error_code == "backend_silent"
        assert later.error_code == "superseded"
        assert it.is_open(command)


async def test_given_dry_run_when_an_expired_drain_is_taken_up_again_then_its_node_is_not_touched(tmp_path):
    async with bench(tmp_path) as it:
        await it.carry_out(it.command(action_id="action-0", nonce="n-0"))
        late = it.command("drain_node", lifetime=timedelta(seconds=-1))
        it.journal.take(late, it.world.clock.seconds())
        it.journal.save()
        restarted = Bench(it.world, it.kube, tmp_path, dry_run=True)

        restarted.executor.resume()
        while restarted.executor.running_actions:
            await asyncio.sleep(0.02)
        await restarted.executor.send_results()

        assert restarted.product.results["action-1"].error_code == "dry_run"
        assert not it.is_open(late)
