import pytest
from django.db import DatabaseError

from accounts import platform
from accounts.models import SystemSetting
from audit.models import AuditLog
from spotopt.core.actor import Actor
from spotopt.core.errors import Forbidden, InvalidInput

STAFF = Actor(kind="admin", organization_id=None, label="root@spotopt.test")
PATH = "/api/v1/admin/config"


def test_given_nobody_ever_set_it_when_read_then_safe_mode_is_off(db):
    assert platform.get_safe_mode() == "off"


@pytest.mark.parametrize("value", ["on", "freeze", "off"])
def test_given_a_position_when_set_then_it_is_read_back(db, value):
    assert platform.set_safe_mode(actor=STAFF, value=value) == value
    assert platform.get_safe_mode() == value


@pytest.mark.parametrize("nonsense", [True, "maybe", 1, {}])
def test_z07_given_nonsense_in_the_table_when_read_then_it_fails_safe(db, nonsense):
    SystemSetting.objects.create(key="safe_mode", value=nonsense)

    assert platform.get_safe_mode() == "on"


def test_z07_given_a_table_that_cannot_be_read_when_read_then_it_fails_safe(monkeypatch):
    def broken(**_):
        raise DatabaseError("no answer")

    monkeypatch.setattr(SystemSetting.objects, "filter", broken)

    assert platform.get_safe_mode() == "on"


def test_given_staff_when_they_throw_the_switch_then_the_platforms_record_says_so_once(api_as, super_admin):
    speak = api_as(super_admin)

    first = speak.patch(PATH, {"safe_mode": "freeze"}, format="json")
    second = speak.patch(PATH, {"safe_mode": "freeze"}, format="json")

    assert (first.json(), second.json(), speak.get(PATH).json()) == ({"safe_mode": "freeze"},) * 3
    event = AuditLog.unscoped.get()
    assert (event.organization_id, event.actor_type, event.actor_label) == (
        None,
        "admin",
        "root@spotopt.test",
    )
    assert (event.before, event.after) == ({"safe_mode": "off"}, {"safe_mode": "freeze"})


def test_given_an_unknown_position_when_set_then_it_is_refused_and_nothing_changes(api_as, super_admin):
    answer = api_as(super_admin).patch(PATH, {"safe_mode": "maybe"}, format="json")

    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["safe_mode"])
    assert not SystemSetting.objects.exists()
    with pytest.raises(InvalidInput):
        platform.set_safe_mode(actor=STAFF, value="maybe")


def test_given_an_owner_when_they_throw_the_switch_then_they_may_not(alice, acme):
    owner = Actor(kind="user", organization_id=acme.pk, label="alice", id=str(alice.pk), role="owner")

    with pytest.raises(Forbidden):
        platform.set_safe_mode(actor=owner, value="on")

    assert not SystemSetting.objects.exists()
