"""What-ifs for their pages and for the API: each scenario beside the cluster as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db.models import QuerySet

from clusters.domain.contact import is_stale
from clusters.models import Instance, InstanceType
from clusters.selectors.detail import ClusterHead, cluster_head
from clusters.selectors.guard import ALIVE
from policies.domain.whatif import Outcome, outcome_from_json
from policies.models import ClusterPolicy, NodeTemplate, WhatIf
from policies.selectors.prices import gap_percent
from policies.selectors.reasons import label_of
from spotopt.core.clock import utcnow
from spotopt.core.errors import NotFound

RECENT = 20


@dataclass(frozen=True, slots=True)
class Column:
    """One scenario of a what-if; ``outcome`` is None until it is computed."""

    name: str
    outcome: Outcome | None
    usd_per_hour_more: Decimal | None
    """What the best plan costs more than that of the cluster as it is; negative when it costs less."""
    is_baseline: bool

    @property
    def spot_percent(self) -> float | None:
        """Return the share of the nodes after the plan that are spot."""
        if self.outcome is None or not self.outcome.nodes_after:
            return None
        return 100 * self.outcome.spot_nodes_after / self.outcome.nodes_after

    @property
    def risk_percent(self) -> float | None:
        """Return the interruption risk within 24 hours."""
        return None if self.outcome is None else 100 * self.outcome.risk

    @property
    def gap_percent(self) -> float | None:
        """Return by how much the plan is above the lower bound, in percent of the bound."""
        if self.outcome is None:
            return None
        return gap_percent(self.outcome.usd_per_hour_after, self.outcome.lower_bound_usd_per_hour)


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """How often one reason kept something from being changed, by scenario; None where not computed."""

    label: str
    counts: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class WhatIfPage:
    """Everything that the page of a what-if shows."""

    what_if: WhatIf
    cluster: ClusterHead
    columns: tuple[Column, ...]
    widest: Decimal
    """The highest cost in the table: the length of a full bar, USD per hour."""
    reasons: tuple[ReasonRow, ...]

    @property
    def is_stale(self) -> bool:
        """Tell whether it was computed from an old report."""
        quoted_at = self.what_if.quoted_at
        return quoted_at is not None and is_stale(self.what_if.snapshot_at, quoted_at)

    @property
    def done(self) -> int:
        """Return how many scenarios are computed."""
        return sum(column.outcome is not None for column in self.columns)


@dataclass(frozen=True, slots=True)
class Choices:
    """What a scenario of a cluster can be made of: (id, name) each."""

    templates: tuple[tuple[str, str], ...]
    policies: tuple[tuple[str, str], ...]
    """Other clusters with a policy of their own."""
    instance_types: tuple[str, ...]
    """Those that run in the cluster now."""


def what_ifs(*, cluster_id: UUID | None = None) -> QuerySet[WhatIf]:
    """Return what-ifs with their clusters, newest first; of one cluster when it is named."""
    rows = WhatIf.objects.select_related("cluster").order_by("-created_at", "pk")
    return rows if cluster_id is None else rows.filter(cluster_id=cluster_id)


def recent_what_ifs(cluster_id: UUID) -> list[WhatIf]:
    """Return the cluster's newest what-ifs, without their outcomes (one query)."""
    return list(what_ifs(cluster_id=cluster_id).defer("outcomes")[:RECENT])


def what_if_page(what_if_id: UUID) -> WhatIfPage:
    """Return one what-if side by side, or raise NotFound."""
    what_if = what_ifs().filter(pk=what_if_id).first()
    if what_if is None:
        raise NotFound("There is no such what-if.")
    columns = columns_of(what_if)
    outcomes = [column.outcome for column in columns if column.outcome is not None]
    return WhatIfPage(
        what_if=what_if,
        cluster=cluster_head(what_if.cluster_id, now=utcnow()),
        columns=columns,
        widest=max((max(o.usd_per_hour_before, o.usd_per_hour_after) for o in outcomes), default=Decimal(0)),
        reasons=_reasons(columns),
    )


def columns_of(what_if: WhatIf) -> tuple[Column, ...]:
    """Return the scenarios of a what-if in order, each against the first."""
    found = [outcome_from_json(row) for row in what_if.outcomes]
    outcomes: list[Outcome | None] = [*found, *[None] * (len(what_if.scenarios) - len(found))]
    return tuple(
        Column(
            name=scenario["name"],
            outcome=outcome,
            usd_per_hour_more=outcome.usd_per_hour_after - found[0].usd_per_hour_after if outcome else None,
            is_baseline=number == 0,
        )
        for number, (scenario, outcome) in enumerate(zip(what_if.scenarios, outcomes, strict=True))
    )


def choices_for(cluster_id: UUID) -> Choices:
    """Return the templates, other clusters' policies and instance types to choose from (three queries)."""
    templates = NodeTemplate.objects.filter(deleted_at=None).order_by("name")
    policies = (
        ClusterPolicy.objects.filter(cluster__removed_at=None)
        .exclude(cluster_id=cluster_id)
        .order_by("cluster__name")
    )
    here = Instance.objects.filter(cluster_id=cluster_id, state__in=ALIVE).values("instance_type")
    running = InstanceType.objects.filter(name__in=here).order_by("name")
    return Choices(
        templates=tuple((str(pk), name) for pk, name in templates.values_list("pk", "name")),
        policies=tuple((str(pk), name) for pk, name in policies.values_list("cluster_id", "cluster__name")),
        instance_types=tuple(running.values_list("name", flat=True)),
    )


def _reasons(columns: Sequence[Column]) -> tuple[ReasonRow, ...]:
    totals: dict[str, int] = {}
    for column in columns:
        for code, count in (column.outcome.refusals if column.outcome else {}).items():
            totals[code] = totals.get(code, 0) + count
    return tuple(
        ReasonRow(
            label_of(code),
            tuple(None if c.outcome is None else c.outcome.refusals.get(code, 0) for c in columns),
        )
        for code in sorted(totals, key=lambda code: (-totals[code], code))
    )
