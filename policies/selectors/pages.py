"""What the dashboard and the pages of plans show."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from django.db.models import Count, Max, Min, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from clusters.models import Cluster, SavingsEntry
from clusters.selectors.measures import SOME_ESTIMATED, ZERO_USD
from clusters.selectors.paging import Page, page_by_key
from policies.domain.progress import MAX_QUOTE_AGE
from policies.models import OptimizationJob, Plan, PlanStep
from policies.selectors.prices import ConstraintPrices, constraint_prices_of, gap_percent
from policies.selectors.reasons import RefusalPart, refusal_parts
from policies.selectors.steps import StepRow, WaveRow, waves_of
from spotopt.core.errors import NotFound

PAGE_SIZE = 50
PLAN_SORTS = {"made": "created_at", "status": "status"}
UNDER_WAY = (Plan.Status.APPROVED, Plan.Status.RUNNING, Plan.Status.STOPPING)
OPEN = (Plan.Status.PROPOSED, *UNDER_WAY)


class _Counted(TypedDict):
    removals_left_out: int


if TYPE_CHECKING:  # the stubs' alias cannot be subscripted when the module runs
    from django_stubs_ext import WithAnnotations

    AnnotatedPlan = WithAnnotations[Plan, _Counted]


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
    removals_left_out: int
    """Nodes that the plan was to remove and did not, counted once it is over."""

    @property
    def usd_per_hour_saved(self) -> Decimal:
        """Return before minus after."""
        return self.usd_per_hour_before - self.usd_per_hour_after


@dataclass(frozen=True, slots=True)
class BookedByPlan:
    """What the ledger has booked for one plan, USD."""

    usd: Decimal
    since: datetime | None
    until: datetime | None
    is_estimated: bool
    """Some of it was booked at estimated prices."""

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
    refusals: tuple[RefusalPart, ...]
    prices: ConstraintPrices
    booked: BookedByPlan
    quote_expires_at: datetime
    is_quote_expired: bool
    now: datetime

    @property
    def launches(self) -> int:
        """Return how many nodes the plan buys."""
        return sum(wave.launches for wave in self.waves)

    @property
    def nodes_drained(self) -> int:
        """Return how many nodes the plan removes."""
        return sum(wave.removals for wave in self.waves)

    @property
    def expected(self) -> timedelta:
        """Return roughly how long the whole plan takes."""
        return sum((wave.expected for wave in self.waves), timedelta(0))

    @property
    def steps_total(self) -> int:
        """Return how many steps the plan has."""
        return sum(len(wave.steps) for wave in self.waves)

    @property
    def steps_done(self) -> int:
        """Return how many steps did what they should."""
        return sum(wave.done for wave in self.waves)

    @property
    def steps_left_out(self) -> int:
        """Return how many steps are over without having done it: skipped, refused, failed or undone."""
        return sum(wave.over - wave.done for wave in self.waves)

    @property
    def doing(self) -> tuple[StepRow, ...]:
        """Return the steps that run now."""
        return tuple(step for wave in self.waves for step in wave.steps if step.is_running)

    @property
    def remaining(self) -> timedelta | None:
        """Return the time left at the pace so far; None before there is a pace, and unless it runs on."""
        started, over = self.plan.started_at, self.steps_done + self.steps_left_out
        if started is None or self.plan.status != Plan.Status.RUNNING or not 0 < over < self.steps_total:
            return None
        return (self.now - started) / over * (self.steps_total - over)

    @property
    def gap_percent(self) -> float | None:
        """Return by how much the plan is above the lower bound, in percent of the bound."""
        return gap_percent(self.plan.usd_per_hour_after, self.plan.lower_bound_usd_per_hour)

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
        rows.defer("document", "refusals", "constraint_prices")
        .order_by("cluster_id", "-created_at")
        .distinct("cluster_id")
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
    rows = _plans()
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
    rows = _plans().filter(status__in=OPEN)
    if account_id is not None:
        rows = rows.filter(cluster__account_id=account_id)
    found = [plan_row(plan) for plan in rows.order_by("cluster_id", "-created_at")]
    worthwhile = [row for row in found if row.status != Plan.Status.PROPOSED or row.usd_per_hour_saved > 0]
    worthwhile.sort(key=lambda row: (row.status == Plan.Status.PROPOSED, -row.usd_per_hour_saved))
    return tuple(worthwhile[:limit])


def plan_page(plan_id: UUID, *, now: datetime) -> PlanPage:
    """Return one plan with its steps and refusals (three queries), or raise NotFound."""
    plan = _plans().defer(None).select_related("cluster", "job").filter(pk=plan_id).first()
    if plan is None:
        raise NotFound("There is no such plan.")
    waves = waves_of(plan.pk)
    return PlanPage(
        plan=plan,
        row=plan_row(plan),
        waves=waves,
        refusals=refusal_parts(plan.refusals),
        prices=constraint_prices_of(plan.constraint_prices, now=now),
        booked=booked_by(plan.pk),
        quote_expires_at=plan.quoted_at + MAX_QUOTE_AGE,
        is_quote_expired=now - plan.quoted_at > MAX_QUOTE_AGE,
        now=now,
    )


def booked_by(plan_id: UUID) -> BookedByPlan:
    """Return what the ledger holds for a plan (one query)."""
    row = SavingsEntry.objects.filter(plan_id=plan_id).aggregate(
        usd=Coalesce(Sum("usd"), ZERO_USD),
        since=Min("booked_from"),
        until=Max("booked_until"),
        is_estimated=SOME_ESTIMATED,
    )
    return BookedByPlan(**row)


def newest_job(cluster_id: UUID) -> OptimizationJob | None:
    """Return the cluster's last run of the optimizer."""
    return OptimizationJob.objects.filter(cluster_id=cluster_id).order_by("-created_at").first()


def plans_matching(text: str, *, limit: int) -> list[PlanRow]:
    """Return the newest plans of clusters whose name contains the text."""
    rows = _plans()
    found = rows.filter(cluster__name__icontains=text).order_by("-created_at")[:limit]
    return [plan_row(plan) for plan in found]


def setup_progress(account_id: UUID | None = None) -> tuple[int, int]:
    """Return (clusters, clusters whose agent has reported) for the dashboard's hints."""
    rows = Cluster.objects.filter(removed_at__isnull=True)
    if account_id is not None:
        rows = rows.filter(account_id=account_id)
    counts = rows.aggregate(all=Count("pk"), heard=Count("pk", filter=Q(snapshot_at__isnull=False)))
    return counts["all"], counts["heard"]


def _plans() -> "QuerySet[AnnotatedPlan]":
    """Return plans with what ``plan_row`` reads."""
    left_out = (
        PlanStep.objects.filter(plan=OuterRef("pk"), kind=PlanStep.Kind.TERMINATE)
        .exclude(status=PlanStep.Status.COMPLETED)
        .order_by()
        .values("plan")
        .annotate(count=Count("pk"))
    )
    rows = Plan.objects.select_related("cluster").defer("document", "constraint_prices")
    return rows.annotate(removals_left_out=Coalesce(Subquery(left_out.values("count")), 0))


def plan_row(plan: "AnnotatedPlan") -> PlanRow:
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
        removals_left_out=plan.removals_left_out if plan.status == Plan.Status.COMPLETED else 0,
    )
