"""What the dashboard and the pages of plans show."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

from django.db.models import Count, Max, Min, Q, Sum

from clusters.models import Cluster, SavingsEntry
from clusters.selectors.paging import Page, page_by_key
from policies.domain.progress import MAX_QUOTE_AGE
from policies.models import ClusterPolicy, OptimizationJob, Plan, PlanStep
from spotopt.core.errors import NotFound

PAGE_SIZE = 50
PLAN_SORTS = {"made": "created_at", "status": "status"}
UNDER_WAY = (Plan.Status.APPROVED, Plan.Status.RUNNING, Plan.Status.STOPPING)
OPEN = (Plan.Status.PROPOSED, *UNDER_WAY)
_REMOVAL = (PlanStep.Kind.CORDON, PlanStep.Kind.DRAIN, PlanStep.Kind.TERMINATE)
_SECONDS_PER_MOVED_NODE = 280
"""Boot, drain and terminate of one replaced node, as a rough forecast for the consequences text."""


@dataclass(frozen=True, slots=True)
class Potential:
    """What the newest proposals would save, USD per hour; the parts add up to the whole."""

    usd_per_hour: Decimal
    spot_replacement: Decimal
    bin_packing: Decimal
    plans: int
    quoted_at: datetime | None
    """Age of the oldest prices among them."""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One plan in a list."""

    id: UUID
    cluster_id: UUID
    cluster_name: str
    status: str
    status_label: str
    usd_per_hour_before: Decimal
    usd_per_hour_after: Decimal
    nodes_before: int
    nodes_after: int
    pods_moved: int
    risk: float
    refusals: int
    created_at: datetime
    decided_by: str
    is_empty: bool

    @property
    def usd_per_hour_saved(self) -> Decimal:
        """Return before minus after."""
        return self.usd_per_hour_before - self.usd_per_hour_after


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


@dataclass(frozen=True, slots=True)
class RefusalGroup:
    """What was declined for one kind of reason."""

    code: str
    label: str
    subjects: tuple[tuple[str, str], ...]
    """(subject, reason in plain English)."""


@dataclass(frozen=True, slots=True)
class BookedByPlan:
    """What the ledger has booked for one plan, USD."""

    usd: Decimal
    since: datetime | None
    until: datetime | None

    @property
    def usd_per_hour(self) -> Decimal | None:
        """Return the mean saving over the booked time."""
        if self.since is None or self.until is None or self.until <= self.since:
            return None
        return self.usd / Decimal((self.until - self.since).total_seconds()) * 3600


@dataclass(frozen=True, slots=True)
class PlanPage:
    """Everything that a plan's page shows."""

    plan: Plan
    row: PlanRow
    waves: tuple[WaveRow, ...]
    steps_done: int
    steps_total: int
    refusals: tuple[RefusalGroup, ...]
    booked: BookedByPlan
    quote_expires_at: datetime
    is_quote_expired: bool
    nodes_drained: int
    expected: timedelta
    now: datetime

    @property
    def launches(self) -> int:
        """Return how many nodes the plan buys."""
        return sum(wave.launches for wave in self.waves)

    @property
    def remaining(self) -> timedelta | None:
        """Return the time left at the pace so far; None before there is a pace, or when it is over."""
        started, finished = self.plan.started_at, self.plan.finished_at
        if started is None or finished is not None or not 0 < self.steps_done < self.steps_total:
            return None
        return (self.now - started) / self.steps_done * (self.steps_total - self.steps_done)

    @property
    def is_open(self) -> bool:
        """Tell whether somebody may still approve or reject it."""
        return self.plan.status == Plan.Status.PROPOSED

    @property
    def is_under_way(self) -> bool:
        """Tell whether it is being carried out."""
        return self.plan.status in UNDER_WAY


def potential(account_id: UUID | None = None) -> Potential:
    """Return the sum of the newest proposals, at most one for each cluster (one query)."""
    rows = Plan.objects.filter(status=Plan.Status.PROPOSED, cluster__removed_at__isnull=True)
    if account_id is not None:
        rows = rows.filter(cluster__account_id=account_id)
    plans = list(
        rows.defer("document", "refusals").order_by("cluster_id", "-created_at").distinct("cluster_id")
    )
    worthwhile = [plan for plan in plans if plan.usd_per_hour_saved > 0]
    return Potential(
        usd_per_hour=sum((plan.usd_per_hour_saved for plan in worthwhile), Decimal(0)),
        spot_replacement=sum((plan.spot_replacement_usd_per_hour for plan in worthwhile), Decimal(0)),
        bin_packing=sum((plan.bin_packing_usd_per_hour for plan in worthwhile), Decimal(0)),
        plans=len(worthwhile),
        quoted_at=min((plan.quoted_at for plan in worthwhile), default=None),
    )


def plan_page_of(
    *, after: str = "", status: str = "", cluster_id: UUID | None = None, account_id: UUID | None = None
) -> Page[PlanRow]:
    """Return one page of plans, newest first; ``open`` and ``over`` are groups of statuses (two queries)."""
    rows = Plan.objects.select_related("cluster").defer("document")
    if cluster_id is not None:
        rows = rows.filter(cluster_id=cluster_id)
    if account_id is not None:
        rows = rows.filter(cluster__account_id=account_id)
    if status == "open":
        rows = rows.filter(status__in=OPEN)
    elif status == "over":
        rows = rows.exclude(status__in=OPEN)
    total = rows.count()
    found, sort, cursor = page_by_key(rows, sort="-made", columns=PLAN_SORTS, after=after, size=PAGE_SIZE)
    return Page(rows=tuple(plan_row(plan) for plan in found), sort=sort, next_cursor=cursor, total=total)


def open_plans(account_id: UUID | None = None, *, limit: int = 6) -> tuple[PlanRow, ...]:
    """Return plans that run or wait for approval, largest saving first (one query)."""
    rows = Plan.objects.select_related("cluster").defer("document").filter(status__in=OPEN)
    if account_id is not None:
        rows = rows.filter(cluster__account_id=account_id)
    found = [plan_row(plan) for plan in rows.order_by("cluster_id", "-created_at")]
    worthwhile = [row for row in found if row.status != Plan.Status.PROPOSED or row.usd_per_hour_saved > 0]
    worthwhile.sort(key=lambda row: (row.status == Plan.Status.PROPOSED, -row.usd_per_hour_saved))
    return tuple(worthwhile[:limit])


def plan_page(plan_id: UUID, *, now: datetime) -> PlanPage:
    """Return one plan with its steps and refusals (three queries), or raise NotFound."""
    plan = Plan.objects.select_related("cluster", "job").filter(pk=plan_id).first()
    if plan is None:
        raise NotFound("There is no such plan.")
    waves = _waves(plan)
    drained = sum(wave.removals for wave in waves)
    done = sum(wave.done for wave in waves)
    return PlanPage(
        plan=plan,
        row=plan_row(plan),
        waves=waves,
        steps_done=done,
        steps_total=sum(len(wave.steps) for wave in waves),
        refusals=_refusals(plan.refusals),
        booked=booked_by(plan.pk),
        quote_expires_at=plan.quoted_at + MAX_QUOTE_AGE,
        is_quote_expired=now - plan.quoted_at > MAX_QUOTE_AGE,
        nodes_drained=drained,
        expected=timedelta(seconds=_SECONDS_PER_MOVED_NODE * max(drained, len(waves))),
        now=now,
    )


def booked_by(plan_id: UUID) -> BookedByPlan:
    """Return what the ledger holds for a plan (one query)."""
    row = SavingsEntry.objects.filter(plan_id=plan_id).aggregate(
        usd=Sum("usd"), since=Min("booked_from"), until=Max("booked_until")
    )
    return BookedByPlan(usd=row["usd"] or Decimal(0), since=row["since"], until=row["until"])


def newest_job(cluster_id: UUID) -> OptimizationJob | None:
    """Return the cluster's last run of the optimizer."""
    return OptimizationJob.objects.filter(cluster_id=cluster_id).order_by("-created_at").first()


def newest_plan(cluster_id: UUID) -> PlanRow | None:
    """Return the cluster's open plan, or its newest one."""
    rows = Plan.objects.select_related("cluster").defer("document").filter(cluster_id=cluster_id)
    plan = (
        rows.filter(status__in=OPEN).order_by("-created_at").first() or rows.order_by("-created_at").first()
    )
    return plan_row(plan) if plan else None


def plans_matching(text: str, *, limit: int) -> list[PlanRow]:
    """Return the newest plans of clusters whose name contains the text."""
    rows = Plan.objects.select_related("cluster").defer("document")
    found = rows.filter(cluster__name__icontains=text).order_by("-created_at")[:limit]
    return [plan_row(plan) for plan in found]


def setup_progress(account_id: UUID | None = None) -> tuple[int, int]:
    """Return (clusters, clusters whose agent has reported) for the dashboard's hints."""
    rows = Cluster.objects.filter(removed_at__isnull=True)
    if account_id is not None:
        rows = rows.filter(account_id=account_id)
    counts = rows.aggregate(all=Count("pk"), heard=Count("pk", filter=Q(snapshot_at__isnull=False)))
    return counts["all"], counts["heard"]


def policy_of(cluster_id: UUID) -> ClusterPolicy | None:
    """Return the cluster's policy with its template."""
    return ClusterPolicy.objects.select_related("template").filter(cluster_id=cluster_id).first()


def plan_row(plan: Plan) -> PlanRow:
    """Return a plan as a line of a list."""
    return PlanRow(
        id=plan.pk,
        cluster_id=plan.cluster_id,
        cluster_name=plan.cluster.name,
        status=plan.status,
        status_label=plan.get_status_display(),
        usd_per_hour_before=plan.usd_per_hour_before,
        usd_per_hour_after=plan.usd_per_hour_after,
        nodes_before=plan.nodes_before,
        nodes_after=plan.nodes_after,
        pods_moved=plan.pods_moved,
        risk=100 * plan.risk,
        refusals=len(plan.refusals),
        created_at=plan.created_at,
        decided_by=plan.decided_by,
        is_empty=plan.usd_per_hour_saved <= 0,
    )


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


def _waves(plan: Plan) -> tuple[WaveRow, ...]:
    rows = PlanStep.objects.filter(plan=plan).order_by("wave", "seq")
    waves: list[WaveRow] = []
    for number, members in groupby(rows, key=lambda row: row.wave):
        steps = tuple(_step(row) for row in members)
        done = sum(step.finished_at is not None for step in steps)
        is_running = any(step.status == PlanStep.Status.RUNNING for step in steps)
        is_first_open = done < len(steps) and not any(wave.is_current for wave in waves)
        waves.append(WaveRow(number=number, steps=steps, done=done, is_current=is_running or is_first_open))
    return tuple(waves)


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
        notes=tuple(step.note for step in steps if step.note),
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


def _refusals(refusals: Sequence[Mapping[str, str]]) -> tuple[RefusalGroup, ...]:
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for refusal in refusals:
        groups[refusal["code"]].append((refusal["subject"], refusal["reason"]))
    return tuple(
        RefusalGroup(code, code.replace("_", " ").capitalize(), tuple(items))
        for code, items in sorted(groups.items(), key=lambda group: -len(group[1]))
    )
