from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.models import AuditLog
from clusters.tests.factories import ClusterFactory, InstanceFactory
from hibernation.domain.schedule import matrix_error, projected_usd_per_month, timezone_error
from hibernation.models import HibernationSchedule

AWAKE = [1] * 168
OFFICE = [1 if 8 <= hour < 20 else 0 for _ in range(5) for hour in range(24)] + [0] * 48


@pytest.fixture
def cluster(in_acme):
    cluster = ClusterFactory(name="dev-1")
    InstanceFactory(cluster=cluster, price=Decimal("1.000000"))
    return cluster


@settings(deadline=None)
@given(st.integers(0, 2**168 - 1))
def test_given_168_zeros_and_ones_when_checked_then_the_week_is_fine(bits):
    assert matrix_error([bits >> hour & 1 for hour in range(168)]) is None


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([1] * 167, "must have 168 hours; it has 167."),
        ([1] * 169, "must have 168 hours; it has 169."),
        ([1] * 100 + [2] + [1] * 67, "must hold 0 or 1; hour 100 does not."),
        ([True] * 168, "must hold 0 or 1; hour 0 does not."),
    ],
)
def test_given_a_wrong_week_when_checked_then_the_fault_is_told(matrix, message):
    assert matrix_error(matrix) == message


def test_given_a_zone_when_checked_then_only_real_ones_pass():
    assert timezone_error("Europe/Paris") is None
    assert timezone_error("Mars/Olympus") == "Mars/Olympus is not a time zone, such as Europe/Paris."


def test_given_a_week_asleep_when_projected_then_the_whole_month_is_saved():
    assert projected_usd_per_month([0] * 168, Decimal(2)) == Decimal(1460)
    assert projected_usd_per_month(AWAKE, Decimal(2)) == 0


def test_given_no_schedule_when_read_then_it_never_sleeps_and_nothing_is_stored(api_as, viewer, cluster):
    body = api_as(viewer).get(f"/api/v1/hibernation/{cluster.pk}").json()

    assert body["schedule"]["schedule_matrix"] == AWAKE
    assert (body["schedule"]["is_active"], body["projected_savings"]) == (False, "0.00")
    assert not HibernationSchedule.objects.exists()


def test_given_office_hours_when_saved_then_they_are_kept_forecast_and_not_switched_on(
    api_as, member, cluster
):
    speak = api_as(member)

    answer = speak.post(
        "/api/v1/hibernation/schedule",
        {"cluster_id": str(cluster.pk), "schedule_matrix": OFFICE, "timezone": "Europe/Paris"},
        format="json",
    )

    body = answer.json()
    assert (answer.status_code, body["success"], body["projected_savings"]) == (200, True, "469.29")
    assert body["schedule"]["schedule_matrix"] == OFFICE
    schedule = HibernationSchedule.objects.get()
    assert (schedule.timezone, schedule.is_active) == ("Europe/Paris", False)
    event = AuditLog.objects.get()
    assert (event.event, event.before["timezone"], event.after["timezone"]) == (
        "hibernation.schedule.updated", "UTC", "Europe/Paris",
    )  # fmt: skip
    diff = speak.get(f"/api/v1/audit/{event.pk}/diff").json()["diff"]
    assert diff[0] == {
        "field": "schedule_matrix[Fri 00:00]", "old_value": 1, "new_value": 0, "change_type": "modified",
    }  # fmt: skip
    assert len(diff) == OFFICE.count(0) + 1


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({"schedule_matrix": [1] * 167}, {"schedule_matrix": ["must have 168 hours; it has 167."]}),
        ({"schedule_matrix": [3] * 168}, {"schedule_matrix": ["must hold 0 or 1; hour 0 does not."]}),
        ({"timezone": "Nowhere"}, {"timezone": ["Nowhere is not a time zone, such as Europe/Paris."]}),
        ({"prewarm_minutes": 121}, {"prewarm_minutes": ["Ensure this value is less than or equal to 120."]}),
    ],
)
def test_given_a_wrong_part_when_saved_then_it_is_named_and_nothing_is_written(
    api_as, member, cluster, change, errors
):
    answer = api_as(member).patch(f"/api/v1/hibernation/{cluster.pk}", change, format="json")

    assert (answer.status_code, answer.json()["errors"]) == (400, errors)
    assert not HibernationSchedule.objects.exists()
    assert not AuditLog.objects.exists()


def test_given_a_schedule_when_its_parts_change_then_the_rest_stays(api_as, member, cluster):
    speak, named = api_as(member), {"cluster_id": str(cluster.pk)}
    speak.post("/api/v1/hibernation/schedule", named | {"schedule_matrix": OFFICE}, format="json")

    speak.patch("/api/v1/hibernation/tz", named | {"timezone": "Asia/Tokyo"}, format="json")
    speak.patch("/api/v1/hibernation/prewarm", named | {"enabled": True, "minutes": 45}, format="json")

    row = HibernationSchedule.objects.get()
    assert (row.schedule_matrix, row.timezone, row.prewarm_enabled, row.prewarm_minutes) == (
        OFFICE, "Asia/Tokyo", True, 45,
    )  # fmt: skip
    assert speak.get("/api/v1/hibernation").json()["schedules"][0]["cluster"] == "dev-1"
    assert speak.delete(f"/api/v1/hibernation/{cluster.pk}").json()["schedule"]["schedule_matrix"] == AWAKE


def test_given_the_same_schedule_when_saved_again_then_the_record_is_silent(api_as, member, cluster):
    speak, body = api_as(member), {"cluster_id": str(cluster.pk), "schedule_matrix": OFFICE}
    speak.post("/api/v1/hibernation/schedule", body, format="json")
    speak.post("/api/v1/hibernation/schedule", body, format="json")

    assert AuditLog.objects.count() == 1


def test_given_another_organizations_cluster_when_its_schedule_is_touched_then_it_is_not_found(
    api_as, stranger, cluster
):
    speak, named = api_as(stranger), {"cluster_id": str(cluster.pk)}

    answers = [
        speak.get(f"/api/v1/hibernation/{cluster.pk}"),
        speak.patch(f"/api/v1/hibernation/{cluster.pk}", {"timezone": "UTC"}, format="json"),
        speak.delete(f"/api/v1/hibernation/{cluster.pk}"),
        speak.post("/api/v1/hibernation/schedule", named | {"schedule_matrix": OFFICE}, format="json"),
        speak.patch("/api/v1/hibernation/tz", named | {"timezone": "UTC"}, format="json"),
        speak.patch("/api/v1/hibernation/prewarm", named | {"enabled": True}, format="json"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 6
    assert speak.get("/api/v1/hibernation").json()["schedules"] == []
