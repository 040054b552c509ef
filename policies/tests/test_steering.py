from datetime import timedelta
from decimal import Decimal

import pytest
from django.urls import reverse

from audit.models import AuditLog
from clusters.models import Action, Cluster, InstanceType, InterruptionRate, NodePool, Price
from clusters.services.actions import claim, finish
from clusters.tests.factories import ClusterFactory, InstanceFactory
from policies.domain.karpenter import wishes
from policies.models import PoolSteering
from policies.selectors.karpenter import State, karpenter_of
from policies.services.karpenter import apply_steering, organizations_with_karpenter, steer, steer_all
from policies.services.policies import PolicyChange, change_policy
from policies.tasks import steer_karpenter
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, Forbidden
from spotopt.core.tenancy import tenant

CAPACITY = {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"]}
CUSTOMERS = {
    "limits": {"cpu": "1000"},
    "template": {
        "spec": {
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"},
            "requirements": [CAPACITY],
            "expireAfter": "720h",
        }
    },
}


@pytest.fixture
def cluster(in_acme, clock):
    """A cluster of three nodes in which Karpenter has one node pool, and six calm spot pools on offer."""
    row = ClusterFactory(karpenter=Cluster.Karpenter.RUNNING)
    for _number in range(3):
        InstanceFactory(cluster=row)
    NodePool.objects.create(
        organization=in_acme, cluster=row, name="default", spec=CUSTOMERS, reported_at=utcnow(),
        used={"cpu": "100", "nodes": "10"}, managers={"limits": ["helm"]},
    )  # fmt: skip
    for number, family in enumerate(("m5", "m5a", "c5", "c6i", "r5", "r6i")):
        _sell(f"{family}.xlarge", family, Decimal("0.2") + Decimal(number) / 100)
    return row


def _sell(name, family, usd):
    InstanceType.objects.create(
        name=name, family=family, size="xlarge", category=family[0], generation=int(family[1]),
        arch="x86_64", vcpu=4, memory_mib=16384, max_pods=58, cpu_allocatable_millis=3920,
        memory_allocatable_mib=14800,
    )  # fmt: skip
    InterruptionRate.objects.create(
        region="us-east-1", instance_type=name, bucket=0, savings_percent=60, fetched_at=utcnow()
    )
    for zone_id, capacity_type, price in (("", "on_demand", usd), ("use1-az1", "spot", usd / 3)):
        Price.objects.create(
            region="us-east-1", zone_id=zone_id, instance_type=name, capacity_type=capacity_type,
            usd_per_hour=round(price, 6), observed_at=utcnow(), source="aws",
        )  # fmt: skip


@pytest.fixture
def bob_acts(in_acme, member):
    return Actor(
        kind="user", organization_id=in_acme.pk, label=member.email, id=str(member.pk), role="member"
    )


def switch(cluster, actor, *, mode="automatic", **knobs):
    change = PolicyChange(config={"karpenter": {"enabled": True} | knobs}, mode=mode)
    change_policy(cluster_id=cluster.pk, change=change, actor=actor)


def requested():
    return list(Action.objects.filter(kind="apply_karpenter").order_by("created_at"))


def carry_out(action, clock, *, status="succeeded", **fields):
    """The agent does what it was asked for; a report comes after."""
    assert claim(action=action, claimed_by="agent")
    action.refresh_from_db()
    finish(action=action, status=status, actor=Actor.system(action.organization_id), **fields)
    if status == "succeeded":
        manifest = action.params["manifest"]
        NodePool.objects.update_or_create(
            cluster_id=action.cluster_id, name=manifest["metadata"]["name"],
            defaults={"organization_id": action.organization_id, "spec": manifest["spec"], "is_ours": True,
                      "steers": "default", "reported_at": utcnow()},
        )  # fmt: skip
    report(action.cluster, clock)


def report(cluster, clock):
    clock.shift(timedelta(seconds=30))
    Cluster.objects.filter(pk=cluster.pk).update(snapshot_at=utcnow())


def state(cluster):
    [pool] = karpenter_of(cluster.pk).pools
    return pool


def test_given_an_automatic_policy_when_steered_twice_then_our_pool_is_asked_for_once(
    cluster, bob_acts, clock
):
    switch(cluster, bob_acts)

    assert [steer(cluster_id=cluster.pk), steer(cluster_id=cluster.pk)] == [1, 0]

    [action] = requested()
    assert (action.target, action.is_voluntary, action.requested_by) == ("spotopt-default", True, "Spotopt")
    assert action.params["manifest"]["spec"]["limits"] == {"cpu": "80"}
    assert state(cluster).state is State.WAITING
    carry_out(action, clock)
    assert steer(cluster_id=cluster.pk) == 0
    assert state(cluster).state is State.IN_PLACE
    assert (state(cluster).changes, state(cluster).own_used) == ((), {})


def test_given_a_changed_policy_when_its_task_runs_twice_then_one_act_follows(
    cluster, bob_acts, clock, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        switch(cluster, bob_acts)

    for _ in range(2):
        steer_karpenter(organization_id=str(cluster.organization_id), cluster_id=str(cluster.pk))

    assert len(requested()) == 1


def test_given_a_policy_that_is_switched_off_meanwhile_when_steered_then_the_old_wish_is_dropped(
    cluster, bob_acts, clock, monkeypatch
):
    switch(cluster, bob_acts)

    def compute(*arguments):
        switch(cluster, bob_acts, enabled=False)
        return wishes(*arguments)

    monkeypatch.setattr("policies.services.karpenter.wishes", compute)

    assert steer(cluster_id=cluster.pk) == 0
    assert not PoolSteering.objects.exists()
    assert requested() == []


def test_given_a_recommending_policy_when_steered_then_it_is_shown_and_applied_only_by_a_person(
    cluster, bob_acts, clock
):
    switch(cluster, bob_acts, mode="recommend")

    assert steer(cluster_id=cluster.pk) == 0
    shown = state(cluster)
    apply_steering(cluster_id=cluster.pk, steering_id=shown.id, fingerprint=shown.fingerprint, actor=bob_acts)

    assert shown.state is State.RECOMMENDED
    assert {change.field for change in shown.changes} >= {"weight", "limits.cpu"}
    [action] = requested()
    assert action.requested_by == "bob@acme.test"
    assert AuditLog.objects.filter(event="policies.karpenter.approved").count() == 1
    assert state(cluster).state is State.WAITING


@pytest.mark.parametrize("mode", ["automatic", "recommend"])
def test_given_ours_in_place_when_switched_off_and_on_again_then_each_time_one_act_follows(
    cluster, bob_acts, clock, mode
):
    switch(cluster, bob_acts)
    steer(cluster_id=cluster.pk)
    carry_out(requested()[0], clock)

    for round_ in range(2):
        switch(cluster, bob_acts, enabled=False, mode=mode)
        assert steer(cluster_id=cluster.pk) == 1, round_
        carry_out(requested()[-1], clock)
        assert steer(cluster_id=cluster.pk) == 0
        assert state(cluster).state is State.HANDED_BACK
        switch(cluster, bob_acts)
        assert steer(cluster_id=cluster.pk) == 1, round_
        carry_out(requested()[-1], clock)

    limits = [action.params["manifest"]["spec"]["limits"]["cpu"] for action in requested()]
    assert limits == ["80", "0", "80", "0", "80"]


def test_given_a_conflict_when_steered_again_then_it_is_shown_and_not_tried_until_something_changes(
    cluster, bob_acts, clock
):
    switch(cluster, bob_acts)
    steer(cluster_id=cluster.pk)
    carry_out(requested()[0], clock, status="failed", error_code="conflict", error_message="helm has it.")

    assert steer(cluster_id=cluster.pk) == 0
    assert (state(cluster).state, state(cluster).action.error_message) == (State.FAILED, "helm has it.")
    switch(cluster, bob_acts, drift=False)

    assert steer(cluster_id=cluster.pk) == 1


def test_given_a_conflict_when_a_person_wants_it_then_it_is_tried_again(cluster, bob_acts, clock):
    switch(cluster, bob_acts)
    steer(cluster_id=cluster.pk)
    carry_out(requested()[0], clock, status="failed", error_code="conflict", error_message="helm has it.")
    steer(cluster_id=cluster.pk)
    shown = state(cluster)

    apply_steering(cluster_id=cluster.pk, steering_id=shown.id, fingerprint=shown.fingerprint, actor=bob_acts)

    assert len(requested()) == 2


def test_given_a_cluster_that_keeps_another_object_when_steered_then_it_stops_after_a_second_try(
    cluster, bob_acts, clock
):
    switch(cluster, bob_acts)
    for _ in range(4):
        steer(cluster_id=cluster.pk)
        for action in Action.objects.filter(status="pending"):
            carry_out(action, clock)
            NodePool.objects.filter(is_ours=True).update(spec=CUSTOMERS)

    assert len(requested()) == 2


def test_given_an_act_that_nobody_fetched_when_it_expired_then_it_is_asked_for_again(
    cluster, bob_acts, clock
):
    switch(cluster, bob_acts)
    steer(cluster_id=cluster.pk)
    finish(action=requested()[0], status="expired", actor=bob_acts)

    assert steer(cluster_id=cluster.pk) == 1


def test_given_a_pause_when_steered_then_nothing_is_asked_for_until_it_is_over(cluster, bob_acts, clock):
    switch(cluster, bob_acts)
    Cluster.objects.filter(pk=cluster.pk).update(maintenance_mode=True)

    assert steer(cluster_id=cluster.pk) == 0
    assert (state(cluster).state, state(cluster).hold) == (
        State.HELD,
        "The cluster is paused for maintenance.",
    )
    Cluster.objects.filter(pk=cluster.pk).update(maintenance_mode=False)

    assert steer(cluster_id=cluster.pk) == 1
    assert state(cluster).hold == ""


def test_given_a_pool_that_cannot_be_steered_when_steered_then_the_reason_is_shown(cluster, bob_acts, clock):
    NodePool.objects.update(spec=CUSTOMERS | {"weight": 100})
    switch(cluster, bob_acts)

    assert steer(cluster_id=cluster.pk) == 0
    assert (state(cluster).state, state(cluster).code) == (State.LEFT_ALONE, "weight_full")


def test_given_a_pool_that_went_when_steered_then_its_row_goes_with_it(cluster, bob_acts, clock):
    switch(cluster, bob_acts)
    steer(cluster_id=cluster.pk)
    NodePool.objects.all().delete()

    steer(cluster_id=cluster.pk)

    assert not PoolSteering.objects.exists()


def test_given_clusters_when_all_are_steered_then_only_reporting_ones_with_karpenter_are(
    cluster, bob_acts, clock
):
    switch(cluster, bob_acts)
    ClusterFactory(karpenter=Cluster.Karpenter.ABSENT)
    ClusterFactory(karpenter=Cluster.Karpenter.RUNNING, snapshot_at=utcnow() - timedelta(hours=1))

    assert organizations_with_karpenter() == {cluster.organization_id}
    assert [steer_all(), steer_all()] == [1, 0]


@pytest.mark.parametrize(
    ("change", "error"),
    [({"fingerprint": "other"}, Conflict), ({"role": "viewer"}, Forbidden), ({"is_met": True}, Conflict)],
)
def test_given_a_wish_when_applied_wrongly_then_nothing_is_asked_for(cluster, bob_acts, clock, change, error):
    switch(cluster, bob_acts, mode="recommend")
    steer(cluster_id=cluster.pk)
    row = PoolSteering.objects.get()
    if "is_met" in change:
        PoolSteering.objects.update(is_met=True)
    actor = Actor(kind="user", organization_id=cluster.organization_id, label="x",
                  role=change.get("role", "member"))  # fmt: skip

    with pytest.raises(error):
        apply_steering(
            cluster_id=cluster.pk,
            steering_id=row.pk,
            fingerprint=change.get("fingerprint", row.fingerprint),
            actor=actor,
        )

    assert requested() == []


def test_given_karpenter_when_read_by_the_api_then_it_says_what_the_page_says_and_applies(
    api_as, member, cluster, bob_acts, clock, django_assert_num_queries
):
    switch(cluster, bob_acts, mode="recommend")
    steer(cluster_id=cluster.pk)
    speak, path = api_as(member), f"/api/v1/clusters/{cluster.pk}/karpenter"

    body = speak.get(path).json()
    [pool] = body["pools"]
    stale = speak.post(f"{path}/{pool['id']}/apply", {"fingerprint": "0" * 64}, format="json")
    applied = speak.post(f"{path}/{pool['id']}/apply", {"fingerprint": pool["fingerprint"]}, format="json")
    again = speak.post(f"{path}/{pool['id']}/apply", {"fingerprint": pool["fingerprint"]}, format="json")

    assert (body["status"], body["is_enabled"], body["is_automatic"]) == ("running", True, False)
    assert (pool["pool"], pool["name"], pool["state"]) == ("default", "spotopt-default", "recommended")
    assert pool["managers"] == {"limits": ["helm"]}
    assert {"field": "limits.cpu", "old_value": None, "new_value": "80", "change_type": "added"} in pool[
        "changes"
    ]
    assert (stale.status_code, stale.json()["code"]) == (409, "stale")
    assert (applied.status_code, applied.json()["pools"][0]["state"]) == (202, "waiting")
    assert (again.status_code, again.json()["code"]) == (409, "under_way")
    with django_assert_num_queries(4), tenant(cluster.organization_id):
        karpenter_of(cluster.pk)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"snapshot_at": None, "karpenter": ""}, "No agent has reported yet"),
        ({"karpenter": "absent"}, "Karpenter is not installed here"),
        ({"karpenter": "forbidden"}, "The agent may not read node pools"),
        ({"karpenter": ""}, "The agent does not say"),
        ({}, "Karpenter is not steered."),
    ],
)
def test_given_what_is_known_when_the_page_is_opened_then_it_says_so(
    client, viewer, cluster, clock, changes, said
):
    Cluster.objects.filter(pk=cluster.pk).update(**changes)
    client.force_login(viewer)

    page = client.get(reverse("policies:karpenter", args=[cluster.pk])).content.decode()

    assert said in page
    assert "Apply spotopt" not in page


def test_given_a_recommendation_when_a_member_applies_it_on_the_page_then_the_page_waits_for_the_agent(
    client, member, cluster, bob_acts, clock
):
    switch(cluster, bob_acts, mode="recommend")
    steer(cluster_id=cluster.pk)
    client.force_login(member)
    path = reverse("policies:karpenter", args=[cluster.pk])

    before = client.get(path).content.decode()
    row = PoolSteering.objects.get()
    client.post(
        reverse("policies:apply-karpenter", args=[cluster.pk, row.pk]), {"fingerprint": row.fingerprint}
    )
    after = client.get(path).content.decode()

    assert "Apply spotopt-default" in before
    assert "What would change in spotopt-default" in before
    assert "Being applied" in after
    assert "Apply spotopt-default" not in after


def test_given_every_state_when_the_page_is_drawn_then_each_is_told(client, member, cluster, bob_acts, clock):
    client.force_login(member)
    path = reverse("policies:karpenter", args=[cluster.pk])

    def said():
        return client.get(path).content.decode()

    assert "Not looked at yet" in said()
    switch(cluster, bob_acts)
    Cluster.objects.filter(pk=cluster.pk).update(maintenance_mode=True)
    steer(cluster_id=cluster.pk)
    assert "It is tried again when that is over." in said()
    Cluster.objects.filter(pk=cluster.pk).update(maintenance_mode=False)
    steer(cluster_id=cluster.pk)
    carry_out(requested()[0], clock, status="failed", error_code="conflict", error_message="helm has it.")
    steer(cluster_id=cluster.pk)
    assert "helm has it." in said()
    switch(cluster, bob_acts, drift=False)
    steer(cluster_id=cluster.pk)
    carry_out(requested()[-1], clock)
    steer(cluster_id=cluster.pk)
    assert "Steered" in said()
    switch(cluster, bob_acts, enabled=False)
    steer(cluster_id=cluster.pk)
    carry_out(requested()[-1], clock)
    steer(cluster_id=cluster.pk)
    assert "Handed back" in said()
    NodePool.objects.filter(is_ours=True).delete()
    steer(cluster_id=cluster.pk)
    assert "Left alone" in said()
