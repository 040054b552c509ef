import pytest

PODS = "/api/v1/namespaces/default/pods"
WEB = "/apis/apps/v1/namespaces/default/deployments/web"
CONFIG = "/api/v1/namespaces/default/configmaps"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/spot-optimizer/leases"
MERGE = {"content-type": "application/merge-patch+json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}
JSON_PATCH = {"content-type": "application/json-patch+json"}


def test_given_two_writers_when_both_put_the_same_version_then_the_second_gets_409(admin):
    body = admin.get(WEB).json()
    body["spec"]["replicas"] = 5

    assert admin.put(WEB, json=body).status_code == 200
    refused = admin.put(WEB, json=body)

    assert refused.status_code == 409
    assert refused.json()["reason"] == "Conflict"


def test_given_a_lease_when_two_agents_race_then_one_version_wins(admin):
    lease = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15}}
    created = admin.post(LEASES, json=lease).json()
    assert admin.post(LEASES, json=lease).status_code == 409

    first = created | {"spec": created["spec"] | {"holderIdentity": "one again"}}
    second = created | {"spec": created["spec"] | {"holderIdentity": "two"}}

    assert admin.put(f"{LEASES}/leader", json=first).status_code == 200
    assert admin.put(f"{LEASES}/leader", json=second).status_code == 409
    assert admin.get(f"{LEASES}/leader").json()["spec"]["holderIdentity"] == "one again"


def test_given_a_strategic_patch_when_naming_a_container_then_only_it_changes(admin):
    resources = {"requests": {"cpu": "300m", "memory": "256Mi"}}
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "web", "resources": resources}]}}}}

    answer = admin.patch(WEB, json=patch, headers=STRATEGIC).json()

    (container,) = answer["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == resources["requests"]
    assert container["image"].endswith("web:1.4.2")
    assert answer["metadata"]["generation"] == 2


def test_given_a_merge_patch_when_it_names_a_list_then_the_list_is_replaced(admin):
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "other", "image": "new"}]}}}}

    answer = admin.patch(WEB, json=patch, headers=MERGE).json()

    assert [each["name"] for each in answer["spec"]["template"]["spec"]["containers"]] == ["other"]


@pytest.mark.parametrize(
    ("operations", "status"),
    [
        ([{"op": "replace", "path": "/spec/replicas", "value": 6}], 200),
        ([{"op": "test", "path": "/spec/replicas", "value": 9}], 422),
        ([{"op": "remove", "path": "/spec/nothing"}], 422),
    ],
)
def test_given_a_json_patch_when_applied_then_it_works_or_says_why(admin, operations, status):
    answer = admin.patch(WEB, json=operations, headers=JSON_PATCH)

    assert answer.status_code == status
    assert admin.get(WEB).json()["spec"]["replicas"] == (6 if status == 200 else 4)


def test_given_an_unknown_patch_type_when_patching_then_415(admin):
    assert admin.patch(WEB, json={}, headers={"content-type": "application/json"}).status_code == 415


def test_given_a_patch_that_changes_nothing_when_applied_then_the_version_stays(admin):
    before = admin.get(WEB).json()["metadata"]["resourceVersion"]

    answer = admin.patch(WEB, json={"spec": {"replicas": 4}}, headers=MERGE).json()

    assert answer["metadata"]["resourceVersion"] == before


def test_given_dry_run_when_writing_then_the_answer_shows_it_and_nothing_is_stored(admin):
    patched = admin.patch(WEB, json={"spec": {"replicas": 9}}, headers=MERGE, params={"dryRun": "All"})
    created = admin.post(CONFIG, json={"metadata": {"name": "ghost"}}, params={"dryRun": "All"})
    deleted = admin.delete(WEB, params={"dryRun": "All"})

    assert patched.json()["spec"]["replicas"] == 9
    assert (created.status_code, deleted.status_code) == (201, 200)
    assert admin.get(WEB).json()["spec"]["replicas"] == 4
    assert admin.get(f"{CONFIG}/ghost").status_code == 404


def test_given_status_in_a_main_write_when_stored_then_only_the_status_subresource_may_change_it(admin):
    admin.patch(WEB, json={"status": {"replicas": 99}}, headers=MERGE).raise_for_status()

    assert admin.get(WEB).json()["status"]["replicas"] == 4


def test_given_a_running_pod_when_its_spec_is_changed_then_422(admin):
    name = admin.get(PODS).json()["items"][0]["metadata"]["name"]

    refused = admin.patch(f"{PODS}/{name}", json={"spec": {"nodeName": "elsewhere"}}, headers=MERGE)

    assert refused.status_code == 422
    assert "pod updates may not change fields other than" in refused.json()["message"]


def test_given_a_deployment_when_deleted_then_its_replica_sets_and_pods_go_too(served, admin):
    answer = admin.delete(WEB).json()
    served.pass_time(60)

    assert answer["status"] == "Success"
    assert {
        each["metadata"]["labels"]["app.kubernetes.io/name"] for each in admin.get(PODS).json()["items"]
    } == {"free"}
    assert len(admin.get("/apis/apps/v1/replicasets").json()["items"]) == 1


def test_given_a_pod_when_deleted_by_force_then_it_is_gone_at_once(admin):
    name = admin.get(PODS).json()["items"][0]["metadata"]["name"]

    admin.delete(f"{PODS}/{name}", params={"gracePeriodSeconds": "0"}).raise_for_status()

    assert admin.get(f"{PODS}/{name}").status_code == 404


def test_given_a_missing_namespace_when_creating_then_404(admin):
    answer = admin.post("/api/v1/namespaces/nowhere/configmaps", json={"metadata": {"name": "x"}})

    assert answer.status_code == 404
    assert answer.json()["message"] == 'namespaces "nowhere" not found'


def test_given_the_scale_subresource_when_patched_then_the_pods_follow(served, admin):
    answer = admin.patch(f"{WEB}/scale", json={"spec": {"replicas": 6}}, headers=MERGE).json()
    served.pass_time(60)

    assert (answer["kind"], answer["spec"]["replicas"]) == ("Scale", 6)
    assert admin.get(WEB).json()["status"]["readyReplicas"] == 6


@pytest.mark.parametrize(
    "path", ["/api/v1/unknown", "/apis/none/v1/pods", "/api/v1/namespaces/default/nodes"]
)
def test_given_a_path_that_means_nothing_when_asked_then_404_as_the_real_server(admin, path):
    answer = admin.get(path)

    assert answer.status_code == 404
    assert answer.json()["message"] == "the server could not find the requested resource"
