import pytest
from django.urls import reverse

from accounts.models import Account, Membership, Organization, User

PASSWORD = "Correct-horse-9"


def test_given_a_stranger_when_they_sign_up_then_they_are_in_and_own_an_organization(db, client):
    answer = client.post(
        reverse("accounts:signup"),
        {"organization_name": "Globex", "email": "Hank@Globex.test", "password": PASSWORD},
    )

    assert answer.status_code == 302
    membership = Membership.objects.get(user__email="hank@globex.test")
    assert (membership.organization.name, membership.role) == ("Globex", "owner")
    assert client.get(reverse("accounts:gateway"))["Location"] == "/onboarding"


def test_given_a_weak_password_when_signing_up_then_the_field_says_why_and_nothing_is_written(db, client):
    answer = client.post(
        reverse("accounts:signup"),
        {"organization_name": "Globex", "email": "hank@globex.test", "password": "password"},
    )

    assert answer.status_code == 400
    assert answer.context["form"].errors["password"]
    assert not User.objects.exists()
    assert not Organization.objects.exists()


def test_given_a_wrong_password_when_signing_in_then_the_form_says_so_and_nobody_is_in(alice, client):
    answer = client.post(reverse("accounts:login"), {"email": alice.email, "password": "wrong"})

    assert answer.status_code == 400
    assert "is wrong" in answer.context["form"].non_field_errors()[0]
    assert "_auth_user_id" not in client.session


@pytest.mark.parametrize(
    ("wanted", "reached"), [("/clusters", "/clusters"), ("https://evil.test/", "/"), ("//evil.test", "/")]
)
def test_given_an_address_to_go_on_to_when_signing_in_then_only_ours_is_followed(
    alice, client, wanted, reached
):
    url = f"{reverse('accounts:login')}?next={wanted}"

    answer = client.post(url, {"email": alice.email, "password": PASSWORD})

    assert answer["Location"] == reached


def test_given_a_session_when_signing_out_then_it_is_over(alice, as_user):
    browser = as_user(alice)

    browser.post(reverse("accounts:logout"))

    assert browser.get(reverse("accounts:profile")).status_code == 302


def test_given_another_organizations_account_when_chosen_then_there_is_none(in_acme, stranger, as_user):
    account = Account.objects.create(
        organization=in_acme, alias="Main", aws_account_id="123456789012", status="active"
    )

    answer = as_user(stranger).post(
        reverse("accounts:context"), {"account_id": account.pk}, headers={"HX-Request": "true"}
    )

    assert answer.status_code == 404
    assert Membership.objects.get(user=stranger).active_account is None


def test_given_an_account_when_chosen_then_it_is_in_view_and_the_way_back_is_ours(in_acme, viewer, as_user):
    account = Account.objects.create(
        organization=in_acme, alias="Main", aws_account_id="123456789012", status="active"
    )

    answer = as_user(viewer).post(
        reverse("accounts:context"), {"account_id": account.pk, "next": "https://evil.test/"}
    )

    assert answer["Location"] == reverse("policies:dashboard")
    assert Membership.objects.get(user=viewer).active_account == account


def test_given_a_new_password_when_set_then_the_session_goes_on(alice, as_user):
    browser = as_user(alice)

    answer = browser.post(
        reverse("accounts:password"), {"old_password": PASSWORD, "new_password": "Battery-staple-7"}
    )

    assert answer["Location"] == reverse("accounts:profile")
    assert browser.get(reverse("accounts:profile")).status_code == 200
    alice.refresh_from_db()
    assert alice.check_password("Battery-staple-7")


@pytest.mark.parametrize("name", ["profile", "organization", "team"])
def test_given_a_viewer_when_settings_are_opened_then_they_may_read(viewer, as_user, name):
    assert as_user(viewer).get(reverse(f"accounts:{name}")).status_code == 200


def test_given_nobody_when_the_start_is_opened_then_they_are_asked_to_sign_in(db, client):
    assert client.get("/")["Location"] == reverse("accounts:login")
