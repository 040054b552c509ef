"""What changes while a drain goes on."""

import asyncio

import pytest

from agentapi.agent.kube import KubeError, KubeUnreachable
from agentapi.agent.nodes import Failed
from agentapi.tests.test_drain import connected, drain, target_of
from agentapi.tests.worlds import fast_world
from simulator.fleet import Budget
from simulator.tests.world.standin import deployment

pytestmark = pytest.mark.asyncio

MERGE = {"Content-Type": "application/merge-patch+json"}


async def drained_until(world, kube, target, change, **fields):
    """Drain a node that cannot be emptied, change something meanwhile, and return how the drain failed."""
    work = asyncio.ensure_future(drain(world, kube, target, **fields))
    await asyncio.sleep(0.2)
    with world.served.client() as admin:
        change(admin)
    with pytest.raises(Failed) as failure:
        await work
    return failure.value


async def test_given_a_person_who_opens_the_node_when_a_drain_goes_on_then_it_ends_and_evicts_nothing_more(
    tmp_path,
):
    """What it evicts would come back to the node, again and again."""
    with fast_world(deployment("single", 1, budget=Budget(min_available=1))) as world:
        target = target_of(world, world.busiest())

        def open_it(admin):
            body = {"spec": {"unschedulable": None}}
            admin.patch(f"/api/v1/nodes/{target.name}", json=body, headers=MERGE).raise_for_status()
            [budget] = world.body("/apis/policy/v1/poddisruptionbudgets")["items"]
            path = f"/apis/policy/v1/namespaces/default/poddisruptionbudgets/{budget['metadata']['name']}"
            admin.delete(path).raise_for_status()

        async with connected(world, tmp_path) as kube:
            failure = await drained_until(world, kube, target, open_it)

        assert (failure.code, failure.facts["evicted"]) == ("cordon_lifted", 0)
        assert len(world.pods_on(target.name)) == 1


async def test_given_a_pod_that_waits_for_its_budget_when_its_owner_protects_it_then_it_stays(tmp_path):
    with fast_world(deployment("single", 1, budget=Budget(min_available=1))) as world:
        target = target_of(world, world.busiest())
        [name] = world.pods_on(target.name)

        def protect(admin):
            body = {"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}}
            admin.patch(
                f"/api/v1/namespaces/default/pods/{name}", json=body, headers=MERGE
            ).raise_for_status()

        async with connected(world, tmp_path) as kube:
            failure = await drained_until(world, kube, target, protect)

        assert failure.code == "do_not_disrupt"


async def test_given_a_drain_that_waits_when_the_policy_excludes_its_namespace_then_it_ends(tmp_path):
    with fast_world(deployment("single", 1, budget=Budget(min_available=1))) as world:
        target, kept = target_of(world, world.busiest()), set()

        async with connected(world, tmp_path) as kube:
            failure = await drained_until(
                world, kube, target, lambda _: kept.add("default"), kept_namespaces=lambda: frozenset(kept)
            )

        assert failure.code == "protected_namespace"


@pytest.mark.parametrize("is_rescue", [True, False])
async def test_given_an_api_server_that_is_too_busy_to_cordon_when_drained_then_it_is_asked_until_it_does(
    is_rescue, tmp_path
):
    """Two minutes leave no time to begin anew."""
    with fast_world(deployment("web", 2)) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            patch, answers = kube.patch, [KubeError(429, "busy"), KubeUnreachable("reset")]

            async def busy(*asked, **more):
                if answers:
                    raise answers.pop()
                return await patch(*asked, **more)

            kube.patch = busy
            result = await drain(world, kube, target, seconds=120, is_rescue=is_rescue)

        assert result["evicted"] > 0
        assert world.pods_on(target.name) == set()
