from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from audit.models import AuditLog
from clusters.models import InstanceType, Price
from policies.models import NodeTemplate
from policies.services.templates import SYSTEM_TEMPLATES, ensure_defaults
from policies.tests.factories import PolicyFactory, TemplateFactory
from spotopt.core.clock import utcnow
from spotopt.core.tenancy import tenant

TYPES = (
    ("m5.large", "x86_64", False, 0),
    ("m5.xlarge", "x86_64", False, 0),
    ("c5.large", "x86_64", False, 0),
    ("t3.large", "x86_64", True, 0),
    ("m6g.large", "arm64", False, 0),
    ("g4dn.xlarge", "x86_64", False, 1),
)


@pytest.fixture
def catalogue(db):
    for name, arch, is_burstable, gpus in TYPES:
        family, size = name.split(".")
        InstanceType.objects.create(
            name=name,
            family=family,
            size=size,
            category=family[0],
            generation=5,
            arch=arch,
            vcpu=2,
            memory_mib=8192,
            gpu_count=gpus,
            is_burstable=is_burstable,
            max_pods=29,
            cpu_allocatable_millis=1930,
            memory_allocatable_mib=7000,
        )


@pytest.fixture
def mine(in_acme, catalogue):
    return TemplateFactory(name="Mine", is_default=True)


def outcome(answer):
    return answer.status_code, answer.json().get("code")


def test_given_no_templates_when_defaults_are_ensured_twice_then_five_exist_once_and_the_first_is_default(
    in_acme,
):
    first = ensure_defaults(organization_id=in_acme.pk)
    second = ensure_defaults(organization_id=in_acme.pk)

    assert first == second
    assert first.name == "General purpose, balanced"
    assert first.families == [
        "m5", "m5a", "m6i", "m6a", "m7i", "m7a",
        "c5", "c5a", "c6i", "c6a", "c7i", "c7a",
        "r5", "r5a", "r6i", "r6a", "r7i", "r7a",
    ]  # fmt: skip
    assert set(NodeTemplate.objects.values_list("name", "is_system", "is_default")) == {
        (draft.name, True, draft == SYSTEM_TEMPLATES[0]) for draft in SYSTEM_TEMPLATES
    }


def test_given_a_default_of_ones_own_when_defaults_are_ensured_then_it_stays_the_default(mine, in_acme):
    assert ensure_defaults(organization_id=in_acme.pk) == mine


def test_given_a_draft_when_created_then_the_first_one_is_default_and_the_record_says_so(
    api_as, member, catalogue
):
    answer = api_as(member).post(
        "/api/v1/templates",
        {"name": "Web", "families": ["m5", "c5"], "strategy": "HYBRID", "selection": "cheapest"},
        format="json",
    )

    body = answer.json()
    assert answer.status_code == 201
    assert (body["strategy"], body["selection"], body["architecture"]) == ("HYBRID", "cheapest", "x86_64")
    assert (body["is_default"], body["version"], body["disk_size"], body["clusters"]) == (True, 1, 100, [])
    assert AuditLog.unscoped.get().sentence == "Created template Web"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "mine"}, "A template named mine exists already."),
        ({"families": ["x9"]}, "x9 is not an instance family that Spotopt knows."),
        ({"families": ["m6g"]}, "m6g is arm64; the template is x86_64."),
        ({"excluded_sizes": ["large", "xlarge"]}, "The excluded sizes leave no instance type to launch."),
        ({"disk_type": "io1"}, "io1 needs a number of IOPS."),
        ({"disk_type": "io1", "iops": 5001}, "io1 gives at most 50 IOPS per GB: 5,000 here."),
        ({"disk_type": "gp2", "iops": 500}, "gp2 takes no number of IOPS: it follows from the size."),
        ({"disk_type": "gp2", "throughput_mibps": 500}, "Only gp3 takes a throughput."),
        ({"iops": 16_001}, "gp3 gives at most 16,000 IOPS."),
    ],
)
def test_given_a_draft_with_an_error_when_created_then_it_is_told_and_nothing_is_written(
    api_as, member, mine, change, problem
):
    answer = api_as(member).post(
        "/api/v1/templates", {"name": "Web", "families": ["m5"]} | change, format="json"
    )

    assert answer.status_code == (409 if "name" in change else 400)
    assert answer.json()["detail"] == problem
    assert NodeTemplate.objects.get() == mine
    assert not AuditLog.unscoped.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"disk_size": 9},
        {"disk_size": 16_001},
        {"families": []},
        {"name": ""},
        {"hybrid_spot_percentage": 101},
    ],
)
def test_given_a_draft_out_of_range_when_created_then_its_field_is_named(api_as, member, catalogue, change):
    answer = api_as(member).post(
        "/api/v1/templates", {"name": "Web", "families": ["m5"]} | change, format="json"
    )

    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == list(change)


def test_given_a_viewers_draft_when_examined_then_issues_and_prices_are_told_and_nothing_is_written(
    api_as, viewer, catalogue
):
    for name, usd in (("m5.large", "0.096"), ("m5.xlarge", "0.192"), ("c5.large", "0.085")):
        Price.objects.create(
            region="us-east-1",
            instance_type=name,
            capacity_type="on_demand",
            usd_per_hour=Decimal(usd),
            observed_at=utcnow(),
            source="bundled",
        )

    answer = api_as(viewer).post(
        "/api/v1/templates/validate",
        {"families": ["m5", "t3", "g4dn"], "excluded_sizes": ["nano"], "region": "us-east-1"},
        format="json",
    )

    gpu = "GPU families (g4dn) beside others: only pods that ask get a GPU."
    assert answer.json() == {
        "valid": True,
        "warnings": [gpu],
        "issues": [
            {"severity": "WARNING", "family": "", "message": gpu},
            {
                "severity": "INFO",
                "family": "",
                "message": "Burstable families (t3): CPU is throttled without credits.",
            },
        ],
        "estimated_cost_range": {
            "min_hourly": "0.096000",
            "max_hourly": "0.192000",
            "min_monthly": "70.08",
            "max_monthly": "140.16",
        },
    }
    assert not NodeTemplate.unscoped.exists()


def test_given_no_prices_when_examined_then_the_range_is_unknown(api_as, viewer, catalogue):
    answer = api_as(viewer).post("/api/v1/templates/validate", {"families": ["m5"]}, format="json")

    assert set(answer.json()["estimated_cost_range"].values()) == {None}


def test_given_a_template_when_changed_then_its_version_rises_and_the_record_holds_both(api_as, member, mine):
    answer = api_as(member).patch(
        f"/api/v1/templates/{mine.pk}", {"disk_size": 200, "version": 1}, format="json"
    )

    assert (answer.status_code, answer.json()["version"], answer.json()["disk_size"]) == (200, 2, 200)
    event = AuditLog.objects.get()
    assert (event.event, event.before["disk_size"], event.after["disk_size"]) == (
        "policies.template.updated", 100, 200,
    )  # fmt: skip


def test_given_a_template_saved_meanwhile_when_changed_then_the_second_editor_is_told(api_as, member, mine):
    speak = api_as(member)
    speak.patch(f"/api/v1/templates/{mine.pk}", {"disk_size": 200, "version": 1}, format="json")

    answer = speak.patch(f"/api/v1/templates/{mine.pk}", {"disk_size": 300, "version": 1}, format="json")

    assert outcome(answer) == (409, "stale")
    assert NodeTemplate.objects.get().disk_size == 200


def test_given_a_system_template_when_changed_or_deleted_then_only_a_clone_is_offered(
    api_as, member, in_acme, catalogue
):
    system = TemplateFactory(is_system=True, name="Compute")
    speak = api_as(member)

    changed = speak.patch(f"/api/v1/templates/{system.pk}", {"disk_size": 200}, format="json")
    deleted = speak.delete(f"/api/v1/templates/{system.pk}")
    first = speak.post(f"/api/v1/templates/{system.pk}/clone", {}, format="json")
    second = speak.post(f"/api/v1/templates/{system.pk}/clone", {}, format="json")
    named = speak.post(f"/api/v1/templates/{system.pk}/clone", {"name": "compute"}, format="json")

    assert (outcome(changed), outcome(deleted)) == ((409, "system_template"), (409, "system_template"))
    assert (first.status_code, first.json()["name"], first.json()["is_system"]) == (
        201,
        "Compute (copy)",
        False,
    )
    assert second.json()["name"] == "Compute (copy) 2"
    assert outcome(named) == (409, "duplicate_name")


def test_given_two_templates_when_the_star_moves_then_exactly_one_has_it(api_as, member, mine):
    other = TemplateFactory(name="Other")
    speak = api_as(member)

    moved = speak.patch(f"/api/v1/templates/{other.pk}/default")
    again = speak.patch(f"/api/v1/templates/{other.pk}/default")

    assert moved.json() == {"success": True, "previous_default": str(mine.pk), "new_default": str(other.pk)}
    assert again.json() == {"success": True, "previous_default": str(other.pk), "new_default": str(other.pk)}
    assert NodeTemplate.objects.get(is_default=True) == other
    assert AuditLog.objects.count() == 1


def test_given_a_template_in_use_when_deleted_then_its_clusters_are_named_and_it_stays(api_as, member, mine):
    used = TemplateFactory()
    policy = PolicyFactory(template=used, cluster__name="prod-1")

    answer = api_as(member).delete(f"/api/v1/templates/{used.pk}")

    assert outcome(answer) == (409, "in_use")
    assert answer.json()["clusters"] == [policy.cluster.name]
    assert NodeTemplate.objects.get(pk=used.pk).deleted_at is None


def test_given_the_default_when_deleted_then_another_must_be_chosen_first(api_as, member, mine):
    assert outcome(api_as(member).delete(f"/api/v1/templates/{mine.pk}")) == (409, "is_default")


def test_given_an_idle_template_when_deleted_then_it_is_hidden_and_its_name_is_free(api_as, member, mine):
    idle = TemplateFactory(name="Idle")
    speak = api_as(member)

    answer = speak.delete(f"/api/v1/templates/{idle.pk}")

    assert answer.json() == {"success": True, "message": "Idle was deleted."}
    assert NodeTemplate.objects.get(pk=idle.pk).deleted_at is not None
    assert speak.get(f"/api/v1/templates/{idle.pk}").status_code == 404
    assert speak.patch(f"/api/v1/templates/{idle.pk}/default").status_code == 404
    assert (
        speak.post("/api/v1/templates", {"name": "idle", "families": ["m5"]}, format="json").status_code
        == 201
    )


def test_given_templates_when_listed_then_the_envelope_is_documented_and_the_queries_do_not_grow(
    api_as, viewer, mine, django_assert_num_queries
):
    PolicyFactory(template=mine, cluster__name="prod-1")
    speak = api_as(viewer)
    with django_assert_num_queries(5):
        body = speak.get("/api/v1/templates").json()
    assert (list(body), body["total"], body["templates"][0]["clusters"]) == (
        ["templates", "total", "page", "page_size"], 1, ["prod-1"],
    )  # fmt: skip

    for _ in range(4):
        PolicyFactory()

    with django_assert_num_queries(5):
        assert speak.get("/api/v1/templates").json()["total"] == 5
    found = speak.get("/api/v1/templates", {"search": "min"}).json()["templates"]
    assert [UUID(row["id"]) for row in found] == [mine.pk]
    assert speak.get("/api/v1/templates", {"search": "\x00mine"}).json()["total"] == 1


def test_given_another_organizations_template_when_asked_for_then_it_is_not_found(
    api_as, stranger, mine, rival
):
    speak = api_as(stranger)

    assert speak.get("/api/v1/templates").json()["templates"] == []
    for method, path in (
        ("get", ""), ("patch", ""), ("delete", ""), ("patch", "/default"), ("post", "/clone"),
    ):  # fmt: skip
        answer = getattr(speak, method)(f"/api/v1/templates/{mine.pk}{path}", {}, format="json")
        assert answer.status_code == 404, (method, path)
    assert speak.get(f"/api/v1/templates/{uuid4()}").status_code == 404
    with tenant(rival.pk):
        assert not NodeTemplate.objects.exists()
