"""The rights in the manifest are those that the agent uses, no more and no fewer."""

import asyncio
from contextlib import suppress

import pytest

from agentapi.agent.facts import instance_id_of
from agentapi.agent.karpenter import PATHS as KARPENTER
from agentapi.agent.kube import Kube
from agentapi.agent.lease import Lease
from agentapi.agent.memory import Identity, SecretIdentity
from agentapi.agent.view import View
from agentapi.tests.test_karpenter import CLASS, CLASS_OF_THE_CLUSTER, CUSTOMERS, POOL, put
from agentapi.tests.test_packaging import manifest
from agentapi.tests.workbench import Bench
from agentapi.tests.worlds import fast_world
from simulator.fleet import Budget
from simulator.kube.rbac import AGENT
from simulator.tests.world.standin import deployment

pytestmark = pytest.mark.asyncio

OPTIONS = ("karpenter", "workloads")
RBAC = "/apis/rbac.authorization.k8s.io/v1"
NAMESPACE = "spot-optimizer"
PATHS = {
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": f"{RBAC}/namespaces/{NAMESPACE}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{NAMESPACE}/rolebindings",
    "Secret": f"/api/v1/namespaces/{NAMESPACE}/secrets",
}


def install(world, documents):
    """Give the agent the rights of the manifest and no others."""
    with world.served.client() as admin:
        for binding in admin.get(PATHS["ClusterRoleBinding"]).json()["items"]:
            admin.delete(f"{PATHS['ClusterRoleBinding']}/{binding['metadata']['name']}").raise_for_status()
        for role in ("spotopt-agent",):
            admin.delete(f"{PATHS['ClusterRole']}/{role}").raise_for_status()
        for document in documents:
            if document["kind"] in PATHS:
                admin.post(PATHS[document["kind"]], json=document).raise_for_status()


def granted(documents):
    return {
        (verb, group, resource)
        for document in documents
        if document["kind"] in ("ClusterRole", "Role")
        for rule in document["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


async def watch(world, kube):
    """Copy every collection, follow each and read the metrics."""
    view = View(kube, world.clock)
    follow = [asyncio.ensure_future(each.run()) for each in view.reflectors]
    await view.synced()
    while sum(row["verb"] == "watch" for row in accesses(world)) < len(view.reflectors):
        await asyncio.sleep(0.02)
    await view.measure()
    assert view.is_live
    for each in follow:
        each.cancel()
        with suppress(asyncio.CancelledError):
            await each


def accesses(world):
    """What the agent has done so far, by verb and resource."""
    with world.served.control() as control:
        rows = control.get("/clusters/test/accesses").json()["accesses"]
    return [row for row in rows if row["user"] == AGENT]


async def be_elected(kube):
    first, second = (Lease(kube, NAMESPACE, name) for name in ("pod-1", "pod-2"))
    await first.acquire()
    await first.give_up()
    await second.acquire()


async def obey(it):
    """Carry out one command of each kind."""
    web = {"namespace": "default", "kind": "Deployment", "name": "web", "container": "web"}
    name = next(name for name in it.world.names() if "single" in str(it.world.pods_on(name)))
    busy = {"node_name": name, "instance_id": instance_id_of(it.world.node(name))}
    pod = max(it.world.pods_on(name))
    commands = (
        ("soft_cordon_node", busy),
        ("cordon_node", busy),
        ("label_node", {**busy, "labels": {"acme.io/a": "b"}}),
        ("evict_pod", {**busy, "namespace": "default", "pod_name": pod}),
        ("drain_node", {**busy, "surge": True}),
        ("uncordon_node", busy),
        ("update_deployment", {**web, "resources": {"requests": {"cpu": "50m"}}}),
        ("apply_karpenter", {"manifest": POOL}),
        ("apply_karpenter", {"manifest": CLASS}),
    )
    for number, (kind, payload) in enumerate(commands):
        command = it.command(kind, action_id=f"a-{number}", nonce=f"n-{number}", payload=payload)
        result = await it.carry_out(command)
        assert result.status == "completed", (kind, result)


async def test_given_the_manifests_rights_when_the_agent_does_all_it_can_then_it_uses_each_and_lacks_none(
    tmp_path,
):
    documents = manifest(options=OPTIONS)
    single = deployment("single", 1, budget=Budget(min_available=1))
    with fast_world(deployment("web", 6, budget=Budget(max_unavailable=1)), single) as world:
        install(world, documents)
        put(world, CUSTOMERS)
        put(world, CLASS_OF_THE_CLUSTER, path=KARPENTER[CLASS["apiVersion"], CLASS["kind"]])
        kube = await Kube.connect(world.settings(tmp_path))
        try:
            await be_elected(kube)
            store = SecretIdentity(kube, NAMESPACE, "spotopt-agent-identity")
            await store.save(Identity(key="so_key"))
            assert (await store.load()).key == "so_key"
            await watch(world, kube)
            await obey(Bench(world, kube, tmp_path))
        finally:
            await kube.close()
        used = {(row["verb"], row["group"], row["resource"]) for row in accesses(world)}

    stateful = {("get", "apps", "statefulsets"), ("patch", "apps", "statefulsets")}
    assert used == granted(documents) - stateful  # set as deployments are, by the same code


async def test_z23_given_no_optional_rights_when_a_workload_is_to_change_then_kubernetes_refuses(tmp_path):
    with fast_world(deployment("web", 1)) as world:
        install(world, manifest())
        kube = await Kube.connect(world.settings(tmp_path))
        try:
            it = Bench(world, kube, tmp_path)
            surge = it.command("drain_node", payload={**it.command().payload, "surge": True})
            refused = await it.carry_out(surge)
            pool = it.command("apply_karpenter", action_id="a", nonce="n", payload={"manifest": POOL})
            forbidden = await it.carry_out(pool)
        finally:
            await kube.close()

    assert (refused.error_code, refused.result["uncordoned"]) == ("forbidden", True)
    assert forbidden.error_code == "forbidden"
