"""One plan in one tick: its rows, read once, and the small changes that every part of a tick makes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from clusters.domain.interruptions import TAKEN_BACK
from clusters.models import Action, Instance, Workload
from clusters.selectors.guard import ALIVE
from clusters.services.actions import cancel_pending, request_action
from policies.domain import planfile
from policies.domain.plan import Launch, Wave
from policies.domain.progress import FRESH_SNAPSHOT
from policies.models import Plan, PlanStep
from policies.selectors.snapshot import quotes
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.live import announce

Kind, Status = PlanStep.Kind, PlanStep.Status
FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.REFUSED, Status.SKIPPED, Status.ROLLED_BACK})


def usd_today(region: str, launches: Iterable[Launch]) -> Decimal:
    """Return what the launches cost now, in USD per hour; the quoted price where none is known."""
    bought = {launch.id: launch for launch in launches}
    pools = {
        name: (each.zone_id, each.instance_type, each.capacity_type.value) for name, each in bought.items()
    }
    today = quotes(region, pools)
    return sum((today.get(name, each.usd_per_hour) for name, each in bought.items()), Decimal(0))


class PlanMoved(Exception):
    """Somebody moved the plan since the tick read it; the next tick takes that in."""


def waiting_pods(cluster_id: UUID) -> dict[str, int]:
    """Return how many pods of each workload wait for a place, by the workload's key."""
    rows = Workload.objects.filter(cluster_id=cluster_id, pending_replicas__gt=0)
    return dict(rows.values_list("key", "pending_replicas"))


def displaced_pods(plan: Plan) -> int:
    """Return how many pods wait for a place that did not when the plan began, workload by workload."""
    waiting = waiting_pods(plan.cluster_id)
    return sum(max(0, count - plan.waiting_before.get(key, 0)) for key, count in waiting.items())


class PlanRun:
    """The plan, its steps and its launched nodes; each change is made in a turn, or under the row's lock."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cluster = plan.cluster
        self.now = utcnow()
        self.actor = Actor.system(plan.organization_id)
        self.waves = planfile.waves_from_json(plan.document["waves"])
        self.steps = list(plan.steps.select_related("action").order_by("seq"))
        self.launched = {
            row.launch_action_id: row
            for row in Instance.objects.filter(
                launch_action_id__in=[step.action_id for step in self.steps if step.kind == Kind.LAUNCH]
            )
        }

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the plan for one small change and commit it; raise PlanMoved when it is not as it was read.

        Short, because an event locks the organization's record until the commit.
        """
        with transaction.atomic():
            rows = Plan.objects.select_for_update(of=("self",), no_key=True).filter(pk=self.plan.pk)
            if rows.values_list("status", flat=True).get() != self.plan.status:
                raise PlanMoved
            yield

    @property
    def is_running(self) -> bool:
        """Tell whether new work may start."""
        return self.plan.status == Plan.Status.RUNNING

    def stop(self, reason: str, *, code: str = "") -> None:
        """Start nothing more; what runs is let finish and what is half done is put back."""
        if self.plan.status == Plan.Status.STOPPING:
            return
        self.plan.status, self.plan.stop_reason = Plan.Status.STOPPING, reason[:500]
        self.plan.stop_code = code
        self.plan.save(update_fields=["status", "stop_reason", "stop_code", "updated_at"])
        cancel_pending(plan_id=self.plan.pk, actor=self.actor)
        self.announce()

    def prospect(self, wave: Wave) -> tuple[Decimal, Decimal]:
        """Return what a wave promised to save and what it would at today's prices, in USD per hour."""
        removed = sum((removal.usd_per_hour for removal in wave.removals), Decimal(0))
        quoted = sum((launch.usd_per_hour for launch in wave.launches), Decimal(0))
        return removed - quoted, removed - usd_today(self.cluster.region, wave.launches)

    def savings_until(self, wave_number: int) -> tuple[Decimal, Decimal]:
        """Return what the waves up to this one promised and what they achieved, both in USD per hour."""
        done = self.waves[:wave_number]
        promised = sum((r.usd_per_hour for w in done for r in w.removals), Decimal(0)) - sum(
            (launch.usd_per_hour for w in done for launch in w.launches), Decimal(0)
        )
        return promised, self._removed(wave_number) - self._bought(wave_number)

    def _removed(self, wave_number: int) -> Decimal:
        """Return what the nodes cost that the plan took away; one that AWS took first is no saving of it."""
        done = {
            s.params["instance_id"]: s.usd_per_hour
            for s in self.steps
            if s.kind == Kind.TERMINATE and s.status == Status.COMPLETED and s.wave <= wave_number
        }
        rows = Instance.objects.filter(cluster=self.cluster, instance_id__in=done)
        ours = rows.exclude(termination_reason__contains=TAKEN_BACK).values_list("instance_id", flat=True)
        return sum((done[instance_id] for instance_id in ours), Decimal(0))

    def _bought(self, wave_number: int) -> Decimal:
        """Return what all living nodes cost that the plan launched, the quoted price while none is known.

        A launch that was tried again may have made two; what replaced one that AWS took stands in for it.
        """
        quoted = {
            s.target: s.usd_per_hour for s in self.steps if s.kind == Kind.LAUNCH and s.wave <= wave_number
        }
        launches = Action.objects.filter(
            plan_id=self.plan.pk, kind=Action.Kind.LAUNCH_NODE, target__in=quoted
        )
        usd: dict[UUID | None, Decimal] = {launch.pk: quoted[launch.target] for launch in launches}
        reactions = Action.objects.filter(cluster=self.cluster, kind=Action.Kind.LAUNCH_NODE, plan_id=None)
        stand_in = Q(changed_by_plan_id=self.plan.pk, launch_action_id__in=reactions.values("pk"))
        rows = Instance.objects.filter(Q(launch_action_id__in=usd) | stand_in, state__in=ALIVE)
        prices = [usd.get(row.launch_action_id) if row.price is None else row.price for row in rows]
        return sum((price for price in prices if price is not None), Decimal(0))

    def request(self, kind: str, target: str, params: dict[str, object], reason: str, key: str) -> Action:
        """Request an action of the plan; raise GuardrailViolated when the safety floor forbids it."""
        return request_action(
            cluster=self.cluster,
            kind=kind,
            target=target,
            params=params,
            reason=reason,
            actor=self.actor,
            idempotency_key=key,
            plan_id=self.plan.pk,
        )

    def open_steps(self, wave: int, kind: str | None = None) -> list[PlanStep]:
        """Return the steps of a wave, of one kind if given, that are not over."""
        return [s for s in self.steps if s.wave == wave and s.status not in FINAL and kind in (None, s.kind)]

    def wave_is_over(self, wave: int) -> bool:
        """Tell whether every step of the wave is over."""
        return not self.open_steps(wave)

    def node_names(self, wave: int) -> dict[str, str]:
        """Return the node that each launch up to this wave became, by the name of the launch."""
        rows = {
            s.target: self.launched.get(s.action_id)
            for s in self.steps
            if s.wave <= wave and s.kind == Kind.LAUNCH
        }
        return {target: row.node_name for target, row in rows.items() if row is not None and row.node_name}

    def last_finished(self, wave: int, kind: str, target: str | None = None) -> datetime | None:
        """Return when the last step of the kind ended in the wave, for one target if given."""
        return max(
            self._finish_times(
                s for s in self.steps if s.wave == wave and s.kind == kind and target in (None, s.target)
            ),
            default=None,
        )

    @staticmethod
    def _finish_times(steps: Iterable[PlanStep]) -> Iterator[datetime]:
        return (s.finished_at for s in steps if s.finished_at is not None)

    def is_fresh(self, since: datetime | None) -> bool:
        """Tell whether the agent has reported after ``since``, and lately."""
        seen = self.cluster.snapshot_at
        return seen is not None and self.now - seen <= FRESH_SNAPSHOT and (since is None or seen > since)

    def open(self, step: PlanStep, action: Action | None) -> None:
        """Begin the step, with the action that carries it out."""
        step.status, step.action, step.note = Status.RUNNING, action, ""
        step.started_at = step.started_at or self.now
        step.save(update_fields=["status", "action", "attempts", "note", "started_at", "updated_at"])
        self.announce()

    def reopen(self, step: PlanStep, note: str) -> None:
        """Put the step back to be begun again."""
        step.status, step.note = Status.PLANNED, note[:500]
        step.save(update_fields=["status", "attempts", "note", "started_at", "updated_at"])

    def close(self, step: PlanStep, status: str, note: str = "") -> None:
        """End the step."""
        step.status, step.finished_at = status, self.now
        step.note = note[:500] or step.note
        step.save(update_fields=["status", "finished_at", "note", "updated_at"])
        self.announce()

    def note(self, step: PlanStep, note: str) -> None:
        """Say on the step why it waits."""
        if step.note != note[:500]:
            step.note = note[:500]
            step.save(update_fields=["note", "updated_at"])

    def announce(self) -> None:
        """Tell open pages that the plan moved."""
        announce(
            organization_id=self.plan.organization_id,
            topic="plan",
            plan_id=str(self.plan.pk),
            cluster_id=str(self.cluster.pk),
        )
