"""Carry one plan out, wave by wave: launch, wait for Ready, cordon, drain, terminate, verify.

A tick looks only at rows: steps, their actions, and what the agent and the scans reported. It requests
actions and never waits, so that a crash between two ticks loses nothing.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal

from audit.models import AuditLog
from audit.services import Subject, record
from clusters.models import Action, Instance
from clusters.services.actions import cancel_pending, request_action
from policies.domain import planfile
from policies.domain.document import resolve
from policies.domain.plan import Launch, Refusal, Wave
from policies.domain.progress import (
    FRESH_SNAPSHOT,
    PATIENT_REFUSALS,
    READY_TIMEOUT,
    RECHECK_PATIENCE,
    SETTLE_TIMEOUT,
    SILENT_AGENT,
    Turn,
    after_failure,
    falls_short,
)
from policies.domain.revalidation import recheck_wave
from policies.models import Plan, PlanStep
from policies.selectors.snapshot import cluster_snapshot
from policies.services.cleanup import Cleanup
from policies.services.policies import default_policy_for
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import GuardrailViolated
from spotopt.core.live import announce

Kind, Status = PlanStep.Kind, PlanStep.Status
FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.REFUSED, Status.SKIPPED, Status.ROLLED_BACK})
_ENDED_BADLY = frozenset(
    {Action.Status.FAILED, Action.Status.REFUSED, Action.Status.EXPIRED, Action.Status.CANCELLED}
)
_ACTION_KIND = {
    Kind.LAUNCH: Action.Kind.LAUNCH_NODE,
    Kind.CORDON: Action.Kind.CORDON_NODE,
    Kind.DRAIN: Action.Kind.DRAIN_NODE,
    Kind.TERMINATE: Action.Kind.TERMINATE_INSTANCE,
}


class Conductor:
    """One tick of one plan; the caller holds the plan's row lock."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.cluster = plan.cluster
        self.now = utcnow()
        self.actor = Actor.system(plan.organization_id)
        self._held: set[str] = set()
        self.waves = planfile.waves_from_json(plan.document["waves"])
        self.steps = list(plan.steps.select_related("action").order_by("seq"))
        self.launched = {
            row.launch_action_id: row
            for row in Instance.objects.filter(
                launch_action_id__in=[step.action_id for step in self.steps if step.kind == Kind.LAUNCH]
            )
        }

    def tick(self) -> None:
        """Take in what happened since the last tick, then start whatever may start now."""
        if self.plan.status == Plan.Status.APPROVED:
            self._start()
        for step in self.steps:
            if step.status == Status.RUNNING:
                self._follow(step)
        if self.plan.status == Plan.Status.RUNNING:
            self._watch_agent()
        if self.plan.status == Plan.Status.RUNNING:
            self._advance_waves()
        if self.plan.status == Plan.Status.STOPPING or self._is_finished():
            self._wind_up()

    def stop(self, reason: str) -> None:
        """Start nothing more; what runs is let finish and what is half done is put back."""
        if self.plan.status == Plan.Status.STOPPING:
            return
        self.plan.status, self.plan.stop_reason = Plan.Status.STOPPING, reason[:500]
        self.plan.save(update_fields=["status", "stop_reason", "updated_at"])
        cancel_pending(plan_id=self.plan.pk, actor=self.actor)
        self._announce()

    # --- the start -------------------------------------------------------------------------------

    def _start(self) -> None:
        self.plan.status, self.plan.started_at = Plan.Status.RUNNING, self.now
        self.plan.document["pending_before"] = self.cluster.pending_pods
        self.plan.save(update_fields=["status", "started_at", "document", "updated_at"])
        for wave in self.waves:
            for removal in wave.removals:
                self._steer_away(removal.node_id, removal.instance_id)
        self._announce()

    def _steer_away(self, node_name: str, instance_id: str) -> None:
        """Ask the scheduler to prefer other nodes, so that no evicted pod lands where it must leave again."""
        try:
            self._request(
                Action.Kind.SOFT_CORDON_NODE,
                node_name,
                {"node_name": node_name, "instance_id": instance_id},
                "The plan removes this node; new pods should prefer others.",
                f"{self.plan.pk}:steer:{node_name}",
            )
        except GuardrailViolated as refusal:
            self.stop(refusal.detail)

    # --- taking in what happened -------------------------------------------------------------------

    def _follow(self, step: PlanStep) -> None:
        if step.kind == Kind.VERIFY:
            self._verify(step)
            return
        action = step.action
        if action is None:
            return
        if action.status in _ENDED_BADLY:
            self._after_failure(step, action.error_code, action.error_message)
        elif action.status == Action.Status.SUCCEEDED:
            if step.kind == Kind.LAUNCH:
                self._follow_boot(step, action)
            else:
                self._close(step, Status.COMPLETED)

    def _follow_boot(self, step: PlanStep, action: Action) -> None:
        instance = self.launched.get(action.pk)
        if instance is not None and instance.is_ready:
            self._close(step, Status.COMPLETED, f"{instance.instance_type} in {instance.az} is Ready.")
        elif action.finished_at and self.now - action.finished_at > READY_TIMEOUT:
            self._after_failure(step, "not_ready", "The node did not become Ready within five minutes.")

    def _after_failure(self, step: PlanStep, code: str, message: str) -> None:
        waited = self.now - (step.started_at or self.now)
        turn = after_failure(kind=step.kind, error_code=code, attempts=step.attempts, waited=waited)
        if code == "node_unknown":
            self._close(step, Status.SKIPPED, "The node is gone already.")
            self._skip_node(step, "The node is gone already.")
        elif self.plan.status == Plan.Status.STOPPING:
            self._close(step, Status.FAILED, message)
        elif turn in (Turn.WAIT, Turn.RETRY):
            self._reopen(step, message)
        else:
            self._close(step, Status.FAILED, message)
            self._skip_node(step, message)
            if turn is Turn.STOP_PLAN:
                self.stop(f"{step.get_kind_display()} {step.target} failed: {message}")

    def _skip_node(self, step: PlanStep, message: str) -> None:
        """Leave the node of a failed cordon or drain alone: its later steps do not happen."""
        for other in self._open_steps(step.wave):
            if other.target == step.target and other.seq > step.seq:
                self._close(other, Status.SKIPPED, message)

    # --- waves -------------------------------------------------------------------------------------

    def _watch_agent(self) -> None:
        seen = self.cluster.snapshot_at
        if seen is None or self.now - seen > SILENT_AGENT:
            self.stop("The agent has been silent for ten minutes.")

    def _advance_waves(self) -> None:
        for number, wave in enumerate(self.waves, start=1):
            if not self._launch(number, wave):
                return  # the next wave's nodes are bought when this wave's are Ready
            if self._wave_is_over(number):
                continue
            self._remove(number, wave)
            if number < len(self.waves) and not self._open_steps(number, Kind.LAUNCH):
                self._launch(number + 1, self.waves[number])
            return

    def _launch(self, number: int, wave: Wave) -> bool:
        """Request the wave's launches; tell whether all of them are over."""
        launches = {launch.id: launch for launch in wave.launches}
        for step in self._open_steps(number, Kind.LAUNCH):
            if step.status == Status.PLANNED:
                self._begin(step, _launch_params(launches[step.target]), "Room for pods that move.")
        return not self._open_steps(number, Kind.LAUNCH)

    def _remove(self, number: int, wave: Wave) -> None:
        if not self._is_fresh(self._last_finished(number, Kind.LAUNCH)):
            return
        self._recheck(number, wave)
        for step in self._open_steps(number):
            if step.status == Status.PLANNED and self._may_begin(step):
                self._begin_removal(step)
                if self.plan.status != Plan.Status.RUNNING:
                    return

    def _recheck(self, number: int, wave: Wave) -> None:
        """Look once more, on fresh state, at the removals of the wave that have not begun."""
        waiting = {s.target: s for s in self._open_steps(number, Kind.CORDON) if s.status == Status.PLANNED}
        if not waiting:
            return
        rest = Wave(wave.launches, tuple(r for r in wave.removals if r.node_id in waiting))
        policy = default_policy_for(self.cluster)
        refusals = recheck_wave(
            snapshot=cluster_snapshot(self.cluster.pk),
            wave=rest,
            launched_node_ids=self._node_names(number),
            rules=resolve(policy.config, policy.template),
            now=self.now,
        )
        self._held = {refusal.subject for refusal in refusals}
        for refusal in refusals:
            if refusal.subject in waiting:
                self._refuse(waiting[refusal.subject], refusal, number)

    def _refuse(self, step: PlanStep, refusal: Refusal, number: int) -> None:
        since = self._last_finished(number, Kind.LAUNCH) or self.plan.started_at or self.now
        if refusal.code in PATIENT_REFUSALS and self.now - since < RECHECK_PATIENCE:
            self._note(step, refusal.reason)
            return
        self._close(step, Status.REFUSED, refusal.reason)
        self._skip_node(step, refusal.reason)

    def _may_begin(self, step: PlanStep) -> bool:
        if step.kind == Kind.CORDON:
            return step.target not in self._held
        earlier = [s for s in self.steps if s.wave == step.wave and s.seq < step.seq]
        if step.kind == Kind.VERIFY:
            return all(s.status in FINAL for s in earlier)
        own = [s for s in earlier if s.target == step.target]
        return all(s.status == Status.COMPLETED for s in own)

    def _begin_removal(self, step: PlanStep) -> None:
        if step.kind == Kind.VERIFY:
            self._open(step, action=None)
            return
        drained_at = self._last_finished(step.wave, Kind.DRAIN, step.target)
        if step.kind == Kind.TERMINATE and not self._is_fresh(drained_at):
            return
        self._begin(step, dict(step.params), step.params.get("reason", ""))

    def _begin(self, step: PlanStep, params: dict[str, object], reason: str) -> None:
        step.attempts += 1
        try:
            action = self._request(
                _ACTION_KIND[Kind(step.kind)],
                step.target,
                params,
                reason,
                f"{self.plan.pk}:{step.seq}:{step.attempts}",
            )
        except GuardrailViolated as refusal:
            step.started_at = step.started_at or self.now
            self._after_failure(step, str(refusal.extra.get("code", "")), refusal.detail)
            return
        self._open(step, action)

    def _verify(self, step: PlanStep) -> None:
        """Finish the wave when every pod has a place again; stop when they do not find one."""
        others = [s for s in self.steps if s.wave == step.wave and s.pk != step.pk]
        last = max((s.finished_at for s in others if s.finished_at), default=None)
        if not self._is_fresh(last):
            return
        pending = self.cluster.pending_pods - self.plan.document.get("pending_before", 0)
        if pending > 0:
            if self.now - (step.started_at or self.now) > SETTLE_TIMEOUT:
                self._close(step, Status.FAILED, f"{pending} pods found no place.")
                self.stop(f"{pending} pods found no place after wave {step.wave}.")
            return
        promised, achieved = self._savings_until(step.wave)
        self._close(
            step, Status.COMPLETED, f"Saves ${achieved:.4f}/h so far; ${promised:.4f}/h was promised."
        )
        if falls_short(promised=promised, achieved=achieved):
            self.stop(f"The waves so far save ${achieved:.4f}/h of the ${promised:.4f}/h promised.")

    def _savings_until(self, wave_number: int) -> tuple[Decimal, Decimal]:
        done = self.waves[:wave_number]
        promised = sum((r.usd_per_hour for w in done for r in w.removals), Decimal(0)) - sum(
            (launch.usd_per_hour for w in done for launch in w.launches), Decimal(0)
        )
        removed = sum(
            (
                s.usd_per_hour
                for s in self.steps
                if s.kind == Kind.TERMINATE and s.status == Status.COMPLETED and s.wave <= wave_number
            ),
            Decimal(0),
        )
        bought = {s.action_id for s in self.steps if s.kind == Kind.LAUNCH and s.wave <= wave_number}
        paid = sum(
            (row.price or Decimal(0) for key, row in self.launched.items() if key in bought), Decimal(0)
        )
        return promised, removed - paid

    # --- the end -------------------------------------------------------------------------------------

    def _is_finished(self) -> bool:
        return self.plan.status == Plan.Status.RUNNING and all(s.status in FINAL for s in self.steps)

    def _wind_up(self) -> None:
        if any(s.status == Status.RUNNING and s.kind != Kind.VERIFY for s in self.steps):
            return
        for step in self.steps:
            if step.status not in FINAL:
                self._close(step, Status.SKIPPED, self.plan.stop_reason)
        left = Cleanup(plan=self.plan, waves=self.waves, actor=self.actor, now=self.now).tick()
        if left is None:
            return
        stopped = self.plan.status == Plan.Status.STOPPING
        self.plan.status = Plan.Status.STOPPED if stopped else Plan.Status.COMPLETED
        self.plan.finished_at = self.now
        self.plan.stop_reason = " ".join(filter(None, [self.plan.stop_reason, left]))[:500]
        self.plan.save(update_fields=["status", "finished_at", "stop_reason", "updated_at"])
        self._announce()
        self._record_end()

    def _record_end(self) -> None:
        promised, achieved = self._savings_until(len(self.waves))
        done = self.plan.status == Plan.Status.COMPLETED
        verb = "Completed" if done else "Stopped safely"
        record(
            actor=self.actor,
            event=f"policies.plan.{self.plan.status}",
            sentence=f"{verb} the plan for {self.cluster.name}: saves ${achieved:.4f}/h",
            subject=Subject("cluster", str(self.cluster.pk), self.cluster.name),
            outcome=AuditLog.Outcome.SUCCESS if done else AuditLog.Outcome.FAILED,
            cluster_id=self.cluster.pk,
            account_id=self.cluster.account_id,
            after={"plan_id": str(self.plan.pk), "promised": str(promised), "reason": self.plan.stop_reason},
            usd_per_hour=achieved,
        )

    # --- small pieces ----------------------------------------------------------------------------------

    def _request(self, kind: str, target: str, params: dict[str, object], reason: str, key: str) -> Action:
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

    def _open_steps(self, wave: int, kind: str | None = None) -> list[PlanStep]:
        return [s for s in self.steps if s.wave == wave and s.status not in FINAL and kind in (None, s.kind)]

    def _wave_is_over(self, wave: int) -> bool:
        return not self._open_steps(wave)

    def _node_names(self, wave: int) -> dict[str, str]:
        rows = {
            s.target: self.launched.get(s.action_id)
            for s in self.steps
            if s.wave <= wave and s.kind == Kind.LAUNCH
        }
        return {target: row.node_name for target, row in rows.items() if row is not None and row.node_name}

    def _last_finished(self, wave: int, kind: str, target: str | None = None) -> datetime | None:
        return max(
            self._finish_times(
                s for s in self.steps if s.wave == wave and s.kind == kind and target in (None, s.target)
            ),
            default=None,
        )

    @staticmethod
    def _finish_times(steps: Iterable[PlanStep]) -> Iterator[datetime]:
        return (s.finished_at for s in steps if s.finished_at is not None)

    def _is_fresh(self, since: datetime | None) -> bool:
        """Tell whether the agent has reported after ``since``, and lately."""
        seen = self.cluster.snapshot_at
        return seen is not None and self.now - seen <= FRESH_SNAPSHOT and (since is None or seen > since)

    def _open(self, step: PlanStep, action: Action | None) -> None:
        step.status, step.action, step.note = Status.RUNNING, action, ""
        step.started_at = step.started_at or self.now
        step.save(update_fields=["status", "action", "attempts", "note", "started_at", "updated_at"])
        self._announce()

    def _reopen(self, step: PlanStep, note: str) -> None:
        step.status, step.note = Status.PLANNED, note[:500]
        step.save(update_fields=["status", "attempts", "note", "started_at", "updated_at"])

    def _close(self, step: PlanStep, status: str, note: str = "") -> None:
        step.status, step.finished_at = status, self.now
        step.note = note[:500] or step.note
        step.save(update_fields=["status", "finished_at", "note", "updated_at"])
        self._announce()

    def _note(self, step: PlanStep, note: str) -> None:
        if step.note != note[:500]:
            step.note = note[:500]
            step.save(update_fields=["note", "updated_at"])

    def _announce(self) -> None:
        announce(
            organization_id=self.plan.organization_id,
            topic="plan",
            plan_id=str(self.plan.pk),
            cluster_id=str(self.cluster.pk),
        )


def _launch_params(launch: Launch) -> dict[str, object]:
    return {
        "instance_type": launch.instance_type,
        "zone": launch.zone,
        "zone_id": launch.zone_id,
        "capacity_type": launch.capacity_type.value,
        "usd_per_hour": str(launch.usd_per_hour),
        "alternatives": list(launch.alternatives),
    }
