import asyncio

import pytest

from agentapi.agent.acts import target_of
from agentapi.agent.facts import CORDONED_BY
from agentapi.agent.lifted import Lifted
from agentapi.agent.nodes import Failed, Nodes, Target
from agentapi.agent.view import View
from agentapi.tests.test_notices import until
from agentapi.tests.workbench import Bench, bench

pytestmark = pytest.mark.asyncio


async def test_given_a_crash_after_the_cordon_when_taken_up_again_then_it_says_that_it_closed_the_node(
    tmp_path,
):
    """A false alarm's node is opened again only where its cordon says so."""
    async with bench(tmp_path) as it:
        command = it.command()
        it.journal.take(command, it.world.clock.seconds())
        it.journal.save()
        assert await Nodes(it.kube).cordon(target_of(command.payload), command.action_id) is True
        restarted = Bench(it.world, it.kube, tmp_path)

        restarted.executor.resume()
        while restarted.executor.running_actions:
            await asyncio.sleep(0.02)
        await restarted.executor.send_results()

        assert restarted.product.results["action-1"].result == {"changed": True}


async def test_given_a_person_who_lifts_our_cordon_and_cordons_again_when_released_then_theirs_stays(
    tmp_path,
):
    async with bench(tmp_path) as it:
        command = it.command()
        name = command.payload["node_name"]
        nodes = Nodes(it.kube)
        lifted = Lifted(nodes)
        view = View(it.kube, it.world.clock, lifted.look)
        work = [asyncio.ensure_future(each) for each in (view.nodes.run(), lifted.run())]
        await it.carry_out(command)
        await until(lambda: view.nodes.items["", name].unschedulable)

        for is_closed in (None, True):  # kubectl leaves annotations alone
            await it.kube.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": is_closed}})
        await until(lambda: CORDONED_BY not in it.world.node(name)["metadata"]["annotations"])
        released = await it.carry_out(it.command("uncordon_node", action_id="action-2", nonce="nonce-2"))

        assert released.result == {"changed": False, "kept_cordoned": True}
        assert not it.is_open(command)
        for each in work:
            each.cancel()
        await asyncio.gather(*work, return_exceptions=True)


async def test_given_another_cordon_of_ours_when_an_earlier_one_was_lifted_then_the_later_stays_ours(
    tmp_path,
):
    async with bench(tmp_path) as it:
        target, nodes = target_of(it.command().payload), Nodes(it.kube)
        await nodes.cordon(target, "action-2")

        await nodes.disown(target, "action-1")
        assert await nodes.is_cordoned_by_us(target) is True
        await nodes.disown(target, "action-2")
        assert await nodes.is_cordoned_by_us(target) is False


async def test_given_a_person_who_cordons_after_our_look_when_we_cordon_then_it_stays_theirs(
    tmp_path,
):
    async with bench(tmp_path) as it:
        target, patch = target_of(it.command().payload), it.kube.patch

        async def cut_in(path, change, *options, **more):
            it.kube.patch = patch
            await patch(path, {"spec": {"unschedulable": True}})
            return await patch(path, change, *options, **more)

        it.kube.patch = cut_in

        assert await Nodes(it.kube).cordon(target, "action-1") is False
        assert await Nodes(it.kube).is_cordoned_by_us(target) is False


@pytest.mark.parametrize(
    "label",
    [
        "kubernetes.io/hostname",
        "node-role.kubernetes.io/master",
        "topology.ebs.csi.aws.com/zone",
        "eks.amazonaws.com/nodegroup",
        "vpc.amazonaws.com/has-trunk-attached",
        "karpenter.sh/nodepool",
        "karpenter.k8s.aws/instance-family",
    ],
)
async def test_z33_given_a_label_that_decides_where_things_go_when_set_or_removed_then_it_is_refused(label):
    target = Target("n", "i-0123456789abcdef0")

    for labels, remove in (({label: "x"}, ()), ({}, (label,))):
        with pytest.raises(Failed) as failure:
            await Nodes(None).label(target, labels, remove)
        assert failure.value.code == "reserved_label"
