"""Carry one plan out, wave by wave: launch, wait for Ready, cordon, drain, terminate, verify.

A tick looks only at rows: steps, their actions, and what the agent and the scans reported. It requests
actions and never waits. Each change is a turn, committed by itself: a crash between two of them loses
nothing, and nobody waits for a whole tick.
"""

from audit.models import AuditLog
from audit.services import Subject, record
from clusters.models import Action
from policies.domain.document import resolve
from policies.domain.plan import Launch, Refusal, Wave
from policies.domain.progress import (
    PATIENT_REFUSALS,
    RECHECK_PATIENCE,
    SILENT_AGENT,
    WAIT_CODES,
    falls_short,
)
from policies.domain.revalidation import recheck_wave
from policies.models import Plan, PlanStep
from policies.selectors.snapshot import cluster_snapshot
from policies.services.cleanup import Cleanup
from policies.services.following import Follower
from policies.services.policies import default_policy_for, surges_single_replicas
from policies.services.run import FINAL, Kind, PlanRun, Status, waiting_pods
from spotopt.core.errors import GuardrailViolated

_ACTION_KIND = {
    Kind.LAUNCH: Action.Kind.LAUNCH_NODE,
    Kind.CORDON: Action.Kind.CORDON_NODE,
    Kind.DRAIN: Action.Kind.DRAIN_NODE,
    Kind.TERMINATE: Action.Kind.TERMINATE_INSTANCE,
}


class Conductor:
    """One tick of one plan; no other worker may be at it."""

    def __init__(self, plan: Plan) -> None:
        self._run = PlanRun(plan)
        self._follower = Follower(self._run)
        self._held: set[str] = set()

    def tick(self) -> None:
        """Take in what happened since the last tick, then start whatever may start now."""
        run = self._run
        if run.plan.status == Plan.Status.APPROVED:
            self._start()
        for step in run.steps:
            if step.status == Status.RUNNING:
                with run.turn():
                    self._follower.follow(step)
        if run.is_running:
            self._watch_agent()
        if run.is_running:
            self._advance_waves()
        if run.plan.status == Plan.Status.STOPPING or self._is_finished():
            self._wind_up()

    # --- the start -------------------------------------------------------------------------------

    def _start(self) -> None:
        run = self._run
        for removal in (removal for wave in run.waves for removal in wave.removals):
            if run.plan.status == Plan.Status.APPROVED:
                with run.turn():
                    self._steer_away(removal.node_id, removal.instance_id)
        if run.plan.status != Plan.Status.APPROVED:
            return
        with run.turn():
            run.plan.status, run.plan.started_at = Plan.Status.RUNNING, run.now
            run.plan.waiting_before = waiting_pods(run.cluster.pk)
            run.plan.save(update_fields=["status", "started_at", "waiting_before", "updated_at"])
            run.announce()

    def _steer_away(self, node_name: str, instance_id: str) -> None:
        """Ask the scheduler to prefer other nodes, so that no evicted pod lands where it must leave again."""
        try:
            self._run.request(
                Action.Kind.SOFT_CORDON_NODE,
                node_name,
                {"node_name": node_name, "instance_id": instance_id},
                "The plan removes this node; new pods should prefer others.",
                f"{self._run.plan.pk}:steer:{node_name}",
            )
        except GuardrailViolated as refusal:
            self._run.stop(refusal.detail)

    # --- waves -------------------------------------------------------------------------------------

    def _watch_agent(self) -> None:
        seen = self._run.cluster.snapshot_at
        if seen is None or self._run.now - seen > SILENT_AGENT:
            with self._run.turn():
                self._run.stop("The agent has been silent for ten minutes.")

    def _advance_waves(self) -> None:
        for number, wave in enumerate(self._run.waves, start=1):
            if not self._launch(number, wave):
                return  # the next wave's nodes are bought when this wave's are Ready
            if self._run.wave_is_over(number):
                continue
            self._remove(number, wave)
            if (
                self._run.is_running
                and number < len(self._run.waves)
                and not self._run.open_steps(number, Kind.LAUNCH)
            ):
                self._launch(number + 1, self._run.waves[number])
            return

    def _launch(self, number: int, wave: Wave) -> bool:
        """Request the wave's launches while the agent reports; tell whether all of them are over."""
        launches = {launch.id: launch for launch in wave.launches}
        steps = self._run.open_steps(number, Kind.LAUNCH)
        planned = [step for step in steps if step.status == Status.PLANNED]
        if planned and self._run.is_fresh(None) and self._is_still_worth_it(wave):
            for step in planned:
                if self._run.is_running:
                    self._begin(step, _launch_params(launches[step.target]), "Room for pods that move.")
        return not self._run.open_steps(number, Kind.LAUNCH)

    def _is_still_worth_it(self, wave: Wave) -> bool:
        """Stop the plan before it buys what would no longer save what it promised."""
        promised, expected = self._run.prospect(wave)
        if not falls_short(promised=promised, achieved=expected):
            return True
        with self._run.turn():
            self._run.stop(
                f"Prices rose: the next wave would save ${expected:.4f}/h of the ${promised:.4f}/h promised."
            )
        return False

    def _remove(self, number: int, wave: Wave) -> None:
        if not self._run.is_fresh(self._run.last_finished(number, Kind.LAUNCH)):
            return
        self._recheck(number, wave)
        for step in self._run.open_steps(number):
            if step.status == Status.PLANNED and self._may_begin(step):
                self._begin_removal(step)
                if not self._run.is_running:
                    return

    def _recheck(self, number: int, wave: Wave) -> None:
        """Look once more, on fresh state, at the removals of the wave that have not begun."""
        waiting = {
            s.target: s for s in self._run.open_steps(number, Kind.CORDON) if s.status == Status.PLANNED
        }
        if not waiting:
            return
        unfinished = {s.target for s in self._run.open_steps(number, Kind.TERMINATE)}
        rest = Wave(wave.launches, tuple(r for r in wave.removals if r.node_id in unfinished))
        policy = default_policy_for(self._run.cluster)
        refusals = recheck_wave(
            snapshot=cluster_snapshot(self._run.cluster.pk),
            wave=rest,
            launched_node_ids=self._run.node_names(number),
            rules=resolve(policy.config, policy.template),
            now=self._run.now,
            begun=frozenset(unfinished - waiting.keys()),
        )
        self._held = {refusal.subject for refusal in refusals}
        for refusal in refusals:
            if refusal.subject in waiting:
                with self._run.turn():
                    self._refuse(waiting[refusal.subject], refusal, number)

    def _refuse(self, step: PlanStep, refusal: Refusal, number: int) -> None:
        """Have the removal wait for what may lift, else leave its node alone; called in a turn."""
        since = self._run.last_finished(number, Kind.LAUNCH) or self._run.plan.started_at or self._run.now
        if refusal.code in PATIENT_REFUSALS and self._run.now - since < RECHECK_PATIENCE:
            self._run.note(step, refusal.reason)
            return
        self._run.close(step, Status.REFUSED, refusal.reason)
        self._follower.skip_node(step, refusal.reason)

    def _may_begin(self, step: PlanStep) -> bool:
        if step.kind == Kind.CORDON:
            return step.target not in self._held
        earlier = [s for s in self._run.steps if s.wave == step.wave and s.seq < step.seq]
        if step.kind == Kind.VERIFY:
            return all(s.status in FINAL for s in earlier)
        own = [s for s in earlier if s.target == step.target]
        return all(s.status == Status.COMPLETED for s in own)

    def _begin_removal(self, step: PlanStep) -> None:
        if step.kind == Kind.VERIFY:
            with self._run.turn():
                self._run.open(step, action=None)
            return
        drained_at = self._run.last_finished(step.wave, Kind.DRAIN, step.target)
        if step.kind == Kind.TERMINATE and not self._run.is_fresh(drained_at):
            return
        params = dict(step.params)
        if step.kind == Kind.DRAIN and surges_single_replicas(self._run.cluster):
            params["surge"] = True
        self._begin(step, params, step.params.get("reason", ""))

    def _begin(self, step: PlanStep, params: dict[str, object], reason: str) -> None:
        with self._run.turn():
            try:
                action = self._run.request(
                    _ACTION_KIND[Kind(step.kind)],
                    step.target,
                    params,
                    reason,
                    f"{self._run.plan.pk}:{step.seq}:{step.attempts + 1}",
                )
            except GuardrailViolated as refusal:
                self._refused_at_once(step, refusal)
            else:
                step.attempts += 1
                self._run.open(step, action)

    def _refused_at_once(self, step: PlanStep, refusal: GuardrailViolated) -> None:
        code = str(refusal.extra.get("code", ""))
        step.attempts += code not in WAIT_CODES  # waiting for room in a budget is no attempt
        step.started_at = step.started_at or self._run.now
        self._follower.after_failure(step, code, refusal.detail)

    # --- the end -------------------------------------------------------------------------------------

    def _is_finished(self) -> bool:
        return self._run.is_running and all(step.status in FINAL for step in self._run.steps)

    def _wind_up(self) -> None:
        run, plan = self._run, self._run.plan
        if any(s.status == Status.RUNNING and s.kind != Kind.VERIFY for s in run.steps):
            return
        with run.turn():
            for step in run.steps:
                if step.status not in FINAL:
                    run.close(step, Status.SKIPPED, plan.stop_reason)
        left = Cleanup(plan=plan, waves=run.waves, actor=run.actor, now=run.now).tick()
        if left is None:
            return
        with run.turn():
            stopped = plan.status == Plan.Status.STOPPING
            plan.status = Plan.Status.STOPPED if stopped else Plan.Status.COMPLETED
            plan.finished_at = run.now
            plan.stop_reason = " ".join(filter(None, [plan.stop_reason, left]))[:500]
            plan.save(update_fields=["status", "finished_at", "stop_reason", "updated_at"])
            run.announce()
            self._record_end()

    def _record_end(self) -> None:
        run, plan = self._run, self._run.plan
        promised, achieved = run.savings_until(len(run.waves))
        done = plan.status == Plan.Status.COMPLETED
        verb = "Completed" if done else "Stopped safely"
        kept = sum(s.kind == Kind.TERMINATE and s.status != Status.COMPLETED for s in run.steps)
        left_out = f", {kept} removal{'' if kept == 1 else 's'} left out" if done and kept else ""
        record(
            actor=run.actor,
            event=f"policies.plan.{plan.status}",
            sentence=f"{verb} the plan for {run.cluster.name}{left_out}: saves ${achieved:.4f}/h",
            subject=Subject("cluster", str(run.cluster.pk), run.cluster.name),
            outcome=AuditLog.Outcome.SUCCESS if done else AuditLog.Outcome.FAILED,
            cluster_id=run.cluster.pk,
            account_id=run.cluster.account_id,
            after={"plan_id": str(plan.pk), "promised": str(promised), "reason": plan.stop_reason},
            usd_per_hour=achieved,
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
