import asyncio

import kr8s
import pytest
from kr8s.asyncio import api as kr8s_api
from kr8s.asyncio.objects import Deployment, Node, Pod

from simulator.kube.rbac import ADMIN, AGENT, VIEWER, token_of
from simulator.tests.world.standin import build_world, fleet_of

PODS = "/api/v1/pods"


def test_given_a_limit_when_paging_then_every_pod_comes_exactly_once(admin):
    seen, token, pages = [], "", 0
    while True:
        body = admin.get(PODS, params={"limit": "2", "continue": token}).json()
        seen += [item["metadata"]["uid"] for item in body["items"]]
        pages += 1
        token = body["metadata"].get("continue", "")
        if not token:
            break

    everything = admin.get(PODS).json()["items"]
    assert pages == 3
    assert seen == [item["metadata"]["uid"] for item in everything]


def test_given_a_page_when_more_follows_then_the_rest_is_counted(admin):
    body = admin.get(PODS, params={"limit": "4"}).json()

    assert body["metadata"]["remainingItemCount"] == 2
    assert "remainingItemCount" not in admin.get(PODS).json()["metadata"]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"labelSelector": "app.kubernetes.io/name=web"}, 4),
        ({"labelSelector": "app.kubernetes.io/name in (web, free)"}, 6),
        ({"labelSelector": "app.kubernetes.io/name notin (web)"}, 2),
        ({"labelSelector": "app.kubernetes.io/name!=web,pod-template-hash"}, 2),
        ({"labelSelector": "!pod-template-hash"}, 0),
        ({"fieldSelector": "status.phase=Running"}, 6),
        ({"fieldSelector": "status.phase!=Running"}, 0),
        ({"fieldSelector": "metadata.namespace=default"}, 6),
    ],
)
def test_given_a_selector_when_listing_then_it_selects(admin, query, count):
    assert len(admin.get(PODS, params=query).json()["items"]) == count


def test_given_a_node_name_when_listing_pods_then_exactly_those_on_it(admin):
    everything = admin.get(PODS).json()["items"]
    for node in {item["spec"]["nodeName"] for item in everything}:
        found = admin.get(PODS, params={"fieldSelector": f"spec.nodeName={node}"}).json()["items"]
        assert found == [item for item in everything if item["spec"]["nodeName"] == node]


def test_given_an_unknown_field_when_selecting_then_400(admin):
    answer = admin.get(PODS, params={"fieldSelector": "spec.color=red"})

    assert answer.status_code == 400
    assert answer.json()["message"] == "field label not supported: spec.color"


def test_given_no_token_or_a_foreign_one_when_asking_then_it_is_refused(served):
    foreign = build_world(fleet_of(name="other")).clusters["other"].cluster
    with served.client(token=token_of(foreign, ADMIN)) as stranger:
        assert stranger.get(PODS).status_code == 401
        assert stranger.get("/version").status_code == 401
        del stranger.headers["authorization"]
        assert stranger.get("/version").status_code == 200
        anonymous = stranger.get(PODS)
    assert anonymous.status_code == 403
    assert 'User "system:anonymous" cannot list resource "pods"' in anonymous.json()["message"]


def test_given_a_viewer_when_writing_then_403_names_what_is_missing(served):
    with served.client(VIEWER) as viewer:
        name = viewer.get(PODS).json()["items"][0]["metadata"]["name"]
        refused = viewer.post(f"/api/v1/namespaces/default/pods/{name}/eviction", json={})

    assert refused.status_code == 403
    assert refused.json()["message"] == (
        f'pods "{name}" is forbidden: User "{VIEWER}" cannot create resource "pods/eviction" '
        'in API group "" in the namespace "default"'
    )


def test_given_a_new_role_when_bound_then_its_verbs_are_allowed_at_once(served, admin):
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}]
    admin.post(
        f"{rbac}/clusterroles", json={"metadata": {"name": "reaper"}, "rules": rules}
    ).raise_for_status()
    subject = {"kind": "ServiceAccount", "namespace": "spot-optimizer", "name": "spotopt-agent"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reaper"}
    binding = {"metadata": {"name": "reaper"}, "subjects": [subject], "roleRef": reference}
    name = admin.get(PODS).json()["items"][0]["metadata"]["name"]

    with served.client(AGENT) as agent:
        path = f"/api/v1/namespaces/default/pods/{name}"
        assert agent.delete(path).status_code == 403
        admin.post(f"{rbac}/clusterrolebindings", json=binding).raise_for_status()
        assert agent.delete(path).status_code == 200


def test_given_metrics_when_read_then_nodes_sum_their_pods_and_repeat_for_the_same_instant(admin):
    first = admin.get("/apis/metrics.k8s.io/v1beta1/pods").json()["items"]
    again = admin.get("/apis/metrics.k8s.io/v1beta1/pods").json()["items"]
    nodes = admin.get("/apis/metrics.k8s.io/v1beta1/nodes").json()["items"]

    assert first == again
    assert len(first) == 6
    pods_cpu = sum(int(item["containers"][0]["usage"]["cpu"].rstrip("n")) for item in first)
    nodes_cpu = sum(int(item["usage"]["cpu"].rstrip("n")) for item in nodes)
    assert nodes_cpu == pods_cpu + 3 * 90_000_000
    assert all(item["timestamp"] and item["window"] for item in (*first, *nodes))


def test_given_discovery_when_read_then_it_names_what_is_served(admin):
    groups = {each["name"] for each in admin.get("/apis").json()["groups"]}
    core = {each["name"] for each in admin.get("/api/v1").json()["resources"]}

    assert {"apps", "policy", "coordination.k8s.io", "metrics.k8s.io"} <= groups
    assert {"pods", "pods/eviction", "nodes", "events"} <= core
    assert admin.get("/version").json()["minor"] == "33"


def test_given_the_kr8s_client_when_it_works_with_the_cluster_then_it_feels_at_home(served, tmp_path):
    async def work():
        kubeconfig = tmp_path / "kubeconfig"
        token = token_of(served.cluster, ADMIN)
        kubeconfig.write_text(
            f"""{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{{"name": "c", "cluster": {{"server": "{served.server.url}/clusters/test"}}}}],
            "users": [{{"name": "u", "user": {{"token": "{token}"}}}}],
            "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"""
        )
        api = await kr8s_api(kubeconfig=str(kubeconfig))
        nodes = [node async for node in Node.list(api=api)]
        await nodes[0].cordon()
        web = await Deployment.get("web", namespace="default", api=api)
        await web.scale(5)
        pods = [
            pod async for pod in Pod.list(namespace="default", api=api, label_selector={"nothing": "here"})
        ]
        versions = await api.version()
        return len(nodes), nodes[0].unschedulable, web.replicas, pods, versions["major"]

    nodes, unschedulable, replicas, pods, major = asyncio.run(work())

    assert (nodes, unschedulable, replicas, pods, major) == (3, True, 5, [], "1")
    assert kr8s.__version__
