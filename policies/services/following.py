"""Take in what became of a running plan's steps: actions that ended, nodes that booted, pods that settled."""

from datetime import datetime

from clusters.models import Action, Instance
from policies.domain.progress import SAVINGS_SHORT, SETTLE_TIMEOUT, Turn, falls_short, is_late
from policies.domain.progress import after_failure as turn_after_failure
from policies.models import Plan, PlanStep
from policies.services.run import Kind, PlanRun, Status, displaced_pods

_ENDED_BADLY = frozenset(
    {Action.Status.FAILED, Action.Status.REFUSED, Action.Status.EXPIRED, Action.Status.CANCELLED}
)


class Follower:
    """Moves each running step on by what was observed; requests nothing."""

    def __init__(self, run: PlanRun) -> None:
        self._run = run

    def follow(self, step: PlanStep) -> None:
        """Close, reopen or keep waiting for a running step, as its action or the cluster says."""
        if step.kind == Kind.VERIFY:
            self._verify(step)
            return
        action = step.action
        if action is None:
            return
        if action.status in _ENDED_BADLY:
            self.after_failure(step, action.error_code, action.error_message)
        elif action.status == Action.Status.SUCCEEDED:
            if step.kind == Kind.LAUNCH:
                self._follow_boot(step, action)
            else:
                self._run.close(step, Status.COMPLETED)

    def _follow_boot(self, step: PlanStep, action: Action) -> None:
        instance = self._run.launched.get(action.pk)
        if instance is not None and instance.state == Instance.State.TERMINATED:
            self.after_failure(step, "interrupted", "AWS took the node back before it was Ready.")
        elif instance is not None and instance.is_ready:
            self._run.close(step, Status.COMPLETED, f"{instance.instance_type} in {instance.az} is Ready.")
        elif is_late(launched_at=action.finished_at, seen_at=self._seen_at()):
            self.after_failure(step, "not_ready", "The node did not become Ready within five minutes.")

    def _seen_at(self) -> datetime | None:
        """Return up to when the nodes are known; a plan that stops waits for no silent agent."""
        return self._run.cluster.snapshot_at if self._run.is_running else self._run.now

    def after_failure(self, step: PlanStep, code: str, message: str) -> None:
        """Wait, try again, give up or stop the plan, after an action that was refused, failed or expired."""
        waited = self._run.now - (step.started_at or self._run.now)
        turn = turn_after_failure(kind=step.kind, error_code=code, attempts=step.attempts, waited=waited)
        if code == "node_unknown":
            self._run.close(step, Status.SKIPPED, "The node is gone already.")
            self.skip_node(step, "The node is gone already.")
        elif self._run.plan.status == Plan.Status.STOPPING:
            self._run.close(step, Status.FAILED, message)
        elif turn in (Turn.WAIT, Turn.RETRY):
            self._run.reopen(step, message)
        else:
            self._run.close(step, Status.FAILED, message)
            self.skip_node(step, message)
            if turn is Turn.STOP_PLAN:
                self._run.stop(f"{step.get_kind_display()} {step.target} failed: {message}")

    def skip_node(self, step: PlanStep, message: str) -> None:
        """Leave the node of a failed cordon or drain alone: its later steps do not happen."""
        for other in self._run.open_steps(step.wave):
            if other.target == step.target and other.seq > step.seq:
                self._run.close(other, Status.SKIPPED, message)

    def _verify(self, step: PlanStep) -> None:
        """Finish the wave when every pod has a place again; stop when they do not find one."""
        others = [s for s in self._run.steps if s.wave == step.wave and s.pk != step.pk]
        last = max((s.finished_at for s in others if s.finished_at), default=None)
        if not self._run.is_fresh(last):
            return
        pending = displaced_pods(self._run.plan)
        if pending:
            if self._run.now - (step.started_at or self._run.now) > SETTLE_TIMEOUT:
                self._run.close(step, Status.FAILED, f"{pending} pods found no place.")
                self._run.stop(f"{pending} pods found no place after wave {step.wave}.")
            return
        promised, achieved = self._run.savings_until(step.wave)
        self._run.close(
            step, Status.COMPLETED, f"Saves ${achieved:.4f}/h so far; ${promised:.4f}/h was promised."
        )
        if falls_short(promised=promised, achieved=achieved):
            reason = f"The waves so far save ${achieved:.4f}/h of the ${promised:.4f}/h promised."
            self._run.stop(reason, code=SAVINGS_SHORT)
