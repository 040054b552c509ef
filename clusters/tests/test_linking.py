from dataclasses import replace
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.domain.trust_policy import READ_ACTIONS
from accounts.models import Account
from audit.models import AuditLog
from clusters.aws import session as aws_session
from clusters.aws.errors import (
    AwsThrottled,
    AwsTimeout,
    AwsUnreachable,
    PlatformCredentialsRejected,
    RegionDisabled,
)
from clusters.domain.permissions import NEEDED, READ_PURPOSES
from clusters.models import DiscoveryRun
from clusters.services import linking
from clusters.services.linking import VerificationFailed
from simulator.fleets import CUSTOMER
from spotopt.core.errors import Conflict, Forbidden, NotFound, TooManyRequests
from spotopt.core.tenancy import tenant

ERROR_NOTE = {"last_error_code", "last_error_message", "updated_at"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Three attempts with their pauses are AWS's business, not this test's."""
    quick = {"connect_timeout": 1, "read_timeout": 1, "retries": {"total_max_attempts": 1}}
    for name in ("_STS", "_CALLS"):
        monkeypatch.setattr(aws_session, name, getattr(aws_session, name).merge(aws_session.Config(**quick)))


def row(account):
    return Account.unscoped.filter(pk=account.pk).values().get()


def verify(account, role_arn, actor):
    return linking.verify_account(account_id=account.pk, role_arn=role_arn, actor=actor)


def assert_nothing_half_written(account, before, *, code):
    """Only the note of what went wrong and one line of the record are new."""
    after = row(account)
    assert {key for key in after if after[key] != before[key]} <= ERROR_NOTE
    assert (after["status"], after["last_error_code"]) == ("pending", code)
    assert after["last_error_message"]
    assert not DiscoveryRun.unscoped.exists()
    events = AuditLog.unscoped.filter(account_id=account.pk)
    assert [(event.event, event.outcome) for event in events] == [
        ("accounts.account.verification_failed", "failed")
    ]


def test_given_our_stack_when_verified_then_the_account_is_claimed_and_its_scan_is_queued(
    aws, pending, owner, django_capture_on_commit_callbacks
):
    role_arn = aws.make_stack(pending.external_id)

    with django_capture_on_commit_callbacks() as effects:
        verified = verify(pending, role_arn, owner)

    pending.refresh_from_db()
    assert (pending.status, pending.role_arn, pending.last_error_code) == ("scanning", role_arn, "")
    assert (verified.run.status, verified.run.trigger) == ("queued", "initial")
    assert any("clusters.scan_account" in effect.args for effect in effects)
    assert verified.clusters_seen == 3
    assert verified.instances_seen >= 1
    granted = {grant["action"]: grant["granted"] for grant in pending.permissions}
    assert list(granted) == list(NEEDED)
    assert {action for action, is_granted in granted.items() if is_granted is None} == {
        "autoscaling:DetachInstances",
        "autoscaling:ResumeProcesses",
        "autoscaling:SuspendProcesses",
        "autoscaling:TerminateInstanceInAutoScalingGroup",
        "autoscaling:UpdateAutoScalingGroup",
        "ec2:CreateLaunchTemplateVersion",
        "ec2:DeleteLaunchTemplateVersions",
    }
    assert False not in granted.values()


def test_given_a_read_only_stack_when_verified_then_only_reading_is_asked_for(aws, pending, owner):
    Account.objects.filter(pk=pending.pk).update(permission_mode="read_only")
    role_arn = aws.make_stack(pending.external_id, mode="read_only")

    verified = verify(pending, role_arn, owner)

    assert {grant.purpose for grant in verified.permissions} == READ_PURPOSES
    assert all(grant.is_granted for grant in verified.permissions)


def test_given_our_template_then_it_allows_every_read_that_is_probed():
    reads = {action for action, purpose in NEEDED.items() if purpose in READ_PURPOSES}

    assert reads <= set(READ_ACTIONS)


def test_given_no_role_when_verified_then_both_causes_that_aws_hides_are_named(aws, pending, owner):
    before = row(pending)

    with pytest.raises(VerificationFailed) as refused:
        verify(pending, f"arn:aws:iam::{CUSTOMER}:role/Missing", owner)

    assert refused.value.code == "role_not_assumable"
    assert refused.value.extra["possible_codes"] == ["role_not_found", "external_id_mismatch"]
    assert "Missing does not exist" in refused.value.detail
    assert "external id" in refused.value.detail
    assert_nothing_half_written(pending, before, code="role_not_assumable")


def test_given_a_foreign_external_id_when_verified_then_the_role_cannot_be_assumed(aws, pending, owner):
    role_arn, before = aws.make_role(str(uuid4())), row(pending)

    with pytest.raises(VerificationFailed) as refused:
        verify(pending, role_arn, owner)

    assert refused.value.code == "role_not_assumable"
    assert_nothing_half_written(pending, before, code="role_not_assumable")


def test_given_the_external_id_of_another_link_of_ours_when_verified_then_the_mix_up_is_named(
    aws, in_acme, pending, owner
):
    former = Account.objects.create(
        organization=in_acme, alias="Former", aws_account_id=CUSTOMER, status="disconnected"
    )
    role_arn, before = aws.make_role(str(former.external_id)), row(pending)

    with pytest.raises(VerificationFailed) as refused:
        verify(pending, role_arn, owner)

    assert refused.value.code == "external_id_mismatch"
    assert_nothing_half_written(pending, before, code="external_id_mismatch")


def test_given_a_role_that_needs_no_external_id_when_verified_then_it_is_refused(aws, pending, owner):
    role_arn, before = aws.make_role("", trusts_everybody=True), row(pending)

    with pytest.raises(VerificationFailed) as refused:
        verify(pending, role_arn, owner)

    assert refused.value.code == "external_id_not_enforced"
    assert_nothing_half_written(pending, before, code="external_id_not_enforced")


@pytest.mark.parametrize(
    "action",
    [
        "ec2:DescribeInstances",
        "eks:ListClusters",
        "eks:DescribeNodegroup",
        "autoscaling:DescribeAutoScalingGroups",
        "ec2:DescribeSpotPriceHistory",
        "ec2:CreateFleet",
        "ec2:RunInstances",
        "iam:PassRole",
        "ec2:TerminateInstances",
    ],
)
def test_given_one_missing_permission_when_verified_then_exactly_that_one_is_named(
    aws, pending, owner, action
):
    role_arn, before = aws.make_role(pending.external_id, without=[action]), row(pending)
    if action == "ec2:TerminateInstances":
        assert any("eks:cluster-name" in machine.tags for machine in aws.alive())

    with pytest.raises(VerificationFailed) as refused:
        verify(pending, role_arn, owner)

    assert refused.value.code == f"access_denied:{action}"
    assert action in refused.value.detail
    denied = [grant["action"] for grant in refused.value.extra["permissions"] if grant["granted"] is False]
    assert action in denied
    assert_nothing_half_written(pending, before, code=f"access_denied:{action}")


@pytest.mark.parametrize(
    ("role_arn", "code"),
    [
        ("arn:aws:iam::999999999999:role/SpotOptimizerRole", "account_mismatch"),
        ("SpotOptimizerRole", "invalid_role_arn"),
        (f"arn:aws:iam::{CUSTOMER}:user/administrator", "invalid_role_arn"),
    ],
)
def test_given_an_arn_that_cannot_be_right_when_verified_then_aws_is_not_even_asked(
    aws, pending, owner, role_arn, code
):
    aws.server.faults.unreachable = True
    before = row(pending)

    with pytest.raises(VerificationFailed) as refused:
        verify(pending, role_arn, owner)

    assert refused.value.code == code
    assert_nothing_half_written(pending, before, code=code)


def test_given_an_account_that_another_organization_proved_when_verified_then_it_conflicts(
    aws, rival, pending, owner
):
    with tenant(rival.pk):
        Account.objects.create(organization=rival, alias="Theirs", aws_account_id=CUSTOMER, status="active")
    role_arn, before = aws.make_role(pending.external_id), row(pending)

    with pytest.raises(Conflict) as refused:
        verify(pending, role_arn, owner)

    assert refused.value.extra["code"] == "already_linked"
    assert_nothing_half_written(pending, before, code="already_linked")


def test_given_an_unproved_claim_elsewhere_when_verified_then_it_reserves_nothing(aws, rival, pending, owner):
    with tenant(rival.pk):
        Account.objects.create(organization=rival, alias="Squatter", aws_account_id=CUSTOMER)

    verified = verify(pending, aws.make_role(pending.external_id), owner)

    assert verified.account.status == "scanning"


def test_given_an_unreachable_aws_when_verified_then_the_account_stays_as_it_was(aws, pending, owner):
    role_arn, before = aws.make_role(pending.external_id), row(pending)
    aws.server.faults.unreachable = True

    with pytest.raises(AwsUnreachable) as refused:
        verify(pending, role_arn, owner)

    assert (refused.value.status, refused.value.code) == (502, "aws_unreachable")
    assert_nothing_half_written(pending, before, code="aws_unreachable")


def test_given_a_silent_aws_when_verified_then_it_times_out(aws, pending, owner):
    role_arn, before = aws.make_role(pending.external_id), row(pending)
    aws.server.faults.latency_ms = 1500

    with pytest.raises(AwsTimeout) as refused:
        verify(pending, role_arn, owner)

    assert (refused.value.status, refused.value.code) == (502, "aws_timeout")
    assert_nothing_half_written(pending, before, code="aws_timeout")


def test_given_a_throttling_aws_when_verified_then_it_says_to_come_back(aws, pending, owner):
    role_arn, before = aws.make_role(pending.external_id), row(pending)
    aws.server.faults.throttle_rate = 1.0

    with pytest.raises(AwsThrottled) as refused:
        verify(pending, role_arn, owner)

    assert (refused.value.status, refused.value.code) == (503, "throttled")
    assert_nothing_half_written(pending, before, code="throttled")


def test_given_a_disabled_home_region_when_verified_then_the_region_is_named(aws, pending, owner):
    Account.objects.filter(pk=pending.pk).update(primary_region="eu-south-1")
    role_arn, before = aws.make_role(pending.external_id), row(pending)

    with pytest.raises(RegionDisabled) as refused:
        verify(pending, role_arn, owner)

    assert refused.value.code == "region_disabled"
    assert "eu-south-1" in refused.value.detail
    assert_nothing_half_written(pending, before, code="region_disabled")


def test_given_no_credentials_of_our_own_when_verified_then_the_operator_is_to_blame(
    aws, pending, owner, monkeypatch
):
    role_arn, before = aws.make_role(pending.external_id), row(pending)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")

    with pytest.raises(PlatformCredentialsRejected):
        verify(pending, role_arn, owner)

    assert_nothing_half_written(pending, before, code="platform_credentials")


def test_given_a_verification_when_aws_is_asked_then_no_transaction_is_open(aws, pending, owner, monkeypatch):
    depths, ask = [], linking._proved

    def watched(*arguments):
        depths.append(len(connection.savepoint_ids))
        return ask(*arguments)

    monkeypatch.setattr(linking, "_proved", watched)
    outside = len(connection.savepoint_ids)

    verify(pending, aws.make_role(pending.external_id), owner)

    assert depths == [outside]


def test_given_a_verification_when_counted_then_the_queries_stay_few(aws, pending, owner):
    role_arn = aws.make_role(pending.external_id)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        verify(pending, role_arn, owner)

    assert len([query for query in queries if "SAVEPOINT" not in query["sql"]]) <= 16


def test_given_an_account_being_scanned_when_verified_again_then_its_scan_goes_on(aws, pending, owner):
    role_arn = aws.make_role(pending.external_id)
    first = verify(pending, role_arn, owner)

    second = verify(pending, role_arn, owner)

    assert second.run.pk == first.run.pk
    assert DiscoveryRun.objects.count() == 1


def test_given_a_linked_account_when_validated_then_only_its_permissions_change(aws, linked, owner):
    aws.client("iam").delete_role_policy(RoleName="SpotOptimizerRole", PolicyName="Spotopt")
    aws.allow("SpotOptimizerRole", {"Effect": "Allow", "Action": "*", "Resource": "*"})

    checked = linking.validate_account(account_id=linked.pk, actor=owner)

    linked.refresh_from_db()
    assert (linked.status, checked.run) == ("scanning", None)
    assert [grant["action"] for grant in linked.permissions] == list(NEEDED)


def test_given_ten_attempts_in_an_hour_when_verified_again_then_it_is_too_many(aws, pending, owner):
    for _ in range(10):
        with pytest.raises(VerificationFailed):
            verify(pending, "nonsense", owner)

    with pytest.raises(TooManyRequests):
        verify(pending, "nonsense", owner)


def test_given_a_viewer_or_a_stranger_when_verifying_then_they_are_refused(
    aws, pending, owner, rival, stranger
):
    with pytest.raises(Forbidden):
        verify(pending, "nonsense", replace(owner, role="viewer"))
    with tenant(rival.pk), pytest.raises(NotFound):
        verify(pending, "nonsense", replace(owner, organization_id=rival.pk))
