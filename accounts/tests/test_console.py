import pytest
from django.urls import reverse

from accounts import platform


@pytest.fixture
def staff(client, super_admin):
    client.force_login(super_admin)
    return client


def test_given_staff_when_they_type_the_new_position_then_the_switch_is_thrown(staff):
    staff.post(reverse("accounts:safe-mode"), {"value": "freeze", "typed": "freeze"})

    assert platform.get_safe_mode() == "freeze"
    assert "Frozen" in staff.get(reverse("accounts:console")).content.decode()


@pytest.mark.parametrize("form", [{"value": "freeze", "typed": "on"}, {"value": "loud", "typed": "loud"}, {}])
def test_given_a_wrong_word_when_sent_then_the_switch_stays(staff, form):
    assert staff.post(reverse("accounts:safe-mode"), form).status_code == 400

    assert platform.get_safe_mode() == "off"


def test_given_an_owner_when_the_console_is_opened_then_it_does_not_exist(client, alice, acme):
    client.force_login(alice)

    assert client.get(reverse("accounts:console")).status_code == 404
    assert client.post(reverse("accounts:safe-mode"), {"value": "on", "typed": "on"}).status_code == 404
    assert platform.get_safe_mode() == "off"
