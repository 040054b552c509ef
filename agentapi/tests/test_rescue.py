import asyncio
from datetime import timedelta

import pytest

from agentapi.agent.drain import Drainer, DrainOrder
from agentapi.agent.nodes import Failed, Target
from agentapi.tests.test_drain import add_node, connected, drain, target_of
from agentapi.tests.test_executor import STUCK
from agentapi.tests.workbench import bench
from agentapi.tests.worlds import RATE, fast_world
from simulator.fleet import Budget, Workload
from simulator.tests.world.standin import deployment

pytestmark = pytest.mark.asyncio


async def test_given_a_two_minute_notice_when_drained_then_slow_and_important_pods_go_first(tmp_path):
    slow = deployment("slow", 1, grace_seconds=60)
    vital = deployment("vital", 1, priority_class="system-cluster-critical")
    with fast_world(deployment("web", 8), slow, vital, nodes=1) as world:
        add_node(world)
        target = target_of(world, world.busiest())
        asked = []

        async with connected(world, tmp_path) as kube:
            create = kube.create

            async def note(path, body):
                asked.append(body["metadata"]["name"].split("-")[0])
                return await create(path, body)

            kube.create = note
            result = await drain(world, kube, target, seconds=120, is_rescue=True)

        assert result["evicted"] == 10
        assert {"vital", "slow"} < set(asked[:4])
        assert world.pods_on(target.name) == set()
        assert world.node(target.name)["spec"]["unschedulable"] is True


async def test_given_pods_that_would_rather_stay_when_aws_takes_the_node_then_they_leave_as_late_as_they_can(
    tmp_path,
):
    protected = deployment("job", 1, annotations={"karpenter.sh/do-not-disrupt": "true"}, grace_seconds=10)
    bare = Workload("Pod", "default", "bare", 1, 100, 128, grace_seconds=10)
    with fast_world(protected, bare, deployment("web", 2), nodes=1, rate=RATE / 6) as world:
        add_node(world)
        target = target_of(world, world.busiest())
        asked = {}

        async with connected(world, tmp_path) as kube:
            create, end = kube.create, world.clock.seconds() + 60

            async def note(path, body):
                asked[body["metadata"]["name"].split("-")[0]] = end - world.clock.seconds()
                return await create(path, body)

            kube.create = note
            result = await drain(world, kube, target, seconds=60, is_rescue=True)

        assert result["evicted"] == 4
        assert asked["web"] > 40
        assert 10 < asked["job"] < 25
        assert 10 < asked["bare"] < 25


async def test_given_the_agents_own_pod_when_aws_takes_its_node_then_it_goes_last():
    """Every rescue of the cluster ends with it."""

    class Clock:
        def seconds(self):
            return 1000.0

    def pod(namespace, **annotations):
        owner = {"controller": True, "kind": "ReplicaSet", "name": "r"}
        metadata = {
            "name": "p",
            "namespace": namespace,
            "ownerReferences": [owner],
            "annotations": annotations,
        }
        return {"metadata": metadata, "spec": {"terminationGracePeriodSeconds": 30}}

    order = DrainOrder(
        Target("n", "i-0123456789abcdef0"), "a", deadline=1120.0, is_rescue=True,
        kept_namespaces=frozenset, own_namespace="agents",
    )  # fmt: skip
    drainer = Drainer(None, None, Clock(), order, lambda: True)
    protected = pod("default", **{"karpenter.sh/do-not-disrupt": "true"})

    waits = [drainer._patience(each) for each in (pod("kube-system"), protected, pod("agents"))]

    assert waits == [0, 85, 110]


async def test_given_a_budget_that_never_allows_when_aws_takes_the_node_then_it_says_what_stayed(tmp_path):
    with fast_world(deployment("single", 1, budget=Budget(min_available=1)), deployment("web", 2)) as world:
        target = target_of(world, next(n for n in world.names() if "single" in str(world.pods_on(n))))

        async with connected(world, tmp_path) as kube:
            with pytest.raises(Failed) as failure:
                await drain(world, kube, target, seconds=30, is_rescue=True)

        assert (failure.value.code, failure.value.facts["left_count"]) == ("deadline_passed", 1)
        assert failure.value.facts["uncordoned"] is False
        assert world.node(target.name)["spec"]["unschedulable"] is True


async def test_given_a_drain_for_money_when_aws_takes_the_node_then_the_rescue_goes_first(tmp_path):
    async with bench(tmp_path, STUCK) as it:
        polite = it.command("drain_node")
        it.executor.accept(polite)
        await asyncio.sleep(0.3)
        deadline = (it.world.clock.now() + timedelta(seconds=20)).isoformat()
        rescue = it.command(
            "drain_node",
            action_id="action-2",
            nonce="nonce-2",
            is_voluntary=False,
            payload={**polite.payload, "deadline": deadline},
        )

        result = await it.carry_out(rescue)

        assert result.error_code == "deadline_passed"
        assert it.product.results["action-1"].error_code == "interrupted"
        assert "urgent" in it.product.results["action-1"].error_message
        assert not it.is_open(polite)


async def test_given_a_drain_for_money_when_aws_takes_the_node_then_it_is_never_open_in_between(tmp_path):
    async with bench(tmp_path, STUCK) as it:
        polite = it.command("drain_node")
        it.executor.accept(polite)
        await asyncio.sleep(0.3)
        opened, patch = [], it.kube.patch

        async def note(path, change, *options, **more):
            if (change.get("spec") or {}).get("unschedulable", True) is None:
                opened.append(path)
            return await patch(path, change, *options, **more)

        it.kube.patch = note
        deadline = (it.world.clock.now() + timedelta(minutes=2)).isoformat()
        payload = {**polite.payload, "deadline": deadline}
        urgent = it.command(action_id="action-2", nonce="nonce-2", is_voluntary=False, payload=payload)

        await it.carry_out(urgent)

        assert it.product.results["action-1"].error_code == "interrupted"
        assert (opened, it.is_open(polite)) == ([], False)
