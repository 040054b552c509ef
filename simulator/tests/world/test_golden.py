import copy
import json
import os
from pathlib import Path

import pytest

from simulator.tests.world.standin import build_world, fleet_of, serve

GOLDEN = Path(os.environ.get("K8S_GOLDEN", Path(__file__).resolve().parents[4] / "shared/data/k8s-golden"))
NAMES = [
    "cordon_ok",
    "deploy_bad_replicas",
    "deploy_immutable_selector",
    "deploy_stale_rv",
    "evict_blocked_pdb",
    "evict_missing",
    "evict_name_mismatch",
    "evict_ok",
    "evict_two_pdbs",
    "label_bad_value",
    "label_remove_null",
    "list_continue_bad",
    "node_missing",
    "patch_node_forbidden",
    "unauthorized",
]
NODE = "ip-10-0-0-0.ec2.internal"
USER = "system:serviceaccount:spot-agent:agent"
MERGE = {"content-type": "application/merge-patch+json"}
PODS = "/api/v1/namespaces/default/pods"
WEB = "/apis/apps/v1/namespaces/default/deployments/web"


@pytest.fixture
def served():
    yield from serve(build_world(fleet_of(nodes=1)))


@pytest.fixture
def stage(served):
    """The node and the deployment of the recordings: four pods of `web` under a budget of four."""
    with served.client() as admin:
        node = admin.get("/api/v1/nodes").json()["items"][0]
        renamed = {"name": NODE, "labels": node["metadata"]["labels"] | {"gone": "soon"}}
        body = node | {"metadata": renamed, "kind": "Node", "apiVersion": "v1"}
        admin.post("/api/v1/nodes", json=body).raise_for_status()
        labels = {"app": "web"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]}}
        spec = {"replicas": 4, "selector": {"matchLabels": labels}, "template": template}
        path = WEB.rsplit("/", 1)[0]
        admin.post(path, json={"metadata": {"name": "web"}, "spec": spec}).raise_for_status()
        served.pass_time(60)
        yield admin


def protect(admin, name="web", minimum=4):
    spec = {"minAvailable": minimum, "selector": {"matchLabels": {"app": "web"}}}
    path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    admin.post(path, json={"metadata": {"name": name}, "spec": spec}).raise_for_status()


def first_pod(admin):
    return admin.get(PODS, params={"labelSelector": "app=web"}).json()["items"][0]["metadata"]["name"]


def evict(admin, name, other=None):
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": other or name}}
    return admin.post(f"{PODS}/{name}/eviction", json=body)


def cordon(client):
    return client.patch(f"/api/v1/nodes/{NODE}", json={"spec": {"unschedulable": True}}, headers=MERGE)


def label(admin, value):
    labels = {"metadata": {"labels": {"gone": value}}}
    return admin.patch(f"/api/v1/nodes/{NODE}", json=labels, headers=MERGE)


def evict_blocked(admin):
    protect(admin)
    return evict(admin, first_pod(admin))


def evict_two(admin):
    protect(admin, "web", 1)
    protect(admin, "web-too", 1)
    return evict(admin, first_pod(admin))


def stale(admin):
    body = admin.get(WEB).json()
    body["metadata"]["resourceVersion"] = "1"
    return admin.put(WEB, json=body)


def label_removed_after_cordon(admin):
    cordon(admin)
    return label(admin, None)


EXCHANGES = {
    "cordon_ok": cordon,
    "label_remove_null": label_removed_after_cordon,
    "label_bad_value": lambda admin: label(admin, "a b!"),
    "node_missing": lambda admin: admin.get("/api/v1/nodes/nope"),
    "evict_ok": lambda admin: evict(admin, first_pod(admin)),
    "evict_blocked_pdb": evict_blocked,
    "evict_two_pdbs": evict_two,
    "evict_missing": lambda admin: evict(admin, "nope"),
    "evict_name_mismatch": lambda admin: evict(admin, first_pod(admin), "other"),
    "deploy_bad_replicas": lambda admin: admin.patch(WEB, json={"spec": {"replicas": -1}}, headers=MERGE),
    "deploy_immutable_selector": lambda admin: admin.patch(
        WEB, json={"spec": {"selector": {"matchLabels": {"app": "zzz"}}}}, headers=MERGE
    ),
    "deploy_stale_rv": stale,
    "list_continue_bad": lambda admin: admin.get(PODS, params={"limit": 1, "continue": "junk"}),
}


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the recorded exchanges are not on this machine")
@pytest.mark.parametrize("name", NAMES)
def test_given_a_recorded_request_when_replayed_then_status_and_body_are_the_recorded_ones(
    served, stage, name
):
    if name == "patch_node_forbidden":
        with served.client(USER) as client:
            answer = cordon(client)
    elif name == "unauthorized":
        with served.client(token="junk") as client:
            answer = client.get("/api/v1/nodes")
    else:
        answer = EXCHANGES[name](stage)

    recorded = json.loads((GOLDEN / f"{name}.body.json").read_text())
    assert answer.status_code == int((GOLDEN / f"{name}.status").read_text())
    assert answer.headers["content-type"] == "application/json"
    assert "audit-id" in answer.headers
    assert "retry-after" not in answer.headers
    if recorded["kind"] == "Status":
        assert answer.json() == recorded
    else:
        assert comparable(answer.json()) == comparable(recorded)
        assert ("gone" in answer.json()["metadata"]["labels"]) is (name == "cordon_ok")


def comparable(node):
    """What a recorded node says apart from identity, hardware, versions and times."""
    node = copy.deepcopy(node)
    for taint in node["spec"].get("taints", []):
        assert taint.pop("timeAdded")
    return {
        "kind": node["kind"],
        "apiVersion": node["apiVersion"],
        "name": node["metadata"]["name"],
        "unschedulable": node["spec"].get("unschedulable"),
        "taints": node["spec"].get("taints"),
        "status": sorted(node["status"]),
        "nodeInfo": sorted(node["status"]["nodeInfo"]),
        "ready": next(each["status"] for each in node["status"]["conditions"] if each["type"] == "Ready"),
    }
