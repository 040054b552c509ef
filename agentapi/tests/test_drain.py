import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from agentapi.agent.drain import Drainer, DrainOrder
from agentapi.agent.eviction import budget_obstacle
from agentapi.agent.facts import CORDONED_BY, instance_id_of
from agentapi.agent.kube import Kube
from agentapi.agent.nodes import SOFT_TAINT, Failed, Nodes, Target
from agentapi.agent.rollout import starts_before_it_stops
from agentapi.tests.worlds import fast_world
from simulator.fleet import Budget, Workload
from simulator.kube.rbac import AGENT, RIGHTSIZING_AGENT, token_of
from simulator.tests.world.standin import deployment, machine

pytestmark = pytest.mark.asyncio


def daemon(name="logs"):
    return Workload("DaemonSet", "default", name, 0, 50, 64, tolerations=({"operator": "Exists"},))


@asynccontextmanager
async def connected(world, tmp_path, user=AGENT):
    kube = await Kube.connect(world.settings(tmp_path, kube_token=token_of(world.cluster, user)))
    try:
        yield kube
    finally:
        await kube.close()


def add_node(world):
    """Let another machine join: what is drained needs a place to go."""
    at = world.clock.now()
    world.served.world.room.launch_many([machine(900, at=at, ready_at=at + timedelta(seconds=10))])


def target_of(world, name):
    return Target(name, instance_id_of(world.node(name)))


async def drain(world, kube, target, *, seconds=600, may_go_on=lambda: True, **fields):
    order = DrainOrder(target, "action-1", deadline=world.clock.seconds() + seconds, **fields)
    return await Drainer(kube, Nodes(kube), world.clock, order, may_go_on).run()


async def test_given_a_node_when_drained_then_only_its_daemon_pods_remain_and_it_stays_cordoned(tmp_path):
    with fast_world(deployment("web", 6, budget=Budget(max_unavailable=1)), daemon()) as world:
        target = target_of(world, world.busiest())
        before = world.pods_on(target.name)

        async with connected(world, tmp_path) as kube:
            result = await drain(world, kube, target)

        assert result == {"evicted": len(before)}
        assert len(before) >= 2
        assert world.pods_on(target.name) == set()
        assert world.node(target.name)["spec"]["unschedulable"] is True
        with world.served.control() as control:
            record = control.get("/availability").json()["clusters"]["test"]
        assert record["pdb_violations"] == []
        assert record["evictions"] == len(before)


async def test_given_a_budget_that_never_allows_when_drained_then_it_gives_up_in_time_and_uncordons(tmp_path):
    with fast_world(deployment("single", 1, budget=Budget(min_available=1))) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            with pytest.raises(Failed) as failure:
                await drain(world, kube, target, seconds=60)

        assert failure.value.code == "eviction_blocked"
        assert "disruption budget" in failure.value.message
        assert failure.value.facts["uncordoned"] is True
        node = world.node(target.name)
        assert "unschedulable" not in node["spec"]
        assert CORDONED_BY not in node["metadata"].get("annotations", {})
        assert len(world.pods_on(target.name)) == 1


@pytest.mark.parametrize(
    ("workload", "code"),
    [
        (deployment("kept", 1, annotations={"karpenter.sh/do-not-disrupt": "true"}), "do_not_disrupt"),
        (
            deployment("kept", 1, annotations={"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}),
            "do_not_disrupt",
        ),
        (deployment("kept", 1, empty_dir=True), "local_storage"),
        (Workload("Pod", "default", "kept", 1, 100, 128), "bare_pod"),
    ],
)
async def test_given_a_pod_that_must_stay_when_drained_then_nothing_is_evicted(workload, code, tmp_path):
    with fast_world(workload) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            with pytest.raises(Failed) as failure:
                await drain(world, kube, target)

        assert failure.value.code == code
        assert failure.value.facts["evicted"] == 0
        assert "unschedulable" not in world.node(target.name)["spec"]
        assert len(world.pods_on(target.name)) == 1


async def test_given_leave_to_lose_local_data_when_drained_then_such_pods_are_evicted(tmp_path):
    with fast_world(deployment("scratch", 1, empty_dir=True)) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            result = await drain(world, kube, target, allow_local_data_loss=True)

        assert result == {"evicted": 1}


async def test_given_two_budgets_for_a_pod_when_drained_then_it_fails_at_once_and_uncordons(tmp_path):
    with fast_world(deployment("web", 2, budget=Budget(max_unavailable=1))) as world:
        with world.served.client() as admin:
            path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
            [budget] = admin.get(path).json()["items"]
            second = {
                "metadata": {"name": "second", "namespace": "default"},
                "spec": {"maxUnavailable": 1, "selector": budget["spec"]["selector"]},
            }
            assert admin.post(path, json=second).status_code == 201
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            with pytest.raises(Failed) as failure:
                await drain(world, kube, target)

        assert failure.value.code == "several_budgets"
        assert "unschedulable" not in world.node(target.name)["spec"]


async def test_z33_given_another_instance_by_the_name_when_drained_then_it_is_not_touched(tmp_path):
    with fast_world(deployment("web", 3)) as world:
        name = world.busiest()
        before = world.pods_on(name)

        async with connected(world, tmp_path) as kube:
            with pytest.raises(Failed) as failure:
                await drain(world, kube, Target(name, "i-0123456789abcdef0"))

        assert failure.value.code == "node_mismatch"
        assert world.pods_on(name) == before
        assert "unschedulable" not in world.node(name)["spec"]


async def test_given_a_node_that_somebody_else_cordoned_when_the_drain_fails_then_it_stays_cordoned(tmp_path):
    with fast_world(deployment("single", 1, budget=Budget(min_available=1))) as world:
        target = target_of(world, world.busiest())
        with world.served.client() as admin:
            patch = {"Content-Type": "application/merge-patch+json"}
            admin.patch(f"/api/v1/nodes/{target.name}", json={"spec": {"unschedulable": True}}, headers=patch)

        async with connected(world, tmp_path) as kube:
            with pytest.raises(Failed) as failure:
                await drain(world, kube, target, seconds=30)

        assert failure.value.facts["uncordoned"] is False
        assert world.node(target.name)["spec"]["unschedulable"] is True


async def test_given_a_silent_product_when_a_drain_waits_then_it_stops_and_uncordons(tmp_path):
    with fast_world(deployment("single", 1, budget=Budget(min_available=1))) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            with pytest.raises(Failed) as failure:
                await drain(world, kube, target, may_go_on=lambda: False)

        assert failure.value.code == "backend_silent"
        assert "unschedulable" not in world.node(target.name)["spec"]


async def test_given_a_drain_under_way_when_cancelled_then_the_node_is_released(tmp_path):
    with fast_world(deployment("single", 1, budget=Budget(min_available=1))) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            work = asyncio.ensure_future(drain(world, kube, target))
            await asyncio.sleep(0.3)
            assert world.node(target.name)["spec"]["unschedulable"] is True
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

        assert "unschedulable" not in world.node(target.name)["spec"]


async def test_given_a_drain_when_cancelled_while_its_cordon_is_asked_for_then_the_node_is_released(tmp_path):
    with fast_world(deployment("web", 1)) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            patch, is_asked = kube.patch, asyncio.Event()

            async def note(*asked, **more):
                answer = await patch(*asked, **more)
                if not is_asked.is_set():
                    is_asked.set()
                    await asyncio.Event().wait()
                return answer

            kube.patch = note
            work = asyncio.ensure_future(drain(world, kube, target))
            await is_asked.wait()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

        assert "unschedulable" not in world.node(target.name)["spec"]


async def test_given_a_node_when_steered_around_and_released_then_its_other_taints_stay(tmp_path):
    with fast_world(deployment("web", 1)) as world:
        target = target_of(world, world.busiest())
        other = {"key": "team", "value": "a", "effect": "PreferNoSchedule"}
        with world.served.client() as admin:
            patch = {"Content-Type": "application/merge-patch+json"}
            admin.patch(f"/api/v1/nodes/{target.name}", json={"spec": {"taints": [other]}}, headers=patch)

        async with connected(world, tmp_path) as kube:
            nodes = Nodes(kube)
            assert await nodes.soft_cordon(target) is True
            assert await nodes.soft_cordon(target) is False
            assert world.node(target.name)["spec"]["taints"] == [other, SOFT_TAINT]
            assert await nodes.cordon(target, "action-1") is True
            assert await nodes.cordon(target, "action-2") is False
            assert await nodes.uncordon(target) is True
            assert await nodes.uncordon(target) is False

        assert world.node(target.name)["spec"]["taints"] == [other]
        assert "unschedulable" not in world.node(target.name)["spec"]


async def test_given_a_node_that_somebody_else_cordoned_when_released_then_only_our_taint_goes(tmp_path):
    with fast_world(deployment("web", 1)) as world:
        target = target_of(world, world.busiest())
        with world.served.client() as admin:
            patch = {"Content-Type": "application/merge-patch+json"}
            admin.patch(f"/api/v1/nodes/{target.name}", json={"spec": {"unschedulable": True}}, headers=patch)

        async with connected(world, tmp_path) as kube:
            nodes = Nodes(kube)
            await nodes.soft_cordon(target)
            assert await nodes.cordon(target, "action-1") is False
            assert await nodes.uncordon(target) is True
            assert await nodes.uncordon(target) is False
            assert await nodes.is_cordoned(target) is True

        assert SOFT_TAINT not in world.node(target.name)["spec"].get("taints", [])


async def test_z23_given_a_pod_of_a_protected_namespace_when_drained_then_only_without_choice_is_it_moved(
    tmp_path,
):
    kept = Workload("Deployment", "kube-system", "dns", 1, 100, 128)
    with fast_world(kept) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            with pytest.raises(Failed) as failure:
                await drain(world, kube, target)
            assert "unschedulable" not in world.node(target.name)["spec"]
            result = await drain(world, kube, target, kept_namespaces=frozenset)

        assert failure.value.code == "protected_namespace"
        assert result == {"evicted": 1}


async def test_given_a_namespace_that_the_policy_excludes_when_drained_then_nothing_is_evicted(tmp_path):
    with fast_world(deployment("web", 3)) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            with pytest.raises(Failed) as failure:
                await drain(world, kube, target, kept_namespaces=lambda: frozenset({"default"}))

        assert (failure.value.code, failure.value.facts["evicted"]) == ("protected_namespace", 0)


async def test_given_an_api_server_that_forgets_budgets_when_drained_then_the_agent_keeps_them_itself():
    body = {
        "metadata": {"name": "all", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1},
        "status": {
            "observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1,
        },
    }  # fmt: skip
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    unready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}

    def pod(status, app="web"):
        return {"metadata": {"name": "p", "namespace": "default", "labels": {"app": app}}, "status": status}

    stale = body | {"metadata": {"name": "all", "generation": 2}}
    assert "needs 1 healthy pods and has 1" in budget_obstacle(pod(ready), [body])
    assert "still being processed" in budget_obstacle(pod(ready), [stale])
    assert budget_obstacle(pod(unready), [body]) is None
    assert budget_obstacle(pod({"phase": "Pending"}), [body]) is None
    assert budget_obstacle(pod(ready, "other"), [body]) is None
    with pytest.raises(Failed) as failure:
        budget_obstacle(pod(ready), [body, body])
    assert failure.value.code == "several_budgets"


async def test_given_a_single_replica_when_the_policy_allows_a_surge_then_it_moves_without_a_gap(tmp_path):
    with fast_world(deployment("single", 1, budget=Budget(min_available=1))) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path, user=RIGHTSIZING_AGENT) as kube:
            result = await drain(world, kube, target, surges=True)

        assert result == {"evicted": 0, "rolled": 1}
        assert world.pods_on(target.name) == set()
        with world.served.control() as control:
            record = control.get("/availability").json()["clusters"]["test"]
        assert (record["pdb_violations"], record["evictions"]) == ([], 0)
        [single] = world.body("/apis/apps/v1/deployments")["items"]
        assert (single["spec"]["replicas"], single["status"]["readyReplicas"]) == (1, 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"replicas": 2}, False),
        ({"paused": True}, False),
        ({"strategy": {"type": "Recreate"}}, False),
        ({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}, False),
        ({"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}, True),
        ({"strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "100%"}}}, False),
    ],
)
async def test_given_a_deployment_when_asked_then_only_one_that_starts_before_it_stops_is_rolled(
    change, expected
):
    assert starts_before_it_stops({"spec": {"replicas": 1} | change}) is expected


async def test_given_a_busy_api_server_when_drained_then_it_goes_on_and_leaves_nothing_behind(tmp_path):
    with fast_world(deployment("web", 6, budget=Budget(max_unavailable=1))) as world:
        target = target_of(world, world.busiest())

        async with connected(world, tmp_path) as kube:
            with world.served.control() as control:
                control.post("/faults", json={"kube": {"error_rate": 0.25, "codes": [429, 500, 503]}})
            await drain(world, kube, target)
            with world.served.control() as control:
                control.post("/faults", json={"kube": {"error_rate": 0.0}})
                record = control.get("/availability").json()["clusters"]["test"]

        assert world.pods_on(target.name) == set()
        assert record["pdb_violations"] == []
