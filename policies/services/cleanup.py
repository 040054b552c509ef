"""Leave the cluster tidy when a plan ends: no node of ours cordoned, no launched node without work."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from django.db.models import Max

from clusters.domain.actions import OPEN
from clusters.models import Action, Instance
from clusters.selectors.guard import ALIVE, cluster_facts
from clusters.services.actions import request_action
from policies.domain.plan import Wave
from policies.models import Plan
from policies.services.run import displaced_pods
from spotopt.core.actor import Actor
from spotopt.core.errors import GuardrailViolated

SOFT_TAINT = "spotopt.io/consolidating"
PATIENCE = timedelta(minutes=30)
"""After this long the plan ends with a note of what could not be put back."""
SETTLING = timedelta(seconds=60)
"""A node younger than this may still get the pods that it was launched for."""
_MARKS = (Action.Kind.CORDON_NODE, Action.Kind.DRAIN_NODE)
"""Kinds that leave a node cordoned, whether they ended well or not."""


class Cleanup:
    """One tick of the end of a plan. Looks at what is observed, so that it may run any number of times."""

    def __init__(self, *, plan: Plan, waves: Sequence[Wave], actor: Actor, now: datetime) -> None:
        self._plan, self._waves, self._actor, self._now = plan, waves, actor, now
        self._facts = cluster_facts(plan.cluster_id)
        ours = Action.objects.filter(plan_id=plan.pk)
        self._open_targets = set(ours.filter(status__in=OPEN).values_list("target", flat=True))
        marks = ours.filter(kind__in=_MARKS).exclude(claimed_at=None)
        self._touched = set(marks.values_list("params__instance_id", flat=True))
        kept = ours.filter(kind=Action.Kind.UNCORDON_NODE, result__kept_cordoned=True)
        self._kept = set(kept.values_list("params__instance_id", flat=True))
        """Nodes whose cordon the agent found to be somebody else's."""
        self._last_end = ours.aggregate(last=Max("finished_at"))["last"]
        self._begun = plan.updated_at if plan.status == Plan.Status.STOPPING else self._last_step_end()

    def tick(self) -> str | None:
        """Return None while work is left, then a sentence about what could not be done (often empty)."""
        if self._open_targets:
            return None
        if not self._has_fresh_report():
            return self._give_up("The agent is silent; nodes may still be cordoned.")
        dirty, idle = list(self._still_marked()), list(self._without_work())
        for instance in dirty:
            self._ask(Action.Kind.UNCORDON_NODE, instance, "The plan is over; the node stays.")
        for instance in idle:
            if self._now - instance.launched_at > SETTLING:
                self._retire(instance)
        if dirty or idle:
            return self._give_up(", ".join(sorted(i.node_name or i.instance_id for i in [*dirty, *idle])))
        return ""

    def _has_fresh_report(self) -> bool:
        seen = self._facts.snapshot_at
        return seen is not None and (self._last_end is None or seen > self._last_end)

    def _give_up(self, what: str) -> str | None:
        over = self._now - (self._begun or self._now) > PATIENCE
        return f"Could not be tidied up: {what}" if over else None

    def _last_step_end(self) -> datetime | None:
        last: datetime | None = self._plan.steps.aggregate(last=Max("finished_at"))["last"]
        return last

    def _still_marked(self) -> Iterator[Instance]:
        """Yield the live nodes that stay and still carry a mark of this plan.

        A node that a person cordoned stays cordoned; a launched one that got pods while it was being retired
        is opened again.
        """
        leaving = [removal.instance_id for wave in self._waves for removal in wave.removals]
        alive = Instance.objects.filter(cluster_id=self._plan.cluster_id, state__in=ALIVE)
        alive = alive.exclude(instance_id__in=self._facts.taken)
        for row in alive.filter(instance_id__in=leaving).exclude(node_name=""):
            is_steered = any(taint.get("key") == SOFT_TAINT for taint in row.taints)
            is_closed = row.is_cordoned and row.instance_id in self._touched - self._kept
            if is_steered or is_closed:
                yield row
        for row in self._launched():
            if row.is_cordoned and row.instance_id in self._touched and self._has_work(row):
                yield row

    def _without_work(self) -> Iterator[Instance]:
        """Yield the launched instances that carry no pod although every pod has a place."""
        if displaced_pods(self._plan):
            return
        yield from (row for row in self._launched() if not self._has_work(row))

    def _launched(self) -> list[Instance]:
        launches = Action.objects.filter(plan_id=self._plan.pk, kind=Action.Kind.LAUNCH_NODE)
        rows = Instance.objects.filter(launch_action_id__in=launches.values("pk"), state__in=ALIVE)
        return list(rows.exclude(instance_id__in=self._facts.taken))

    def _has_work(self, instance: Instance) -> bool:
        node = self._facts.nodes.get(instance.instance_id)
        return node is not None and node.pods > 0

    def _retire(self, instance: Instance) -> None:
        """Cordon the idle node first, so that no pod lands on it between the look and the termination."""
        joined = instance.instance_id in self._facts.nodes
        if joined and not instance.is_cordoned:
            self._ask(Action.Kind.CORDON_NODE, instance, "The node has no work; it is taken away.")
        else:
            self._ask(Action.Kind.TERMINATE_INSTANCE, instance, "The node has no work.")

    def _ask(self, kind: str, instance: Instance, reason: str) -> None:
        target = instance.node_name or instance.instance_id
        asked = Action.objects.filter(plan_id=self._plan.pk, kind=kind, target=target).count()
        try:
            request_action(
                cluster=self._plan.cluster,
                kind=kind,
                target=target,
                params={"node_name": instance.node_name, "instance_id": instance.instance_id},
                reason=reason,
                actor=self._actor,
                idempotency_key=f"{self._plan.pk}:tidy:{kind}:{instance.instance_id}:{asked + 1}",
                plan_id=self._plan.pk,
                is_voluntary=False,
            )
        except GuardrailViolated:
            return  # only a freeze forbids it; the next tick asks again until patience ends
