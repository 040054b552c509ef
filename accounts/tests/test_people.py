import pytest
from django.db import IntegrityError
from django.db.models import QuerySet
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import RefreshToken

from accounts import selectors, services
from accounts.models import Account, Membership, Organization, User
from accounts.permissions import actor_of
from audit.models import AuditChain, AuditLog
from spotopt.core.actor import Actor
from spotopt.core.errors import Conflict, Forbidden, InvalidInput, NotAuthenticated
from spotopt.core.tenancy import tenant

PASSWORD = "Correct-horse-9"


def _sign_up(**changes):
    given = {"email": "New@Corp.test", "password": PASSWORD, "organization_name": "New Corp"}
    return services.sign_up(**(given | changes))


def _counts():
    return [
        model.unscoped.count() for model in (User, Organization, Membership, Account, AuditLog, AuditChain)
    ]


def test_given_nobody_when_signing_up_then_everything_a_dashboard_needs_exists(db):
    made = _sign_up()

    assert (made.user.email, made.organization.slug) == ("new@corp.test", "new-corp")
    assert made.membership.role == Membership.Role.OWNER
    assert (made.account.status, made.account.aws_account_id) == ("pending", "")
    assert made.account.is_default
    event = AuditLog.unscoped.get()
    assert (event.event, event.organization_id) == ("accounts.user.signed_up", made.organization.pk)


@pytest.mark.parametrize("failing", [User, Organization, Membership, Account, AuditLog, AuditChain])
def test_given_an_insert_that_fails_when_signing_up_then_nothing_is_left(db, monkeypatch, failing):
    insert = QuerySet._insert

    def fail(rows, *args, **kwargs):
        if rows.model is failing:
            raise RuntimeError("disk full")
        return insert(rows, *args, **kwargs)

    monkeypatch.setattr(QuerySet, "_insert", fail)  # what both save and bulk_create end in

    with pytest.raises(RuntimeError, match="disk full"):
        _sign_up()

    assert _counts() == [0, 0, 0, 0, 0, 0]


def test_given_the_address_is_taken_when_signing_up_then_conflict_and_nothing_is_written(alice):
    before = _counts()

    with pytest.raises(Conflict):
        _sign_up(email="ALICE@acme.test")

    assert _counts() == before


def test_given_the_name_is_taken_when_signing_up_then_the_slug_gets_a_suffix(acme):
    made = _sign_up(organization_name="Acme")

    assert made.organization.name == "Acme"
    assert made.organization.slug.startswith("acme-")


@pytest.mark.parametrize(
    ("password", "complaints"),
    [
        ("short1A", 1),
        ("alllowercase", 2),
        ("12345678", 3),
        ("Password1", 1),
        ("New@corp.test1", 1),
    ],
)
def test_given_a_weak_password_when_signing_up_then_each_unmet_rule_is_named(db, password, complaints):
    with pytest.raises(InvalidInput) as refusal:
        _sign_up(password=password)

    assert len(refusal.value.extra["errors"]["password"]) == complaints
    assert User.objects.count() == 0


def test_given_the_right_password_when_signing_in_then_the_time_and_place_are_kept(alice, acme, origin):
    signed_in = services.sign_in(email=" Alice@ACME.test", password=PASSWORD, origin=origin)

    alice.refresh_from_db()
    assert signed_in.membership.organization_id == acme.pk
    assert alice.last_login_ip == "203.0.113.7"
    assert alice.last_login is not None
    event = AuditLog.unscoped.get()
    assert (event.event, event.outcome, event.ip_address) == (
        "accounts.user.signed_in",
        "success",
        "203.0.113.7",
    )


def test_given_wrong_credentials_when_signing_in_then_known_and_unknown_fail_alike(alice, acme, origin):
    with pytest.raises(NotAuthenticated) as known:
        services.sign_in(email=alice.email, password="Wrong-horse-9", origin=origin)
    with pytest.raises(NotAuthenticated) as unknown:
        services.sign_in(email="nobody@acme.test", password="Wrong-horse-9", origin=origin)

    assert known.value.detail == unknown.value.detail
    rows = AuditLog.unscoped.order_by("timestamp", "seq").values_list("event", "outcome", "organization_id")
    assert set(rows) == {
        ("accounts.user.sign_in_failed", "denied", acme.pk),
        ("accounts.user.sign_in_failed", "denied", None),
    }


@pytest.mark.parametrize("email", ["alice@acme.test", "nobody@acme.test"])
def test_given_any_address_when_signing_in_wrongly_then_exactly_one_password_is_hashed(
    alice, origin, monkeypatch, email
):
    hashed = []
    hasher = "django.contrib.auth.hashers.MD5PasswordHasher.encode"
    monkeypatch.setattr(hasher, lambda self, password, salt: hashed.append(password) or "md5$salt$hash")

    with pytest.raises(NotAuthenticated):
        services.sign_in(email=email, password="Wrong-horse-9", origin=origin)

    assert hashed == ["Wrong-horse-9"]


def test_given_a_suspended_organization_when_signing_in_then_forbidden(alice, acme, origin):
    Organization.objects.filter(pk=acme.pk).update(status="suspended")

    with pytest.raises(Forbidden):
        services.sign_in(email=alice.email, password=PASSWORD, origin=origin)

    assert AuditLog.unscoped.get().event == "accounts.user.sign_in_denied"
    alice.refresh_from_db()
    assert alice.last_login is None


def test_given_a_switched_off_person_when_signing_in_then_forbidden(alice, origin):
    User.objects.filter(pk=alice.pk).update(is_active=False)

    with pytest.raises(Forbidden):
        services.sign_in(email=alice.email, password=PASSWORD, origin=origin)


def test_given_staff_without_a_team_when_signing_in_then_it_is_a_platform_event(super_admin, origin):
    signed_in = services.sign_in(email=super_admin.email, password=PASSWORD, origin=origin)

    assert signed_in.membership is None
    event = AuditLog.unscoped.get()
    assert (event.organization_id, event.actor_type) == (None, "admin")


def _actor(user, organization, role="owner"):
    return Actor(kind="user", organization_id=organization.pk, label=user.email, id=str(user.pk), role=role)


def test_given_tokens_when_the_password_changes_then_they_are_worthless(in_acme, alice):
    refresh = RefreshToken.for_user(alice)

    services.change_password(
        actor=_actor(alice, in_acme), old_password=PASSWORD, new_password="Another-horse-8"
    )

    alice.refresh_from_db()
    assert alice.check_password("Another-horse-8")
    with pytest.raises(TokenError):
        RefreshToken(str(refresh))


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("Wrong-horse-9", "Another-horse-8", "old_password"),
        (PASSWORD, PASSWORD, "new_password"),
        (PASSWORD, "weak", "new_password"),
    ],
)
def test_given_a_bad_change_of_password_when_asked_then_refused_and_nothing_changes(
    in_acme, alice, old, new, field
):
    with pytest.raises(InvalidInput) as refusal:
        services.change_password(actor=_actor(alice, in_acme), old_password=old, new_password=new)

    assert list(refusal.value.extra["errors"]) == [field]
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD)
    assert AuditLog.objects.count() == 0


def test_given_a_name_when_the_profile_changes_then_the_record_keeps_both(in_acme, alice):
    services.update_profile(actor=_actor(alice, in_acme), name=" Alice ")

    event = AuditLog.objects.get()
    assert (event.before, event.after) == ({"name": ""}, {"name": "Alice"})


@pytest.mark.parametrize(
    ("statuses", "path", "furthest"),
    [
        (["pending"], "/onboarding", "pending"),
        (["scanning", "pending"], "/onboarding?step=scan", "scanning"),
        (["active", "scanning"], "/dashboard", "active"),
        (["error"], "/dashboard", "error"),
        (["disconnected"], "/onboarding", "pending"),
    ],
)
def test_given_the_accounts_when_entering_then_the_gateway_follows(acme, alice, statuses, path, furthest):
    with tenant(acme.pk):
        for number, status in enumerate(statuses):
            Account.objects.create(
                organization=acme, alias=status, status=status, aws_account_id=f"00000000000{number}"
            )

    gateway = selectors.gateway_of(alice, selectors.membership_of(alice))

    assert (gateway.redirect_path, gateway.account_status) == (path, furthest)


def test_given_a_skipped_wizard_when_entering_then_the_dashboard(in_acme, alice):
    services.skip_onboarding(actor=_actor(alice, in_acme))
    services.skip_onboarding(actor=_actor(alice, in_acme))

    alice.refresh_from_db()
    assert selectors.gateway_of(alice, selectors.membership_of(alice)).redirect_path == "/dashboard"
    assert AuditLog.objects.count() == 1


def test_given_a_viewer_when_entering_then_no_wizard(acme, viewer):
    assert selectors.gateway_of(viewer, selectors.membership_of(viewer)).redirect_path == "/dashboard"


def test_given_nobody_s_team_when_entering_then_staff_and_strangers_part(db, super_admin):
    loner = User.objects.create_user("loner@nowhere.test", PASSWORD)

    assert selectors.gateway_of(super_admin, None).redirect_path == "/admin/"
    assert selectors.gateway_of(loner, None).redirect_path == "/no-organization"


def test_given_a_request_without_a_team_when_asked_who_acts_then_forbidden(rf):
    with pytest.raises(Forbidden):
        actor_of(rf.get("/"))


def test_given_a_slug_taken_twice_when_signing_up_then_no_unique_error_escapes(acme):
    try:
        made = [_sign_up(email=f"n{i}@corp.test", organization_name="Acme") for i in range(3)]
    except IntegrityError:
        pytest.fail("a taken slug must not stop a sign-up")

    assert len({signed_up.organization.slug for signed_up in made}) == 3
