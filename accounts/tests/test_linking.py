from urllib.parse import parse_qs, urlsplit

import pytest

from accounts import services
from accounts.models import Account, Membership, Organization, OrganizationFlag
from accounts.services.people import PLACEHOLDER_ALIAS
from audit.models import AuditLog
from spotopt.core.actor import Actor
from spotopt.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from spotopt.core.tenancy import tenant

AWS_ID = "123412341234"
ROLE = f"arn:aws:iam::{AWS_ID}:role/SpotOptimizerRole"
PERMISSIONS = [{"action": "ec2:DescribeInstances", "granted": True, "needed_for": "discovery"}]


def _actor(user, organization, role="owner"):
    return Actor(kind="user", organization_id=organization.pk, label=user.email, id=str(user.pk), role=role)


@pytest.fixture
def owner(in_acme, alice):
    return _actor(alice, in_acme)


@pytest.fixture
def placeholder(in_acme, alice):
    return Account.objects.create(
        organization=in_acme, alias=PLACEHOLDER_ALIAS, created_by=alice, is_default=True
    )


def _link(actor, **changes):
    given = {
        "aws_account_id": AWS_ID,
        "alias": "Main",
        "region": "eu-west-1",
        "permission_mode": "full_access",
    }
    return services.start_link(actor=actor, **(given | changes))


def _verified(actor, **changes):
    account = _link(actor, **changes).account
    return services.mark_verified(
        account_id=account.pk,
        role_arn=ROLE.replace(AWS_ID, account.aws_account_id),
        permissions=PERMISSIONS,
        actor=actor,
    )


def test_given_the_placeholder_when_linking_then_it_is_filled_and_later_links_insert(owner, placeholder):
    first = _link(owner)
    second = _link(owner, aws_account_id="999900001111")

    assert first.account.pk == placeholder.pk
    assert first.external_id == str(placeholder.external_id)
    assert second.account.pk != placeholder.pk
    assert second.external_id != first.external_id
    assert Account.objects.count() == 2


def test_given_a_pending_link_when_started_again_then_the_external_id_stays(owner, placeholder):
    first = _link(owner)

    again = _link(owner, alias="Renamed", permission_mode="read_only")

    assert (again.account.pk, again.external_id) == (first.account.pk, first.external_id)
    assert (again.account.alias, again.account.permission_mode) == ("Renamed", "read_only")
    assert Account.objects.count() == 1


def test_given_a_link_when_started_then_its_template_is_served_exactly_as_announced(
    owner, placeholder, client, settings
):
    started = _link(owner)
    url = urlsplit(started.template_url)

    answer = client.get(f"{url.path}?{url.query}")
    replaced = client.get(f"{url.path}?sha256=0000")

    assert started.template_url.startswith(f"{settings.SITE_URL}/connect/template/full_access.json?")
    assert parse_qs(url.query) == {"v": [started.template_version], "sha256": [started.template_sha256]}
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer["ETag"] == f'"{started.template_sha256}"'
    assert settings.PLATFORM_AWS_ACCOUNT_ID in answer.content.decode()
    assert (replaced.status_code, replaced["Content-Type"]) == (410, "application/problem+json")
    assert client.get("/connect/template/root.json").status_code == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"aws_account_id": "12341234123"}, "aws_account_id"),
        ({"aws_account_id": "١٢٣٤١٢٣٤١٢٣٤"}, "aws_account_id"),
        ({"aws_account_id": f"{AWS_ID}\n"}, "aws_account_id"),
        ({"region": "mars-north-1"}, "region"),
        ({"permission_mode": "administrator"}, "permission_mode"),
    ],
)
def test_given_a_bad_link_when_started_then_refused_and_nothing_is_written(owner, placeholder, change, field):
    with pytest.raises(InvalidInput) as refusal:
        _link(owner, **change)

    assert list(refusal.value.extra["errors"]) == [field]
    placeholder.refresh_from_db()
    assert placeholder.aws_account_id == ""
    assert AuditLog.objects.count() == 0


def test_given_a_viewer_when_linking_then_forbidden(in_acme, placeholder, viewer):
    with pytest.raises(Forbidden):
        _link(_actor(viewer, in_acme, "viewer"))


def test_given_twenty_links_in_an_hour_when_linking_again_then_too_many(owner, placeholder):
    for _ in range(20):
        _link(owner)

    with pytest.raises(Exception, match="Too many attempts"):
        _link(owner)


def test_given_an_account_in_use_when_linked_again_then_conflict(owner, placeholder):
    _verified(owner)

    with pytest.raises(Conflict, match="already linked"):
        _link(owner)


@pytest.mark.parametrize("by", ["plan", "switch"])
def test_given_no_second_account_in_the_plan_when_linking_one_then_forbidden(owner, in_acme, placeholder, by):
    _verified(owner)
    if by == "plan":
        Organization.objects.filter(pk=in_acme.pk).update(plan="free")
    else:
        OrganizationFlag.objects.create(organization=in_acme, key="enable_multi_account", is_enabled=False)

    with pytest.raises(Forbidden):
        _link(owner, aws_account_id="999900001111")

    assert Account.objects.count() == 1


def test_given_a_role_that_was_assumed_when_marked_then_the_first_scan_may_begin(owner, placeholder):
    account = _verified(owner)

    account.refresh_from_db()
    assert (account.status, account.role_arn, account.permissions) == ("scanning", ROLE, PERMISSIONS)
    assert account.last_verified_at is not None
    assert AuditLog.objects.filter(event="accounts.account.scanning").count() == 1


def test_given_a_role_of_another_account_when_marked_then_refused(owner, placeholder):
    account = _link(owner).account

    with pytest.raises(InvalidInput, match="does not belong"):
        services.mark_verified(
            account_id=account.pk,
            role_arn="arn:aws:iam::999900001111:role/SpotOptimizerRole",
            permissions=PERMISSIONS,
            actor=owner,
        )

    account.refresh_from_db()
    assert (account.status, account.role_arn) == ("pending", "")


def test_given_a_claim_proved_elsewhere_when_marked_then_conflict_and_no_half_written_row(
    owner, placeholder, rival, stranger
):
    theirs = _link(owner).account
    with tenant(rival.pk):
        _verified(_actor(stranger, rival))

    with pytest.raises(Conflict, match="already linked to an organization"):
        services.mark_verified(account_id=theirs.pk, role_arn=ROLE, permissions=PERMISSIONS, actor=owner)

    theirs.refresh_from_db()
    assert (theirs.status, theirs.role_arn, theirs.permissions) == ("pending", "", [])
    assert theirs.last_verified_at is None


def test_given_a_good_scan_when_marked_then_active_and_onboarding_is_done(owner, placeholder, alice):
    account = _verified(owner)

    for _ in range(2):
        services.mark_scanned(account_id=account.pk, actor=owner)

    account.refresh_from_db()
    alice.refresh_from_db()
    assert account.status == "active"
    assert account.last_scan_at is not None
    assert alice.onboarding_completed_at is not None
    assert AuditLog.objects.filter(event="accounts.account.active").count() == 1


def _fail(account, actor, *, is_auth_failure):
    return services.mark_failed(
        account_id=account.pk, code="x", message="m", actor=actor, is_auth_failure=is_auth_failure
    ).status


def test_given_an_active_account_when_it_fails_then_only_three_refusals_in_a_row_are_an_error(
    owner, placeholder
):
    account = _verified(owner)
    services.mark_scanned(account_id=account.pk, actor=owner)

    other = [_fail(account, owner, is_auth_failure=False) for _ in range(4)]
    two = [_fail(account, owner, is_auth_failure=True) for _ in range(2)]
    services.mark_scanned(account_id=account.pk, actor=owner)
    three = [_fail(account, owner, is_auth_failure=True) for _ in range(3)]

    assert other + two == ["active"] * 6
    assert three == ["active", "active", "error"]
    assert services.mark_scanned(account_id=account.pk, actor=owner).status == "active"


def test_given_a_first_scan_when_it_fails_then_error(owner, placeholder):
    assert _fail(_verified(owner), owner, is_auth_failure=False) == "error"


def test_given_a_pending_account_when_it_fails_then_it_claims_nothing(owner, placeholder):
    account = _link(owner).account

    statuses = [_fail(account, owner, is_auth_failure=True) for _ in range(5)]

    account.refresh_from_db()
    assert statuses == ["pending"] * 5
    assert (account.last_error_code, account.last_error_message) == ("x", "m")


def test_given_a_pending_account_when_marked_scanned_then_conflict(owner, placeholder):
    with pytest.raises(Conflict):
        services.mark_scanned(account_id=placeholder.pk, actor=owner)


def test_given_an_account_when_renamed_then_the_record_keeps_both_names(owner, placeholder):
    services.rename_account(actor=owner, account_id=placeholder.pk, alias=" Production ")

    event = AuditLog.objects.get()
    assert (event.before, event.after) == ({"alias": PLACEHOLDER_ALIAS}, {"alias": "Production"})


def test_given_two_accounts_when_one_is_disconnected_then_the_other_takes_over(owner, placeholder, alice):
    first, second = _verified(owner), _verified(owner, aws_account_id="999900001111", alias="Second")
    services.switch_context(actor=owner, account_id=first.pk)

    left = services.disconnect(actor=owner, account_id=first.pk, confirmation="Main")

    assert (left.clusters, left.instances, left.agents) == (0, 0, 0)
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, first.is_default, second.is_default) == ("disconnected", False, True)
    assert first.disconnected_at is not None
    assert Membership.objects.get(user=alice).active_account is None


def test_given_a_disconnected_account_when_linked_again_then_it_returns_with_a_new_external_id(
    owner, placeholder
):
    account = _verified(owner)
    old = str(account.external_id)
    services.disconnect(actor=owner, account_id=account.pk, confirmation="Main")

    again = _link(owner)

    assert again.account.pk == account.pk
    assert again.external_id != old
    account.refresh_from_db()
    assert (account.status, account.role_arn, account.disconnected_at) == ("pending", "", None)


def test_given_no_right_or_no_confirmation_when_disconnecting_then_refused(
    owner, placeholder, alice, in_acme
):
    account = _verified(owner)

    with pytest.raises(Forbidden):
        services.disconnect(
            actor=_actor(alice, in_acme, "member"), account_id=account.pk, confirmation="Main"
        )
    with pytest.raises(InvalidInput):
        services.disconnect(actor=owner, account_id=account.pk, confirmation="main")

    account.refresh_from_db()
    assert account.status == "scanning"


def test_given_the_placeholder_or_a_former_account_when_disconnecting_then_conflict(owner, placeholder):
    with pytest.raises(Conflict):
        services.disconnect(actor=owner, account_id=placeholder.pk, confirmation=PLACEHOLDER_ALIAS)
    account = _verified(owner)
    services.disconnect(actor=owner, account_id=account.pk, confirmation="Main")

    with pytest.raises(Conflict):
        services.disconnect(actor=owner, account_id=account.pk, confirmation="Main")
    with pytest.raises(NotFound):
        services.switch_context(actor=owner, account_id=account.pk)


def test_given_another_organization_s_account_when_touched_then_it_is_not_found(
    owner, placeholder, rival, stranger
):
    with tenant(rival.pk):
        theirs = _verified(_actor(stranger, rival))

    with pytest.raises(NotFound):
        services.rename_account(actor=owner, account_id=theirs.pk, alias="Mine")
    with pytest.raises(NotFound):
        services.disconnect(actor=owner, account_id=theirs.pk, confirmation="Main")
    with pytest.raises(NotFound):
        services.switch_context(actor=owner, account_id=theirs.pk)
