import pytest

from simulator.kube.rbac import AGENT

PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


def names(client, app):
    selector = {"labelSelector": f"app.kubernetes.io/name={app}"}
    return [item["metadata"]["name"] for item in client.get(PODS, params=selector).json()["items"]]


def evict(client, name, body_name=None, **options):
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": body_name or name}}
    return client.post(f"{PODS}/{name}/eviction", json=body | options)


def budget(client, name="web"):
    return client.get(f"{BUDGETS}/{name}").json()["status"]


def test_given_a_healthy_budget_when_one_pod_is_evicted_then_a_second_eviction_gets_429(admin):
    first, second, *_ = names(admin, "web")

    assert evict(admin, first).status_code == 201
    refused = evict(admin, second)

    assert refused.status_code == 429
    assert "retry-after" not in refused.headers
    assert refused.json()["details"]["causes"] == [
        {
            "reason": "DisruptionBudget",
            "message": "The disruption budget web needs 3 healthy pods and has 3 currently",
        }
    ]
    assert budget(admin) | {"conditions": None} == {
        "observedGeneration": 1,
        "disruptionsAllowed": 0,
        "currentHealthy": 3,
        "desiredHealthy": 3,
        "expectedPods": 5,
        "conditions": None,
    }


def test_given_an_evicted_pod_when_its_replacement_is_ready_then_the_budget_allows_one_again(served, admin):
    evict(admin, names(admin, "web")[0])

    served.pass_time(60)

    assert budget(admin)["disruptionsAllowed"] == 1
    assert len(names(admin, "web")) == 4


def test_given_no_budget_when_all_pods_are_evicted_then_each_is_accepted(admin):
    answers = [evict(admin, name).status_code for name in names(admin, "free")]

    assert answers == [201, 201]


def test_given_dry_run_when_evicting_then_nothing_ends(admin):
    name = names(admin, "web")[0]

    by_query = admin.post(
        f"{PODS}/{name}/eviction", params={"dryRun": "All"}, json={"metadata": {"name": name}}
    )
    by_options = evict(admin, name, deleteOptions={"dryRun": ["All"]})

    assert (by_query.status_code, by_options.status_code) == (201, 201)
    assert "deletionTimestamp" not in admin.get(f"{PODS}/{name}").json()["metadata"]
    assert budget(admin)["disruptionsAllowed"] == 1


def test_given_two_budgets_over_a_pod_when_evicting_then_500(admin):
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app.kubernetes.io/name": "web"}}}
    admin.post(BUDGETS, json={"metadata": {"name": "second"}, "spec": spec}).raise_for_status()

    refused = evict(admin, names(admin, "web")[0])

    assert refused.status_code == 500
    assert refused.json()["message"].startswith("This pod has more than one PodDisruptionBudget")


def test_given_an_unready_pod_when_the_budget_is_met_then_it_may_be_evicted(served, admin):
    selector = {"matchLabels": {"app.kubernetes.io/name": "web"}}
    admin.patch(
        f"{BUDGETS}/web",
        json={"spec": {"minAvailable": 4, "selector": selector}},
        headers={"content-type": "application/merge-patch+json"},
    ).raise_for_status()
    scale = {"spec": {"replicas": 5}}
    admin.patch(
        "/apis/apps/v1/namespaces/default/deployments/web/scale",
        json=scale,
        headers={"content-type": "application/merge-patch+json"},
    ).raise_for_status()
    unready = next(
        item["metadata"]["name"]
        for item in admin.get(PODS).json()["items"]
        if item["status"]["phase"] == "Pending"
    )

    assert budget(admin)["disruptionsAllowed"] == 0
    assert evict(admin, unready).status_code == 201


@pytest.mark.parametrize("option", [{"uid": "another"}, {"resourceVersion": "1"}])
def test_given_a_precondition_that_does_not_hold_when_evicting_then_409(admin, option):
    name = names(admin, "web")[0]

    refused = evict(admin, name, deleteOptions={"preconditions": option})

    assert refused.status_code == 409
    assert "deletionTimestamp" not in admin.get(f"{PODS}/{name}").json()["metadata"]


def test_given_a_grace_period_when_evicted_then_the_pod_ends_gracefully_and_is_replaced(served, admin):
    name = names(admin, "web")[0]

    evict(admin, name)

    metadata = admin.get(f"{PODS}/{name}").json()["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == 30
    served.pass_time(40)
    assert admin.get(f"{PODS}/{name}").status_code == 404
    assert len(names(admin, "web")) == 4


def test_given_the_agents_role_when_it_works_then_it_may_evict_and_patch_nodes_but_not_delete(served, admin):
    with served.client(AGENT) as agent:
        name = names(agent, "web")[0]
        node = agent.get("/api/v1/nodes").json()["items"][0]["metadata"]["name"]
        merge = {"content-type": "application/merge-patch+json"}

        assert evict(agent, name).status_code == 201
        cordon = {"spec": {"unschedulable": True}}
        assert agent.patch(f"/api/v1/nodes/{node}", json=cordon, headers=merge).status_code == 200
        assert agent.delete(f"{PODS}/{name}").status_code == 403
        assert agent.delete(f"/api/v1/nodes/{node}").status_code == 403
        deployment = "/apis/apps/v1/namespaces/default/deployments/web"
        assert agent.patch(deployment, json={}, headers=merge).status_code == 403
