"""From the policy's switch to pods on spot nodes and back: the product, the agent's code, and Karpenter."""

import asyncio
import time
from datetime import timedelta
from decimal import Decimal

import pytest

from agentapi import protocol
from agentapi.agent.karpenter import Karpenter
from agentapi.agent.kube import Kube
from agentapi.agent.picture import draw
from agentapi.agent.view import View
from agentapi.services import delivery, keys, presence, reports
from agentapi.tests.worlds import fast_world
from clusters.models import InstanceType, InterruptionRate, Price
from clusters.tests.factories import ClusterFactory, InstanceFactory
from policies.selectors.karpenter import State, karpenter_of
from policies.services.karpenter import steer
from policies.services.policies import PolicyChange, change_policy
from simulator.fleet import NodePool
from simulator.tests.world.standin import ZONE_IDS, deployment, market
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow

AGENT_ID = "agent-0000-0001"
FAMILIES = ("m5", "m6i", "c5", "r5")
TYPES = [f"{family}.{size}" for family in FAMILIES for size in ("large", "xlarge", "2xlarge", "4xlarge")]
PATIENCE_SECONDS = 60


class Installed:
    """A cluster of the product whose agent looks at a simulated one."""

    def __init__(self, organization, world, state_dir):
        self.world, self.state_dir = world, state_dir
        self.row = ClusterFactory(snapshot_at=None, snapshot_sequence=0)
        self.actor = Actor.system(organization.pk)
        key = keys.create_key(cluster=self.row, description="", expires_at=None, actor=self.actor).key
        presence.register(key=key, registration=protocol.Registration(AGENT_ID, "1.0.0"), actor=self.actor)
        for machine in world.cluster.room.all():
            InstanceFactory(
                cluster=self.row, instance_id=machine.instance_id, az=machine.zone, az_id=machine.zone_id,
                instance_type=machine.instance_type, launched_at=utcnow() - timedelta(days=1),
            )  # fmt: skip
        self.sequence = 0

    def report(self):
        """Have the agent tell what it sees."""
        self.sequence += 1
        state = asyncio.run(self._look())
        reports.store_snapshot(
            cluster_id=self.row.pk,
            snapshot=state.full(agent_id=AGENT_ID, sequence=self.sequence, taken_at=utcnow()),
        )

    def obey(self):
        """Have the agent carry out what waits for it, report, and the product look again."""
        for command in delivery.claim(cluster_id=self.row.pk, request=protocol.Claim(AGENT_ID)):
            done = asyncio.run(self._apply(command.payload))
            result = protocol.Result(AGENT_ID, "completed", done)
            delivery.store_result(cluster_id=self.row.pk, action_id=command.action_id, result=result)
        self.report()
        assert steer(cluster_id=self.row.pk) == 0

    def switch(self, *, enabled):
        config = {"karpenter": {"enabled": enabled}, "provisioning": {"spot_percentage": 100}}
        change = PolicyChange(config=config, mode="automatic")
        change_policy(cluster_id=self.row.pk, change=change, actor=self.actor)

    @property
    def state(self):
        [pool] = karpenter_of(self.row.pk).pools
        return pool.state

    async def _look(self):
        kube = await Kube.connect(self.world.settings(self.state_dir))
        view = View(kube, self.world.clock)
        follow = [asyncio.ensure_future(each.run()) for each in view.reflectors]
        await view.synced()
        await view.measure()
        for each in follow:
            each.cancel()
        await asyncio.gather(*follow, return_exceptions=True)
        await kube.close()
        return draw(view, protocol.State())

    async def _apply(self, payload):
        kube = await Kube.connect(self.world.settings(self.state_dir))
        try:
            return await Karpenter(kube).apply(payload)
        finally:
            await kube.close()


@pytest.fixture
def sold(db):
    """What the world's market sells, as the product knows it: calm pools in every zone."""
    for name in TYPES:
        family, size, shape = *name.split("."), market().shape(name)
        InstanceType.objects.create(
            name=name, family=family, size=size, category=family[0], generation=int(family[1]),
            arch="x86_64", vcpu=shape.vcpu, memory_mib=shape.memory_mib, max_pods=shape.max_pods,
            cpu_allocatable_millis=shape.allocatable_cpu_millis,
            memory_allocatable_mib=shape.allocatable_memory_mib,
        )  # fmt: skip
        InterruptionRate.objects.create(
            region="us-east-1", instance_type=name, bucket=0, savings_percent=60, fetched_at=utcnow()
        )
        regular = market().on_demand("us-east-1", name)
        for zone_id, capacity_type, usd in (
            ("", "on_demand", regular), *((zone_id, "spot", regular / 3) for zone_id in ZONE_IDS.values()),
        ):  # fmt: skip
            Price.objects.create(
                region="us-east-1", zone_id=zone_id, instance_type=name, capacity_type=capacity_type,
                usd_per_hour=round(Decimal(usd), 6), observed_at=utcnow(), source="aws",
            )  # fmt: skip


def scale(world, replicas):
    """Ask for more pods; return the machines that Karpenter launched until all of them run."""
    before = {machine.instance_id for machine in world.cluster.room.all()}
    path = "/apis/apps/v1/namespaces/default/deployments/web"
    with world.served.client() as admin:
        headers = {"Content-Type": "application/merge-patch+json"}
        admin.patch(path, json={"spec": {"replicas": replicas}}, headers=headers).raise_for_status()
    patience = time.monotonic() + PATIENCE_SECONDS
    while world.body(path)["status"].get("readyReplicas") != replicas:
        assert time.monotonic() < patience, world.body(path)["status"]
        time.sleep(0.1)
    return [machine for machine in world.cluster.room.all() if machine.instance_id not in before]


def test_given_karpenter_when_steered_then_new_pods_run_on_our_spot_nodes_and_on_theirs_once_switched_off(
    in_acme, sold, tmp_path
):
    web = deployment("web", 1, cpu_millis=1500, memory_mib=2048)
    theirs = NodePool("regular", FAMILIES, ("on-demand", "spot"), consolidate_after="10m")
    with fast_world(web, karpenter=(theirs,)) as world:
        cluster = Installed(in_acme, world, tmp_path)
        cluster.report()
        as_it_was = world.body("/apis/karpenter.sh/v1/nodepools/regular")["spec"]

        cluster.switch(enabled=True)
        assert steer(cluster_id=cluster.row.pk) == 1
        cluster.obey()
        steered = cluster.state
        on_ours = scale(world, 14)
        cluster.report()

        cluster.switch(enabled=False)
        assert steer(cluster_id=cluster.row.pk) == 1
        cluster.obey()
        handed_back = cluster.state
        on_theirs = scale(world, 40)

        assert world.body("/apis/karpenter.sh/v1/nodepools/regular")["spec"] == as_it_was

    assert (steered, handed_back) == (State.IN_PLACE, State.HANDED_BACK)
    assert {machine.tags["karpenter.sh/nodepool"] for machine in on_ours} == {"spotopt-regular"}
    assert {machine.lifecycle for machine in on_ours} == {"spot"}
    assert {machine.instance_type for machine in on_ours} <= set(TYPES)
    assert {machine.tags["karpenter.sh/nodepool"] for machine in on_theirs} == {"regular"}
