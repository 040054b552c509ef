import pytest
from django.urls import reverse

from clusters.models import AgentConfig, InstanceType
from clusters.tests.factories import ClusterFactory
from policies.models import ClusterPolicy, NodeTemplate
from policies.services.policies import PolicyChange, change_policy, default_policy_for
from policies.services.templates import ensure_defaults
from policies.tests.factories import PolicyFactory, TemplateFactory
from spotopt.core.actor import Actor


@pytest.fixture
def cluster(in_acme):
    return ClusterFactory(name="prod-1")


@pytest.fixture
def catalogue(db):
    for family, arch in (("m5", "x86_64"), ("c5", "x86_64"), ("m7g", "arm64")):
        InstanceType.objects.create(
            name=f"{family}.xlarge", family=family, size="xlarge", category=family[0], generation=5,
            arch=arch, vcpu=4, memory_mib=16384, max_pods=58, cpu_allocatable_millis=3920,
            memory_allocatable_mib=14800,
        )  # fmt: skip


def fields_of(page):
    """Return what a browser would send back from the form of a page."""
    form = page.context["form"]
    sent = {}
    for bound in form:
        value = bound.value()
        if isinstance(value, bool):
            sent |= {bound.html_name: "on"} if value else {}
        elif value is not None:
            shown = bound.field.prepare_value(value)
            sent[bound.html_name] = list(shown) if isinstance(shown, tuple) else shown
    return sent


def test_given_a_policy_when_its_form_is_sent_back_unchanged_then_nothing_is_saved(cluster, member, as_user):
    default_policy_for(cluster)
    browser, path = as_user(member), reverse("policies:policy", args=[cluster.pk])

    answer = browser.post(path, fields_of(browser.get(path)))

    assert answer.status_code == 302
    assert ClusterPolicy.objects.get().version == 1


def test_given_no_policy_yet_when_its_form_is_saved_then_it_is_stored_with_the_changed_knobs(
    cluster, member, as_user
):
    browser, path = as_user(member), reverse("policies:policy", args=[cluster.pk])
    sent = fields_of(browser.get(path)) | {
        "mode": "automatic",
        "constraints.min_nodes": "5",
        "constraints.max_nodes": "40",
        "provisioning.max_pool_risk": "12.5",
        "provisioning.max_price_per_hour": "1.25",
        "binpack.min_saving_usd_per_hour": "0.5",
        "spot_affinity.namespaces": "db, cache",
        "exclusions.labels": "team=db",
        "exclusions.namespaces": "shop",
    }
    del sent["constraints.az_spread"]

    answer = browser.post(path, sent)

    stored = ClusterPolicy.objects.get()
    config = stored.config
    assert (answer.status_code, stored.version, stored.mode) == (302, 2, "automatic")
    limits, buying = config["constraints"], config["provisioning"]
    assert (limits["min_nodes"], limits["max_nodes"], limits["az_spread"]) == (5, 40, False)
    assert (buying["max_pool_risk"], buying["max_price_per_hour"]) == (0.125, "1.25")
    assert config["binpack"]["min_saving_usd_per_hour"] == "0.5"
    assert config["spot_affinity"]["namespaces"] == {"cache": "none", "db": "none"}
    assert config["exclusions"]["labels"] == {"team": "db"}
    assert {"shop", "kube-system"} <= set(config["exclusions"]["namespaces"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("constraints.min_nodes", "2", "greater than or equal to 3"),
        ("constraints.max_nodes", "3", "must be at least min_nodes, 4."),
        ("exclusions.labels", "novalue", "Write key=value; novalue is not."),
        ("exclusions.namespaces", "Not_One", "must be Kubernetes namespaces"),
        ("constraints.allowed_families", "zz9", "leave no instance family"),
        ("template", "nonsense", "Select a valid choice"),
        ("provisioning.spot_percentage", "", "This field is required."),
    ],
)
def test_given_a_wrong_setting_when_saved_then_the_form_says_which_and_nothing_is_saved(
    cluster, member, as_user, field, value, message
):
    default_policy_for(cluster)
    browser, path = as_user(member), reverse("policies:policy", args=[cluster.pk])
    sent = fields_of(browser.get(path)) | {"constraints.min_nodes": "4", field: value}

    page = browser.post(path, sent)

    assert page.status_code == 400
    errors = page.context["form"].errors
    assert message in str(errors.get(field) or errors["__all__"])
    assert ClusterPolicy.objects.get().version == 1


def test_given_somebody_saved_meanwhile_when_saved_then_the_author_is_told_and_nothing_is_lost(
    cluster, member, alice, as_user, acme
):
    browser, path = as_user(member), reverse("policies:policy", args=[cluster.pk])
    sent = fields_of(browser.get(path))
    actor = Actor(kind="user", organization_id=acme.pk, label=alice.email, id=str(alice.pk), role="owner")
    change = PolicyChange(config={"constraints": {"min_nodes": 7}})
    change_policy(cluster_id=cluster.pk, change=change, actor=actor)

    page = browser.post(path, sent)

    assert page.status_code == 400
    assert "saved this policy meanwhile" in page.text
    assert ClusterPolicy.objects.get().config["constraints"]["min_nodes"] == 7


def test_given_a_knob_that_the_form_does_not_show_when_saved_then_it_stays(cluster, member, as_user):
    policy = default_policy_for(cluster)
    policy.config["binpack"]["aggressiveness"] = 55
    policy.config["spot_affinity"]["namespaces"] = {"batch": "force"}
    policy.save()
    browser, path = as_user(member), reverse("policies:policy", args=[cluster.pk])

    browser.post(path, fields_of(browser.get(path)) | {"constraints.min_nodes": "6"})

    stored = ClusterPolicy.objects.get().config
    assert (stored["binpack"]["aggressiveness"], stored["constraints"]["min_nodes"]) == (55, 6)
    assert stored["spot_affinity"]["namespaces"] == {"batch": "force"}


def test_given_versions_when_the_history_is_read_and_one_is_reverted_then_it_holds_again(
    cluster, member, as_user, acme
):
    actor = Actor.system(acme.pk)
    for least in (6, 7):
        change = PolicyChange(config={"constraints": {"min_nodes": least}})
        change_policy(cluster_id=cluster.pk, change=change, actor=actor)
    browser = as_user(member)

    page = browser.get(reverse("policies:policy-history", args=[cluster.pk]))
    browser.post(reverse("policies:revert-policy", args=[cluster.pk, 2]))

    assert "constraints.min_nodes" in page.text
    stored = ClusterPolicy.objects.get()
    assert (stored.version, stored.config["constraints"]["min_nodes"]) == (4, 6)

    browser.post(reverse("policies:reset-policy", args=[cluster.pk]))
    assert ClusterPolicy.objects.get().config["constraints"]["min_nodes"] == 3


def test_given_clusters_with_and_without_policies_when_listed_then_each_says_how_it_stands(
    cluster, viewer, as_user, django_assert_max_num_queries
):
    for number in range(8):
        policy = PolicyFactory(mode="automatic", cluster__agent_installed=True)
        AgentConfig.objects.create(
            organization_id=policy.organization_id,
            cluster=policy.cluster,
            version=2,
            acknowledged_version=number % 2 + 1,
        )
    browser = as_user(viewer)

    with django_assert_max_num_queries(12):
        page = browser.get(reverse("policies:policies"))

    rows = {row.cluster_name: row for row in page.context["page"].rows}
    assert (rows["prod-1"].version, rows["prod-1"].template, rows["prod-1"].is_automatic) == (0, None, False)
    assert sorted(row.agent for row in rows.values() if row.version) == ["told"] * 4 + ["waiting"] * 4
    assert browser.get(reverse("policies:policies"), {"q": "prod-"}).context["page"].total == 1


def test_given_a_viewer_when_policies_and_templates_are_opened_then_nothing_can_be_sent(
    cluster, viewer, as_user, catalogue
):
    default_policy_for(cluster)
    template = TemplateFactory()
    browser = as_user(viewer)
    pages = [
        reverse("policies:policies"), reverse("policies:policy", args=[cluster.pk]),
        reverse("policies:policy-history", args=[cluster.pk]), reverse("policies:templates"),
        reverse("policies:template", args=[template.pk]), reverse("policies:what-ifs", args=[cluster.pk]),
    ]  # fmt: skip
    posts = [
        pages[1], pages[4], pages[5], reverse("policies:new-template"),
        reverse("policies:reset-policy", args=[cluster.pk]),
        reverse("policies:revert-policy", args=[cluster.pk, 1]),
        *(reverse(f"policies:{act}-template", args=[template.pk]) for act in ("clone", "default", "delete")),
    ]  # fmt: skip

    shown = [browser.get(path) for path in pages]
    refused = [browser.post(path).status_code for path in posts]

    assert [page.status_code for page in shown] == [200] * 6
    assert all('action="/policies' not in page.text for page in shown)
    assert all('action="/templates' not in page.text for page in shown)
    assert refused == [403] * 9
    assert browser.get(reverse("policies:new-template")).status_code == 403


def test_given_a_template_s_form_when_saved_then_only_what_changed_differs(
    member, as_user, catalogue, in_acme
):
    template = TemplateFactory(families=["m5"], disk_size=250, excluded_sizes=["metal-24xl"])
    browser, path = as_user(member), reverse("policies:template", args=[template.pk])
    sent = fields_of(browser.get(path)) | {"families": ["m5", "c5"], "capacity_type": "hybrid"}

    answer = browser.post(path, sent)

    template.refresh_from_db()
    assert answer.status_code == 302
    assert (template.families, template.capacity_type, template.version) == (["m5", "c5"], "hybrid", 2)
    assert (template.disk_size, template.excluded_sizes) == (250, ["metal-24xl"])


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"families": []}, "families", "Choose at least one family."),
        ({"families": ["m7g"]}, "__all__", "m7g is arm64; the template is x86_64."),
        ({"name": ""}, "name", "This field is required."),
        ({"name": "Taken"}, "__all__", "A template named Taken exists already."),
        ({"hybrid_spot_percentage": "101"}, "hybrid_spot_percentage", "less than or equal to 100"),
    ],
)
def test_given_a_template_that_cannot_be_when_created_then_the_form_says_why(
    member, as_user, catalogue, in_acme, changes, field, message
):
    TemplateFactory(name="Taken", families=["m5"])
    browser, path = as_user(member), reverse("policies:new-template")
    sent = fields_of(browser.get(path)) | {"name": "New", "families": ["m5"]} | changes

    page = browser.post(path, sent)

    assert page.status_code == 400
    assert message in str(page.context["form"].errors[field])
    assert NodeTemplate.objects.count() == 1


def test_given_templates_when_created_cloned_starred_and_deleted_then_the_list_shows_it(
    member, as_user, catalogue, in_acme
):
    system = ensure_defaults(organization_id=in_acme.pk)
    browser, path = as_user(member), reverse("policies:new-template")
    created = browser.post(path, fields_of(browser.get(path)) | {"name": "New", "families": ["m5"]})
    new = NodeTemplate.objects.get(name="New")

    browser.post(reverse("policies:clone-template", args=[system.pk]))
    browser.post(reverse("policies:default-template", args=[new.pk]))
    refused = browser.post(
        reverse("policies:delete-template", args=[new.pk]), headers={"referer": f"/templates/{new.pk}"}
    )
    copy = NodeTemplate.objects.get(name=f"{system.name} (copy)")
    browser.post(reverse("policies:delete-template", args=[copy.pk]))

    assert created["Location"] == reverse("policies:template", args=[new.pk])
    assert refused.status_code == 303
    listed = browser.get(reverse("policies:templates"), {"q": "m5"}).context["page"].rows
    assert {row.name: row.is_default for row in listed if not row.is_system} == {"New": True}
    assert browser.get(reverse("policies:template", args=[copy.pk])).status_code == 404


def test_given_a_system_template_when_opened_then_it_is_read_only_and_can_be_cloned(
    member, as_user, catalogue, in_acme
):
    system = ensure_defaults(organization_id=in_acme.pk)

    page = as_user(member).get(reverse("policies:template", args=[system.pk]))

    assert "Save template" not in page.text
    assert reverse("policies:clone-template", args=[system.pk]) in page.text
