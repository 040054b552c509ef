"""Leave the cluster tidy when a plan ends: no node of ours cordoned, no launched node without work."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Max

from clusters.domain.actions import OPEN
from clusters.domain.guardrails import MIN_READY_NODES, ready_nodes_without
from clusters.models import Action, Instance
from clusters.selectors.guard import ALIVE, cluster_facts
from clusters.services.actions import request_action
from policies.domain.plan import Wave
from policies.domain.progress import FRESH_SNAPSHOT
from policies.models import Plan, PlanStep
from policies.services.run import displaced_pods
from spotopt.core.actor import Actor
from spotopt.core.errors import GuardrailViolated

SOFT_TAINT = "spotopt.io/consolidating"
PATIENCE = timedelta(minutes=30)
"""After this long the plan ends with a note of what could not be put back."""
SETTLING = timedelta(seconds=60)
"""A node younger than this may still get the pods that it was launched for."""
MARKS = (Action.Kind.CORDON_NODE, Action.Kind.DRAIN_NODE)
"""Kinds that leave a node cordoned, whether they ended well or not."""


class Cleanup:
    """One tick of the end of a plan. Looks at what is observed, so that it may run any number of times."""

    def __init__(self, *, plan: Plan, waves: Sequence[Wave], actor: Actor, now: datetime) -> None:
        self._plan, self._waves, self._actor, self._now = plan, waves, actor, now
        self._facts = cluster_facts(plan.cluster_id)
        ours = Action.objects.filter(plan_id=plan.pk)
        self._open_targets = set(ours.filter(status__in=OPEN).values_list("target", flat=True))
        marks = ours.filter(kind__in=MARKS).exclude(claimed_at=None)
        self._touched = set(marks.values_list("params__instance_id", flat=True))
        kept = ours.filter(kind=Action.Kind.UNCORDON_NODE, result__kept_cordoned=True)
        self._kept = set(kept.values_list("params__instance_id", flat=True))
        """Nodes whose cordon the agent found to be somebody else's."""
        drained = ours.filter(kind=Action.Kind.DRAIN_NODE).exclude(status__in=OPEN)
        self._drained = set(drained.values_list("params__instance_id", flat=True))
        """Nodes whose last pods were given their time to end."""
        self._bought_empty = self._launches_without_pods() if plan.status == Plan.Status.RUNNING else set()
        self._last_end = ours.aggregate(last=Max("finished_at"))["last"]
        self._begun = plan.updated_at if plan.status == Plan.Status.STOPPING else self._last_step_end()

    def tick(self) -> str | None:
        """Return None while work is left, then a sentence about what could not be done (often empty)."""
        if self._open_targets:
            return None
        if not self._has_fresh_report():
            return self._give_up("The agent is silent; nodes may still be cordoned.")
        idle = list(self._without_work())
        dirty = list(self._still_marked(idle))
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
        if seen is None or self._now - seen > FRESH_SNAPSHOT:
            return False
        return self._last_end is None or seen > self._last_end

    def _give_up(self, what: str) -> str | None:
        over = self._now - (self._begun or self._now) > PATIENCE
        return f"Could not be tidied up: {what}" if over else None

    def _last_step_end(self) -> datetime | None:
        last: datetime | None = self._plan.steps.aggregate(last=Max("finished_at"))["last"]
        return last

    def _still_marked(self, idle: Sequence[Instance]) -> Iterator[Instance]:
        """Yield the live nodes that stay and still carry a mark of this plan.

        A node that a person cordoned stays cordoned; a launched one that got pods, or is needed after all,
        while it was being retired is opened again.
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
            if row.is_cordoned and row.instance_id in self._touched and row not in idle:
                yield row

    def _without_work(self) -> Iterator[Instance]:
        """Yield the launched instances that carry no pod although every pod has a place.

        Those that a plan which ran to its end bought to stand empty stay, and those that the floor needs.
        """
        if displaced_pods(self._plan):
            return
        closing = set(self._facts.disrupted)
        for row in self._launched():
            if row.launch_action_id in self._bought_empty or self._has_work(row):
                continue
            if (
                row.is_ready
                and ready_nodes_without(closing | {row.instance_id}, self._facts) < MIN_READY_NODES
            ):
                continue
            closing.add(row.instance_id)
            yield row

    def _launches_without_pods(self) -> set[UUID | None]:
        """Return the launches that the plan made for room, a zone or the number of nodes, not for pods."""
        names = {launch.id for wave in self._waves for launch in wave.launches if not launch.pods}
        steps = self._plan.steps.filter(kind=PlanStep.Kind.LAUNCH, target__in=names)
        return set(steps.values_list("action_id", flat=True))

    def _launched(self) -> list[Instance]:
        launches = Action.objects.filter(plan_id=self._plan.pk, kind=Action.Kind.LAUNCH_NODE)
        rows = Instance.objects.filter(launch_action_id__in=launches.values("pk"), state__in=ALIVE)
        return list(rows.exclude(instance_id__in=self._facts.taken))

    def _has_work(self, instance: Instance) -> bool:
        node = self._facts.nodes.get(instance.instance_id)
        return node is not None and node.pods > 0

    def _retire(self, instance: Instance) -> None:
        """Cordon the idle node first, so that no pod lands there, and let those end that are leaving."""
        joined = instance.instance_id in self._facts.nodes
        if joined and not instance.is_cordoned:
            self._ask(Action.Kind.CORDON_NODE, instance, "The node has no work; it is taken away.")
        elif joined and instance.is_ready and instance.instance_id not in self._drained:
            self._ask(Action.Kind.DRAIN_NODE, instance, "The node has no work; it is taken away.")
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
