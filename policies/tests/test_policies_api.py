from uuid import uuid4

import pytest

from audit.models import AuditLog
from clusters.models import AgentConfig
from clusters.tests.factories import ClusterFactory, NodeGroupFactory
from policies.domain.document import PolicyDocument, as_json, parse, warnings
from policies.models import ClusterPolicy, PolicyRevision
from policies.services.policies import default_policy_for
from policies.tests.factories import PlanFactory, TemplateFactory

DEFAULTS = as_json(PolicyDocument())


@pytest.fixture
def cluster(in_acme):
    return ClusterFactory(name="prod-1")


@pytest.fixture
def policy(cluster):
    return default_policy_for(cluster)


def path(cluster, rest=""):
    return f"/api/v1/policies/{cluster.pk}{rest}"


def test_given_no_policy_when_read_then_the_defaults_are_shown_and_not_stored(api_as, viewer, cluster):
    body = api_as(viewer).get(path(cluster)).json()

    assert (body["version"], body["mode"], body["is_active"]) == (0, "recommend", True)
    assert body["template"]["name"] == "General purpose, balanced"
    assert body["config"] == DEFAULTS
    assert not ClusterPolicy.objects.exists()


def test_given_a_cluster_when_its_policy_is_needed_twice_then_one_is_made(cluster):
    assert default_policy_for(cluster).pk == default_policy_for(cluster).pk

    assert AgentConfig.objects.get(cluster=cluster).config == {
        "policy_version": 1,
        "is_active": True,
        "excluded_namespaces": DEFAULTS["exclusions"]["namespaces"],
        "excluded_labels": {},
    }


@pytest.mark.parametrize(
    ("knob", "body", "section", "changed"),
    [
        ("strategy", {"strategy": "lowest-price"}, "provisioning", {"strategy": "lowest_price"}),
        ("binpack", {"aggressiveness": 80, "method": "delete_empty"}, "binpack",
         {"aggressiveness": 80, "method": "delete_empty"}),
        ("fallback", {"enabled": False}, "provisioning", {"fallback_on_demand": False}),
        ("spread", {"enabled": False}, "constraints", {"az_spread": False}),
        ("rightsize", {"mode": "off", "min_monthly_savings": "25.50"}, "rightsizing",
         {"mode": "off", "min_monthly_savings": "25.5"}),
        ("buffer", {"buffer_percent": 50}, "rightsizing", {"buffer_percent": 50}),
        ("constraints", {"block_burstable": True, "max_nodes": 40}, "constraints",
         {"block_burstable": True, "max_nodes": 40}),
        ("affinity", {"namespaces": {"shop": "none"}}, "spot_affinity", {"namespaces": {"shop": "none"}}),
        ("exclusions", {"namespaces": ["shop"], "labels": {"team": "db"}}, "exclusions",
         {"namespaces": ["kube-node-lease", "kube-public", "kube-system", "shop", "spot-optimizer"],
          "labels": {"team": "db"}}),
    ],
)  # fmt: skip
def test_given_a_knob_when_turned_then_only_it_changes_and_everything_is_told(
    api_as, member, policy, cluster, knob, body, section, changed
):
    answer = api_as(member).patch(
        f"/api/v1/policies/{knob}", body | {"cluster_id": str(cluster.pk), "version": 1}, format="json"
    )

    expected = DEFAULTS | {section: DEFAULTS[section] | changed}
    assert answer.json() == {
        "success": True,
        "cluster_id": str(cluster.pk),
        "version": 2,
        "config": expected,
        "warnings": warnings(parse(expected), policy.template),
        "broadcast": {"agents": 1, "delivered": 0},
    }
    policy.refresh_from_db()
    assert (policy.config, policy.version, policy.updated_by) == (expected, 2, member)
    told = AgentConfig.objects.get(cluster=cluster)
    assert (told.version, told.config["policy_version"]) == (2, 2)
    event = AuditLog.objects.get(event="policies.policy.updated")
    assert (event.before["config"], event.after["config"]) == (DEFAULTS, expected)
    assert (event.actor_label, event.cluster_id) == ("bob@acme.test", cluster.pk)


@pytest.mark.parametrize(
    ("knob", "body", "named"),
    [
        ("binpack", {"aggressiveness": 81}, "binpack.aggressiveness"),
        ("binpack", {"stabilization_minutes": 0}, "binpack.stabilization_minutes"),
        ("buffer", {"buffer_percent": 9}, "rightsizing.buffer_percent"),
        ("constraints", {"min_nodes": 2}, "constraints.min_nodes"),
        ("constraints", {"pool_share_percent": 51}, "constraints.pool_share_percent"),
        ("exclusions", {"namespaces": ["UPPER"]}, "exclusions.namespaces"),
        ("affinity", {"default": "always"}, "spot_affinity.default"),
        ("rightsize", {"mode": "sometimes"}, "rightsizing.mode"),
    ],
)
def test_given_a_knob_out_of_range_when_turned_then_it_is_named_and_nothing_is_written(
    api_as, member, policy, cluster, knob, body, named
):
    answer = api_as(member).patch(
        f"/api/v1/policies/{knob}", body | {"cluster_id": str(cluster.pk)}, format="json"
    )

    assert (answer.status_code, list(answer.json()["errors"])) == (400, [named])
    policy.refresh_from_db()
    assert (policy.config, policy.version) == (DEFAULTS, 1)
    assert not AuditLog.objects.exists()
    assert not PolicyRevision.objects.exists()


def test_given_a_knob_without_a_cluster_when_turned_then_the_cluster_is_asked_for(api_as, member, policy):
    answer = api_as(member).patch("/api/v1/policies/buffer", {"buffer_percent": 20}, format="json")

    assert (answer.status_code, answer.json()["errors"]) == (400, {"cluster_id": ["This field is required."]})


def test_given_a_slice_without_knobs_when_sent_then_it_is_refused(api_as, member, policy, cluster):
    answer = api_as(member).patch("/api/v1/policies/binpack", {"cluster_id": str(cluster.pk)}, format="json")

    assert answer.status_code == 400
    assert "non_field_errors" in answer.json()["errors"]


def test_given_the_same_values_when_saved_then_no_version_is_made(api_as, member, policy, cluster):
    answer = api_as(member).patch(path(cluster), {"config": DEFAULTS}, format="json")

    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert not AuditLog.objects.exists()


def test_given_another_editor_when_saved_from_an_old_version_then_they_are_named(
    api_as, member, alice, policy, cluster
):
    api_as(alice).patch(path(cluster), {"mode": "automatic", "version": 1}, format="json")

    answer = api_as(member).patch(path(cluster), {"mode": "recommend", "version": 1}, format="json")

    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["version"]) == (409, "stale", 2)
    assert problem["changed_by"] == "alice@acme.test"
    assert ClusterPolicy.objects.get().mode == "automatic"


def test_given_a_whole_document_when_saved_then_many_knobs_turn_in_one_version(
    api_as, member, policy, cluster
):
    template = TemplateFactory(name="Other")

    answer = api_as(member).patch(
        path(cluster),
        {
            "config": {"binpack": {"aggressiveness": 60}, "provisioning": {"spot_percentage": 95}},
            "template_id": str(template.pk),
            "mode": "automatic",
            "is_active": False,
            "version": 1,
        },
        format="json",
    )

    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    policy.refresh_from_db()
    assert (policy.template, policy.mode, policy.is_active) == (template, "automatic", False)
    assert (policy.config["binpack"]["aggressiveness"], policy.config["provisioning"]["spot_percentage"]) == (
        60,
        95,
    )


def test_given_blocked_burstables_when_the_template_has_nothing_else_then_the_contradiction_is_told(
    api_as, member, policy, cluster
):
    burstable = TemplateFactory(families=["t3"])

    answer = api_as(member).patch(
        path(cluster),
        {"config": {"constraints": {"block_burstable": True}}, "template_id": str(burstable.pk)},
        format="json",
    )

    assert (answer.status_code, answer.json()["code"]) == (409, "contradiction")
    policy.refresh_from_db()
    assert policy.version == 1


def test_given_no_karpenter_when_switched_on_then_it_is_refused_until_a_node_pool_is_found(
    api_as, member, policy, cluster
):
    speak, body = api_as(member), {"cluster_id": str(cluster.pk), "enabled": True}

    refused = speak.patch("/api/v1/policies/karpenter", body, format="json")
    NodeGroupFactory(cluster=cluster, kind="karpenter_nodepool")
    accepted = speak.patch("/api/v1/policies/karpenter", body, format="json")

    assert (refused.status_code, refused.json()["code"]) == (409, "karpenter_missing")
    assert (accepted.status_code, accepted.json()["config"]["karpenter"]["enabled"]) == (200, True)


def test_given_a_deleted_template_when_chosen_then_it_is_not_found(api_as, member, policy, cluster):
    answer = api_as(member).patch(path(cluster), {"template_id": str(uuid4())}, format="json")

    assert answer.status_code == 404


def test_given_changes_when_the_history_is_read_then_each_version_says_who_and_what(
    api_as, member, alice, policy, cluster
):
    api_as(member).patch(path(cluster), {"config": {"binpack": {"aggressiveness": 60}}}, format="json")
    api_as(alice).patch(path(cluster), {"mode": "automatic"}, format="json")

    body = api_as(member).get(path(cluster, "/revisions")).json()

    def modified(field, old, new):
        return {"field": field, "old_value": old, "new_value": new, "change_type": "modified"}

    assert [(row["version"], row["changed_by"], row["diff"]) for row in body["revisions"]] == [
        (3, "alice@acme.test", [modified("mode", "recommend", "automatic")]),
        (2, "bob@acme.test", [modified("config.binpack.aggressiveness", 40, 60)]),
        (1, "Spotopt defaults", []),
    ]
    assert body["revisions"][0]["changed_at"].endswith("Z")


def test_given_an_older_version_when_reverted_to_then_a_new_one_says_the_same(
    api_as, member, policy, cluster
):
    speak = api_as(member)
    speak.patch(path(cluster), {"config": {"binpack": {"aggressiveness": 60}}}, format="json")
    speak.patch(path(cluster), {"mode": "automatic"}, format="json")

    answer = speak.post(path(cluster, "/revert"), {"version": 1}, format="json")

    assert (answer.json()["version"], answer.json()["config"]) == (4, DEFAULTS)
    assert ClusterPolicy.objects.get().mode == "recommend"
    assert speak.post(path(cluster, "/revert"), {"version": 9}, format="json").status_code == 404


def test_given_a_changed_policy_when_reset_then_every_knob_is_at_its_default(api_as, member, policy, cluster):
    speak = api_as(member)
    speak.patch(path(cluster), {"config": {"binpack": {"aggressiveness": 60}}}, format="json")

    answer = speak.delete(path(cluster))

    assert (answer.json()["version"], answer.json()["config"]) == (3, DEFAULTS)


def test_given_an_acknowledged_version_when_nothing_changed_since_then_the_broadcast_is_delivered(
    api_as, member, policy, cluster
):
    AgentConfig.objects.filter(cluster=cluster).update(acknowledged_version=1)

    answer = api_as(member).patch(path(cluster), {"mode": "recommend"}, format="json")

    assert answer.json()["broadcast"] == {"agents": 1, "delivered": 1}


def test_given_a_viewers_draft_when_previewed_then_it_is_weighed_and_nothing_is_written(
    api_as, viewer, policy, cluster
):
    PlanFactory(cluster=cluster)

    answer = api_as(viewer).post(
        "/api/v1/policies/preview",
        {"cluster_id": str(cluster.pk), "config": {"provisioning": {"spot_percentage": 95}}},
        format="json",
    )

    body = answer.json()
    assert body["warnings"] == ["More than 90 % spot leaves little room when a pool runs dry."]
    assert body["config"]["provisioning"]["spot_percentage"] == 95
    assert body["forecast_monthly_savings"] == "1095.00"
    policy.refresh_from_db()
    assert (policy.version, policy.config) == (1, DEFAULTS)


def test_given_another_organizations_cluster_when_its_policy_is_touched_then_it_is_not_found(
    api_as, stranger, policy, cluster
):
    speak, named = api_as(stranger), {"cluster_id": str(cluster.pk)}

    answers = [
        speak.get(path(cluster)),
        speak.patch(path(cluster), {"mode": "automatic"}, format="json"),
        speak.delete(path(cluster)),
        speak.get(path(cluster, "/revisions")),
        speak.post(path(cluster, "/revert"), {"version": 1}, format="json"),
        speak.post("/api/v1/policies/preview", named, format="json"),
        speak.patch("/api/v1/policies/buffer", named | {"buffer_percent": 20}, format="json"),
        speak.patch("/api/v1/policies/karpenter", named | {"enabled": False}, format="json"),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    policy.refresh_from_db()
    assert policy.version == 1
