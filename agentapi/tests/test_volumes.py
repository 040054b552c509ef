import pytest

from agentapi.agent.nodes import Failed
from agentapi.agent.rollout import Rollout
from agentapi.tests.test_drain import connected, drain, target_of
from agentapi.tests.test_drain_meanwhile import MERGE
from agentapi.tests.worlds import fast_world
from simulator.fleet import Workload

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("key", ["kubernetes.io/hostname", "topology.kubernetes.io/zone"])
async def test_given_a_volume_when_the_node_is_drained_then_only_a_pod_whose_disk_can_follow_is_moved(
    key, tmp_path
):
    data = Workload("StatefulSet", "default", "data", 1, 100, 128, volume_gib=1)
    with fast_world(data) as world:
        target = target_of(world, world.busiest())
        with world.served.client() as admin:
            [volume] = world.body("/api/v1/persistentvolumes")["items"]
            required = volume["spec"]["nodeAffinity"]["required"]
            required["nodeSelectorTerms"][0]["matchExpressions"][0]["key"] = key
            path = f"/api/v1/persistentvolumes/{volume['metadata']['name']}"
            admin.patch(path, json={"spec": volume["spec"]}, headers=MERGE).raise_for_status()

        async with connected(world, tmp_path) as kube:
            drained = drain(world, kube, target)
            if "zone" in key:
                assert await drained == {"evicted": 1}
            else:
                with pytest.raises(Failed) as failure:
                    await drained
                assert (failure.value.code, failure.value.facts["evicted"]) == ("local_volume", 0)


async def test_given_a_single_replica_with_a_disk_when_a_surge_is_allowed_then_it_is_evicted_all_the_same():
    """Its successor could not mount the disk, and the rolling update would hang."""
    claim = {"persistentVolumeClaim": {"claimName": "data"}}
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"volumes": [claim]}}

    assert await Rollout(None, "action-1").start(pod) is False
