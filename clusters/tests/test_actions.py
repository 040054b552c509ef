from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
import time_machine
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from accounts import platform
from audit.models import AuditLog
from clusters.domain import actions as rules
from clusters.models import Action
from clusters.services import actions, handover
from clusters.tests.factories import ClusterFactory, InstanceFactory, NodeGroupFactory
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, Gone, GuardrailViolated, NotFound
from spotopt.core.tenancy import tenant


@pytest.fixture
def cluster(in_acme):
    row = ClusterFactory()
    group = NodeGroupFactory(cluster=row)
    InstanceFactory.create_batch(10, cluster=row, node_group=group)
    return row


def _request(cluster, *, node=None, kind="drain_node", key=None, **changes):
    node = node or cluster.instances.order_by("node_name").first()
    return actions.request_action(
        cluster=cluster,
        kind=kind,
        target=node.node_name,
        params={"node_name": node.node_name, "instance_id": node.instance_id},
        reason="Test",
        actor=Actor.system(cluster.organization_id),
        idempotency_key=key or str(uuid4()),
        **changes,
    )


def test_given_one_key_when_asked_twice_then_one_action_is_queued_and_one_event_recorded(cluster):
    first = _request(cluster, key="same")
    again = _request(cluster, key="same")

    assert again == first
    assert Action.objects.count() == 1
    assert [log.event for log in AuditLog.objects.all()] == ["clusters.action.requested"]


def test_given_the_key_of_another_act_when_asked_then_it_is_a_conflict_and_nothing_is_queued(cluster):
    _request(cluster, key="same")
    elsewhere = InstanceFactory(cluster=ClusterFactory())

    with pytest.raises(Conflict, match="another act"):
        _request(cluster, key="same", kind="uncordon_node")
    with pytest.raises(Conflict, match="another act"):
        _request(elsewhere.cluster, key="same", node=elsewhere)

    assert Action.objects.count() == 1


def test_given_safe_mode_when_asked_then_it_refuses_and_writes_nothing(cluster):
    platform.set_safe_mode(actor=Actor.system(None), value="on")

    with pytest.raises(GuardrailViolated) as refusal:
        _request(cluster)

    assert refusal.value.extra["code"] == "safe_mode"
    assert not Action.objects.exists()
    assert not AuditLog.objects.exists()


def test_given_a_pending_action_when_claimed_then_only_one_claim_succeeds(cluster):
    action = _request(cluster)

    assert actions.claim(action=action, claimed_by="one") is True
    assert actions.claim(action=action, claimed_by="two") is False
    assert Action.objects.get().claimed_by == "one"


@pytest.mark.django_db(transaction=True)
def test_given_eight_threads_when_they_claim_at_once_then_each_action_has_one_holder(acme):
    with tenant(acme.pk):
        row = ClusterFactory()
        group = NodeGroupFactory(cluster=row)
        InstanceFactory.create_batch(10, cluster=row, node_group=group)
        for node in row.instances.all():
            _request(row, node=node, kind="soft_cordon_node")

    def claim_all(agent: int) -> list[str]:
        try:
            with tenant(acme.pk):
                return [
                    str(a.pk)
                    for a in handover.claim_for_agent(
                        cluster_id=row.pk, agent_id=f"agent-{agent}", deliver=list
                    )
                ]
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        claimed = [pk for claims in pool.map(claim_all, range(8)) for pk in claims]

    assert len(claimed) == len(set(claimed)) == 10


def test_given_safe_mode_thrown_after_the_request_when_claimed_then_it_is_refused_and_audited(cluster):
    action = _request(cluster)
    platform.set_safe_mode(actor=Actor.system(None), value="on")

    assert handover.claim_for_agent(cluster_id=cluster.pk, agent_id="a", deliver=list) == []

    action.refresh_from_db()
    assert (action.status, action.error_code) == (Action.Status.REFUSED, "safe_mode")
    assert AuditLog.objects.filter(event="clusters.action.refused", outcome="denied").count() == 1


def test_given_one_node_being_drained_when_a_second_is_asked_for_then_the_budget_of_ten_percent_refuses(
    cluster,
):
    first, second = cluster.instances.order_by("node_name")[:2]
    _request(cluster, node=first)

    with pytest.raises(GuardrailViolated, match="1 may be at once"):
        _request(cluster, node=second)


def test_given_a_result_when_reported_twice_then_the_second_changes_nothing(cluster):
    action = _request(cluster)
    actions.claim(action=action, claimed_by="a")
    report = {"action_id": action.pk, "claimed_by": "a", "succeeded": True, "result": {"evicted": 3}}

    actions.report_result(**report)
    events = AuditLog.objects.count()
    again = actions.report_result(**report)

    assert again.status == Action.Status.SUCCEEDED
    assert again.result == {"evicted": 3}
    assert AuditLog.objects.count() == events


def test_given_another_holder_when_reported_then_it_conflicts_and_nothing_changes(cluster):
    action = _request(cluster)
    actions.claim(action=action, claimed_by="a")

    with pytest.raises(Conflict):
        actions.report_result(action_id=action.pk, claimed_by="b", succeeded=True, result={})

    assert Action.objects.get().status == Action.Status.RUNNING


def test_given_an_unknown_action_when_reported_then_it_is_not_found(in_acme):
    with pytest.raises(NotFound):
        actions.report_result(action_id=uuid4(), claimed_by="a", succeeded=True, result={})


def test_given_nobody_claims_when_the_time_is_over_then_the_reaper_expires_it_once(cluster):
    action = _request(cluster)

    with time_machine.travel(utcnow() + timedelta(minutes=15, seconds=1)):
        assert actions.reap(organization_id=cluster.organization_id) == 1
        assert actions.reap(organization_id=cluster.organization_id) == 0

    action.refresh_from_db()
    assert (action.status, action.error_code) == (Action.Status.EXPIRED, "expired")


def test_given_a_silent_agent_when_its_lease_is_over_then_the_action_fails_and_late_news_is_gone(cluster):
    action = _request(cluster)
    actions.claim(action=action, claimed_by="a")

    with time_machine.travel(utcnow() + timedelta(minutes=15, seconds=1)):
        actions.reap(organization_id=cluster.organization_id)
        with pytest.raises(Gone):
            actions.report_result(action_id=action.pk, claimed_by="a", succeeded=True, result={})

    action.refresh_from_db()
    assert (action.status, action.error_code) == (Action.Status.FAILED, "lease_expired")


def test_given_a_dead_worker_when_its_lease_is_over_then_another_takes_the_aws_action_over(cluster):
    action = _request(cluster, kind="launch_node")
    assert actions.claim_for_actuator(action_id=action.pk, worker="one") is not None
    assert actions.claim_for_actuator(action_id=action.pk, worker="two") is None

    with time_machine.travel(utcnow() + rules.ACTUATOR_LEASE + timedelta(seconds=1)):
        taken = actions.claim_for_actuator(action_id=action.pk, worker="two")

    assert taken is not None
    assert taken.claimed_by == "two"


@given(st.lists(st.sampled_from(sorted(rules.MOVES)), max_size=8))
def test_law_no_walk_leaves_a_final_status(walk):
    status = "pending"
    for following in walk:
        if rules.may_move(status, following):
            assert status in rules.OPEN
            status = following
    assert status in rules.MOVES


def test_given_every_kind_when_looked_up_then_it_has_a_route():
    assert {choice.value for choice in Action.Kind} == set(rules.ROUTES)


@pytest.mark.parametrize("kind", sorted(rules.ROUTES))
def test_given_any_end_when_told_then_the_sentence_names_the_target_and_the_reason(kind):
    for status in ("requested", *sorted(rules.MOVES.keys() - {"pending", "running"})):
        said = rules.sentence(kind=kind, status=status, target="ip-10-0-0-1", why="a reason")

        assert "ip-10-0-0-1: a reason" in said


def test_given_a_drain_that_succeeded_when_told_then_it_reads_as_english():
    said = rules.sentence(kind="drain_node", status="succeeded", target="ip-10-0-0-1")

    assert said == "Drained ip-10-0-0-1"
