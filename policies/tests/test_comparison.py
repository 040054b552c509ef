from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from audit.models import AuditLog
from clusters.models import Cluster, Price
from clusters.tests.factories import (
    ClusterFactory,
    InstanceFactory,
    NodeGroupFactory,
    PlacementFactory,
    WorkloadFactory,
)
from policies import tasks
from policies.domain.whatif import Commitment
from policies.models import WhatIf
from policies.services import comparison, jobs
from policies.services.policies import default_policy_for
from policies.services.scenarios import ScenarioDraft, draft_as_json, draft_from_json
from policies.tests.factories import TemplateFactory
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, Forbidden, InvalidInput, NotFound

Status = WhatIf.Status


@pytest.fixture
def cluster(in_acme, prices):
    row = ClusterFactory()
    group = NodeGroupFactory(cluster=row)
    for _ in range(4):
        node = InstanceFactory(cluster=row, node_group=group)
        PlacementFactory(workload=WorkloadFactory(cluster=row, replicas=1), instance=node, count=1)
    return row


def _ask(cluster, actor, *drafts):
    drafts = drafts or (ScenarioDraft(is_on_demand_only=True),)
    return comparison.request_what_if(cluster_id=cluster.pk, drafts=drafts, actor=actor)


def test_given_scenarios_when_computed_then_each_has_an_outcome_after_the_cluster_as_it_is(cluster, owner):
    other = TemplateFactory(name="Only c5", families=["c5"])
    what_if = _ask(
        cluster, owner, ScenarioDraft(is_on_demand_only=True), ScenarioDraft(spot_price_percent=-20),
        ScenarioDraft(template_id=other.pk), ScenarioDraft(commitments=(Commitment("m5.xlarge", 2),)),
        ScenarioDraft(name="No headroom", config={"constraints": {"headroom_cpu_percent": 0}}),
    )  # fmt: skip

    facts = {"organization_id": str(what_if.organization_id), "what_if_id": str(what_if.pk)}
    assert tasks.run_what_if(**facts) is True
    assert tasks.run_what_if(**facts) is False  # a second worker finds nothing to do

    what_if.refresh_from_db()
    assert (what_if.status, what_if.progress_percent) == (Status.COMPLETED, 100)
    assert [outcome["name"] for outcome in what_if.outcomes] == [
        "As it is", "On-demand only", "Spot prices -20 %", "Template Only c5", "2 × m5.xlarge committed",
        "No headroom",
    ]  # fmt: skip
    assert {outcome["nodes_before"] for outcome in what_if.outcomes} == {4}
    assert what_if.snapshot_at == cluster.snapshot_at
    assert set(AuditLog.objects.values_list("event", flat=True)) == {"policies.what_if.requested"}


def test_given_another_cluster_s_policy_when_compared_then_its_rules_hold(cluster, owner):
    sibling = ClusterFactory(name="sibling")
    policy = default_policy_for(sibling)
    policy.config = {**policy.config, "constraints": {"min_nodes": 4}}
    policy.save()
    what_if = _ask(cluster, owner, ScenarioDraft(policy_of=sibling.pk))

    comparison.run_what_if(what_if_id=what_if.pk)

    what_if.refresh_from_db()
    assert what_if.outcomes[1]["name"] == "Policy of sibling"
    assert what_if.outcomes[1]["nodes_after"] == 4


@pytest.mark.parametrize(
    ("draft", "error", "message"),
    [
        (ScenarioDraft(template_id=uuid4()), NotFound, "no such template"),
        (ScenarioDraft(policy_of=uuid4()), NotFound, "no policy"),
        (ScenarioDraft(config={"constraints": {"min_nodes": 1}}), InvalidInput, "min_nodes"),
        (
            ScenarioDraft(config={"constraints": {"allowed_families": ["zz9"]}}),
            Conflict,
            "no instance family",
        ),
        (ScenarioDraft(commitments=(Commitment("zz9.large", 1),)), InvalidInput, r"zz9\.large is not"),
    ],
)
def test_given_a_scenario_that_cannot_be_when_asked_then_it_refuses_and_writes_nothing(
    cluster, owner, draft, error, message
):
    with pytest.raises(error, match=message):
        _ask(cluster, owner, draft)

    assert not WhatIf.objects.exists()
    assert not AuditLog.objects.exists()


def test_given_too_many_scenarios_when_asked_then_it_refuses(cluster, owner):
    with pytest.raises(InvalidInput, match="1 to 6"):
        _ask(cluster, owner, *[ScenarioDraft()] * 7)


def test_given_a_viewer_when_asking_or_cancelling_then_both_are_forbidden(cluster, owner, viewer, acme):
    actor = Actor(kind="user", organization_id=acme.pk, label="v", id=str(viewer.pk), role="viewer")
    what_if = _ask(cluster, owner)

    with pytest.raises(Forbidden):
        _ask(cluster, actor)
    with pytest.raises(Forbidden):
        jobs.cancel_what_if(what_if_id=what_if.pk, actor=actor)

    what_if.refresh_from_db()
    assert what_if.status == Status.QUEUED


def test_given_a_cluster_that_never_reported_or_a_what_if_under_way_when_asked_then_it_refuses(
    cluster, owner
):
    what_if = _ask(cluster, owner)

    with pytest.raises(Conflict) as conflict:
        _ask(cluster, owner)
    assert conflict.value.extra["what_if_id"] == str(what_if.pk)

    Cluster.objects.update(snapshot_at=None)
    with pytest.raises(Conflict, match="not reported"):
        _ask(cluster, owner)


def test_given_a_what_if_under_way_when_cancelled_then_it_stops_and_keeps_what_it_found(
    cluster, owner, monkeypatch
):
    what_if = _ask(cluster, owner)
    compute = comparison.outcome_of

    def cancel_after_the_first(**facts):
        found = compute(**facts)
        jobs.cancel_what_if(what_if_id=what_if.pk, actor=owner)
        monkeypatch.setattr(comparison, "outcome_of", compute)
        return found

    monkeypatch.setattr(comparison, "outcome_of", cancel_after_the_first)

    assert comparison.run_what_if(what_if_id=what_if.pk) is False

    what_if.refresh_from_db()
    assert (what_if.status, len(what_if.outcomes)) == (Status.CANCELLED, 1)
    with pytest.raises(Conflict, match="cancelled already"):
        jobs.cancel_what_if(what_if_id=what_if.pk, actor=owner)


def test_given_no_prices_when_computed_then_the_what_if_fails_with_the_reason(cluster, owner, monkeypatch):
    Price.objects.all().delete()
    monkeypatch.setattr("policies.services.planning.refresh_spot_prices", lambda: None)
    what_if = _ask(cluster, owner)

    assert comparison.run_what_if(what_if_id=what_if.pk) is False

    what_if.refresh_from_db()
    assert (what_if.status, "No prices" in what_if.error_message) == (Status.FAILED, True)
    assert AuditLog.objects.filter(event="policies.what_if.failed").count() == 1


def test_given_a_what_if_that_nobody_started_or_whose_worker_died_when_swept_then_it_is_started_or_failed(
    cluster, owner, monkeypatch
):
    sent = []
    monkeypatch.setattr(tasks, "enqueue", lambda name, **facts: sent.append((name, facts)))
    what_if = _ask(cluster, owner)

    assert tasks.run_queued_jobs() == 1
    assert sent == [
        ("policies.run_what_if", {"organization_id": cluster.organization_id, "what_if_id": what_if.pk})
    ]

    WhatIf.objects.update(status=Status.RUNNING, started_at=utcnow() - timedelta(minutes=31))
    sent.clear()
    tasks.run_queued_jobs()
    assert sent == [("policies.fail_stuck_jobs", {"organization_id": cluster.organization_id})]
    assert jobs.fail_stuck_jobs() == 1


def test_given_a_draft_when_stored_and_read_then_it_is_the_same():
    draft = ScenarioDraft(
        "x", uuid4(), uuid4(), {"constraints": {"min_nodes": 4}}, True, -5, 10,
        (Commitment("m5.xlarge", 2, Decimal("0.1")),),
    )  # fmt: skip

    assert draft_from_json(draft_as_json(draft)) == draft
