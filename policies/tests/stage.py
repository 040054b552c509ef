"""Plays a plan on rows: an executor stands for AWS and the agent, and may be told to misbehave."""

from datetime import timedelta
from decimal import Decimal

from django.db.models import Count

from clusters.models import Action, Instance, NodeGroup
from clusters.selectors.guard import cluster_facts
from clusters.services import actions, handover
from clusters.tests.factories import (
    InstanceFactory,
)
from policies.services import execution
from spotopt.core.clock import utcnow

SECONDS_BETWEEN_TICKS = 10


class Executor:
    """Does what AWS and the agent would do, on rows; ``broken`` maps an action kind to an error code."""

    def __init__(self, cluster, clock):
        self.cluster, self.clock = cluster, clock
        self.broken: dict[str, str] = {}
        self.results: dict[str, dict[str, object]] = {}
        self.is_silent = False
        self.launched = 0
        self.most_disrupted = 0

    def step(self):
        """Execute every waiting action, let the agent report, and tell the time."""
        self.clock.shift(timedelta(seconds=SECONDS_BETWEEN_TICKS))
        if not self.is_silent:
            for action in handover.claim_for_agent(
                cluster_id=self.cluster.pk, agent_id="agent", deliver=list, limit=100
            ):
                self._do(action)
        for action in Action.objects.filter(route="aws", status="pending"):
            if actions.claim_for_actuator(action_id=action.pk, worker="worker"):
                action.refresh_from_db()
                self._do(action)
        if not self.is_silent:
            self.clock.shift(timedelta(seconds=1))
            type(self.cluster).objects.filter(pk=self.cluster.pk).update(snapshot_at=utcnow())
            Instance.objects.filter(state="pending").update(state="running", is_ready=True)
        disrupted = cluster_facts(self.cluster.pk).disrupted
        self.most_disrupted = max(self.most_disrupted, len(disrupted))

    def _do(self, action):
        code = self.broken.get(action.kind, "")
        if not code:
            getattr(self, f"_{action.kind}")(action)
        actions.report_result(
            action_id=action.pk,
            claimed_by=action.claimed_by,
            succeeded=not code,
            result=self.results.get(action.kind, {}),
            error_code=code,
            error_message=code,
        )

    def _node(self, action):
        return Instance.objects.filter(instance_id=action.params["instance_id"])

    def _soft_cordon_node(self, action):
        self._node(action).update(taints=[{"key": "spotopt.io/consolidating", "effect": "PreferNoSchedule"}])

    def _cordon_node(self, action):
        self._node(action).update(is_cordoned=True)

    def _uncordon_node(self, action):
        self._node(action).update(is_cordoned=False, taints=[])

    def _drain_node(self, action):
        node = self._node(action).get()
        node.is_cordoned = True
        node.save()
        room = Instance.objects.filter(
            cluster=self.cluster, state="running", is_cordoned=False, is_ready=True
        )
        target = room.exclude(pk=node.pk).annotate(pods=Count("placements")).order_by("pods", "pk").first()
        for placed in node.placements.all():
            there, is_new = target.placements.get_or_create(
                workload=placed.workload,
                organization_id=placed.organization_id,
                defaults={"count": placed.count},
            )
            if not is_new:
                there.count += placed.count
                there.save()
            placed.delete()

    def _launch_node(self, action):
        self.launched += 1
        group, _ = NodeGroup.objects.get_or_create(
            cluster=self.cluster, name="spotopt", kind="spotopt", organization_id=self.cluster.organization_id
        )
        InstanceFactory(
            cluster=self.cluster,
            node_group=group,
            state="pending",
            is_ready=False,
            lifecycle=action.params["capacity_type"],
            instance_type=action.params["instance_type"],
            price=Decimal(action.params["usd_per_hour"]),
            launched_at=utcnow(),
            launch_action_id=action.pk,
            az=action.params["zone"],
            az_id=action.params["zone_id"],
        )

    def _terminate_instance(self, action):
        self._node(action).update(state="terminated", terminated_at=utcnow(), is_ready=False)


def wave_of(number, node):
    launch = {
        "id": f"n{number}", "instance_type": "m6i.xlarge", "zone": "us-east-1a", "zone_id": "use1-az1",
        "capacity_type": "spot", "usd_per_hour": "0.060000", "interruption_risk": 0.01,
        "alternatives": ["use1-az1:m6a.xlarge:spot"], "pods": [],
    }  # fmt: skip
    removal = {
        "node_id": node.node_name, "instance_id": node.instance_id, "usd_per_hour": "0.192000",
        "reason_code": "replaced_by_spot", "reason": "Cheaper on spot.", "pods_moved": 1,
    }  # fmt: skip
    return {"launches": [launch], "removals": [removal]}


def run_plan(plan, executor, *, ticks=60, until=None):
    for _ in range(ticks):
        execution.advance_plan(plan_id=plan.pk)
        plan.refresh_from_db()
        if plan.finished_at or (until and until()):
            return plan
        executor.step()
    return plan
