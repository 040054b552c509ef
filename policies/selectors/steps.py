"""The steps of a plan as its page shows them: in waves, one line for each node."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

from policies.models import PlanStep

_REMOVAL = (PlanStep.Kind.CORDON, PlanStep.Kind.DRAIN, PlanStep.Kind.TERMINATE)
_BOOT, _REMOVE, _CHECK = timedelta(minutes=3), timedelta(minutes=1), timedelta(seconds=30)
"""A rough forecast for the consequences text: nodes boot together, and are removed one after the other."""


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of a plan and how far it has come."""

    seq: int
    kind: str
    label: str
    target: str
    detail: str
    usd_per_hour: Decimal
    status: str
    status_label: str
    note: str
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_running(self) -> bool:
        """Tell whether it is being carried out."""
        return self.status == PlanStep.Status.RUNNING


@dataclass(frozen=True, slots=True)
class Line:
    """What happens to one node: its launch, or its cordon, drain and terminate together."""

    title: str
    icon: str
    target: str
    detail: str
    usd_per_hour: Decimal
    """Positive for a launch, negative for a removal, 0 for neither."""
    status: str
    steps: tuple[StepRow, ...]
    notes: tuple[str, ...]
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class WaveRow:
    """Launches that must be Ready before the removals that follow them."""

    number: int
    steps: tuple[StepRow, ...]
    done: int
    """Steps that did what they should."""
    over: int
    """Steps that are done, skipped, refused, failed or undone."""
    is_current: bool
    """It runs, or it is the first one that is not over."""

    @property
    def lines(self) -> tuple[Line, ...]:
        """Return one line for each node, in the order of its first step."""
        by_target: dict[tuple[bool, str], list[StepRow]] = defaultdict(list)
        for step in self.steps:
            by_target[step.kind in _REMOVAL, step.target].append(step)
        return tuple(_line(steps) for steps in by_target.values())

    @property
    def launches(self) -> int:
        """Return how many nodes the wave buys."""
        return sum(step.kind == PlanStep.Kind.LAUNCH for step in self.steps)

    @property
    def removals(self) -> int:
        """Return how many nodes the wave removes."""
        return sum(step.kind == PlanStep.Kind.TERMINATE for step in self.steps)

    @property
    def expected(self) -> timedelta:
        """Return roughly how long the wave takes: boot of its launches, each removal, the last check."""
        return (_BOOT if self.launches else timedelta(0)) + _REMOVE * self.removals + _CHECK


def waves_of(plan_id: UUID) -> tuple[WaveRow, ...]:
    """Return the waves of a plan in their order (one query)."""
    rows = PlanStep.objects.filter(plan_id=plan_id).order_by("wave", "seq")
    waves: list[WaveRow] = []
    for number, members in groupby(rows, key=lambda row: row.wave):
        steps = tuple(_step(row) for row in members)
        over = sum(step.finished_at is not None for step in steps)
        is_first_open = over < len(steps) and not any(wave.is_current for wave in waves)
        wave = WaveRow(
            number=number,
            steps=steps,
            done=sum(step.status == PlanStep.Status.COMPLETED for step in steps),
            over=over,
            is_current=is_first_open or any(step.is_running for step in steps),
        )
        waves.append(wave)
    return tuple(waves)


def _step(step: PlanStep) -> StepRow:
    params: Mapping[str, Any] = step.params
    parts = [str(params[name]) for name in ("instance_type", "zone") if params.get(name)]
    if params.get("capacity_type"):
        parts.append("spot" if params["capacity_type"] == "spot" else "on-demand")
    return StepRow(
        seq=step.seq,
        kind=step.kind,
        label=step.get_kind_display(),
        target=step.target,
        detail=" · ".join(parts) or str(params.get("reason", "")),
        usd_per_hour=step.usd_per_hour,
        status=step.status,
        status_label=step.get_status_display(),
        note=step.note,
        started_at=step.started_at,
        finished_at=step.finished_at,
    )


def _line(steps: Sequence[StepRow]) -> Line:
    first, last = steps[0], steps[-1]
    sign = {PlanStep.Kind.LAUNCH: 1, PlanStep.Kind.VERIFY: 0}.get(PlanStep.Kind(first.kind), -1)
    return Line(
        title="Remove" if sign < 0 else first.label,
        icon="terminate" if sign < 0 else first.kind,
        target=first.target,
        detail=first.detail,
        usd_per_hour=sign * first.usd_per_hour,
        status=_status([step.status for step in steps]),
        steps=tuple(steps),
        notes=tuple(dict.fromkeys(step.note for step in steps if step.note)),
        finished_at=last.finished_at,
    )


def _status(statuses: Sequence[str]) -> str:
    """Return the status that tells most about steps taken together."""
    for telling in ("failed", "refused", "running", "rolled_back"):
        if telling in statuses:
            return telling
    if len(set(statuses)) == 1:
        return statuses[0]
    return "running" if "planned" in statuses else "completed"
