import asyncio
import json
from datetime import timedelta

import httpx
import pytest

from agentapi.agent.facts import SENTRY, Facts
from agentapi.agent.kube import Kube
from agentapi.agent.notices import Notices
from agentapi.agent.sentry import Post, Sentry
from agentapi.agent.view import View
from agentapi.tests.worlds import fast_world
from simulator.tests.world.standin import deployment, machine

pytestmark = pytest.mark.asyncio

NAMESPACE = "spot-optimizer"


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came true")


def spot_node(world):
    """A spot machine that has joined; its instance id."""
    at = world.clock.now()
    spot = machine(77, at=at - timedelta(minutes=5), ready_at=at, lifecycle="spot")
    world.served.world.room.launch_many([spot])
    return spot


async def test_given_nodes_that_aws_takes_when_they_are_marked_then_each_notice_is_told_once(tmp_path):
    with fast_world(deployment("web", 2)) as world:
        spot, told = spot_node(world), []
        kube = await Kube.connect(world.settings(tmp_path))
        view = View(kube, world.clock, Notices(world.clock, told.append, NAMESPACE).look)
        work = asyncio.ensure_future(view.nodes.run())
        await until(lambda: len(view.nodes.items) == 4)

        with world.served.control() as control:
            control.post("/rebalance", json={"instance_id": spot.instance_id}).raise_for_status()
            await until(lambda: len(told) == 1)
            control.post("/interrupt", json={"instance_id": spot.instance_id}).raise_for_status()
            await until(lambda: len(told) == 2)
        with world.served.client() as admin:
            labels = {"metadata": {"labels": {"touched": "yes"}}}
            kind = {"Content-Type": "application/merge-patch+json"}
            admin.patch(f"/api/v1/nodes/{spot.private_dns}", json=labels, headers=kind)
        await until(lambda: view.nodes.items["", spot.private_dns].labels.get("touched"))
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await kube.close()

    advice, notice = told
    assert (advice.kind, advice.instance_id, advice.deadline) == ("rebalance", spot.instance_id, None)
    assert (notice.kind, notice.node_name) == ("interruption", spot.private_dns)
    assert notice.deadline - notice.at == timedelta(minutes=2)


async def test_given_a_spot_instances_metadata_when_a_sentry_reads_it_then_it_ends_with_what_is_new(
    tmp_path,
):
    with fast_world(deployment("web", 2)) as world:
        spot = spot_node(world)
        url = f"{world.served.server.url}/metadata/{spot.instance_id}"
        post = Post(tmp_path, tmp_path / "termination-log", url)
        async with httpx.AsyncClient() as http:
            assert await Sentry(http, post).look() is False
            assert not post.message.exists()
            with world.served.control() as control:
                control.post("/interrupt", json={"instance_id": spot.instance_id}).raise_for_status()
            await asyncio.wait_for(Sentry(http, post).run(), 5)
            assert await Sentry(http, post).look() is False  # started again, it has nothing new to tell

    notice = fact_of(NAMESPACE, post.message.read_text()).signal
    assert notice is not None
    assert notice.kind == "interruption"


def fact_of(namespace, message, name=SENTRY, state="state"):
    metadata = {"namespace": namespace, "name": "p", "labels": {"app.kubernetes.io/name": name}}
    status = {"containerStatuses": [{"state": {"running": {}}, state: {"terminated": {"message": message}}}]}
    return Facts().pod({"metadata": metadata, "spec": {"nodeName": "n", "containers": []}, "status": status})


async def test_given_a_sentrys_word_when_looked_at_then_it_counts_in_our_own_namespace_only(tmp_path):
    """Anybody may write such a pod into a namespace of their own."""
    with fast_world(deployment("web", 1), nodes=1) as world:
        node = node_fact(world)
    told = []
    notices = Notices(world.clock, told.append, NAMESPACE)
    notices.look(None, node)
    word = json.dumps({"kind": "interruption", "at": "2026-11-01T12:00:00+00:00"})

    for fact in (
        fact_of("default", word),
        fact_of(NAMESPACE, word, name="other"),
        fact_of(NAMESPACE, "nonsense"),
        fact_of(NAMESPACE, json.dumps({"kind": "holiday", "at": None})),
    ):
        notices.look_at_pod(None, fact)
    assert told == []

    notices.look_at_pod(None, fact_of(NAMESPACE, word, state="lastState"))
    assert [(notice.kind, notice.instance_id) for notice in told] == [("interruption", node.instance_id)]


def node_fact(world):
    [name] = world.names()
    return Facts().node(world.node(name) | {"metadata": world.node(name)["metadata"] | {"name": "n"}})


async def test_given_a_sentrys_word_before_its_node_is_known_when_the_node_appears_then_it_is_told():
    """Pods and nodes are listed side by side."""
    with fast_world(deployment("web", 1), nodes=1) as world:
        node = node_fact(world)
    told = []
    notices = Notices(world.clock, told.append, NAMESPACE)
    word = json.dumps({"kind": "interruption", "at": "2026-11-01T12:00:00+00:00"})

    notices.look_at_pod(None, fact_of(NAMESPACE, word))
    assert told == []
    notices.look(None, node)
    notices.look(node, node)

    assert [(notice.kind, notice.instance_id) for notice in told] == [("interruption", node.instance_id)]


async def test_given_a_word_from_the_end_of_time_when_looked_at_then_it_counts_from_now():
    with fast_world(deployment("web", 1), nodes=1) as world:
        node = node_fact(world)
    told = []
    notices = Notices(world.clock, told.append, NAMESPACE)
    notices.look(None, node)

    word = json.dumps({"kind": "interruption", "at": "9999-12-31T23:59:59+00:00"})
    notices.look_at_pod(None, fact_of(NAMESPACE, word))

    assert told[0].at <= world.clock.now()
