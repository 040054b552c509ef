"""What AWS took back, what was done about it, and how the spot pools in use are."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Avg, Count, Q

from clusters.domain.interruptions import FLAG_LASTS, action_key
from clusters.models import Action, Instance, Interruption, InterruptionRate, PoolState
from clusters.selectors.guard import ALIVE
from spotopt.core.clock import utcnow

SHOWN = 50
_STEPS = (Action.Kind.CORDON_NODE, Action.Kind.DRAIN_NODE)
_BUCKETS = ("under 5 %", "5–10 %", "10–15 %", "15–20 %", "over 20 %")


@dataclass(frozen=True, slots=True)
class InterruptionRow:
    """One notice and the reaction to it."""

    notice: Interruption
    node_name: str
    closed_after: timedelta | None
    """From AWS's notice to the agent's word that the node is closed; None when it was not."""
    cordon: Action | None
    drain: Action | None
    launch: Action | None
    replacement: Instance | None

    @property
    def moved(self) -> int | None:
        """Return how many pods left in time; None while they are on their way or when nobody counted."""
        if self.drain is None or self.drain.finished_at is None:
            return None
        if self.drain.status == Action.Status.SUCCEEDED:
            return self.notice.pods_at_notice
        return max(0, self.notice.pods_at_notice - int(self.drain.result.get("left_count", 0)))


@dataclass(frozen=True, slots=True)
class InterruptionPage:
    """The newest notices, and the last day in numbers."""

    rows: tuple[InterruptionRow, ...]
    taken_today: int
    under_way: int


@dataclass(frozen=True, slots=True)
class PoolHealth:
    """One spot pool that carries nodes of the cluster."""

    instance_type: str
    az: str
    nodes: int
    share_percent: float
    """Of the cluster's nodes."""
    usd_per_hour: Decimal | None
    taken_lately: int
    """Nodes of this cluster that AWS took from it within the half hour."""
    flagged_until: datetime | None
    rests_until: datetime | None
    monthly_rate: str
    """Spot Advisor's share of instances interrupted in a month; empty when it says nothing."""


def interruption_page(cluster_id: UUID) -> InterruptionPage:
    """Return the newest notices of a cluster with the reaction to each (five queries)."""
    notices = Interruption.objects.filter(cluster_id=cluster_id)
    shown = list(notices.select_related("instance").order_by("-noticed_at")[:SHOWN])
    actions = _actions(cluster_id, shown)
    launched = {
        row.launch_action_id: row
        for row in Instance.objects.filter(
            launch_action_id__in=[each.replacement_action_id for each in shown if each.replacement_action_id]
        )
    }
    counts = notices.aggregate(
        today=Count(
            "pk", filter=Q(status=Interruption.Status.TAKEN, noticed_at__gt=utcnow() - timedelta(days=1))
        ),
        open=Count("pk", filter=Q(status=Interruption.Status.OPEN)),
    )
    rows = tuple(_row(each, actions, launched) for each in shown)
    return InterruptionPage(rows, counts["today"], counts["open"])


def _actions(cluster_id: UUID, shown: list[Interruption]) -> dict[str, Action]:
    keys = [action_key(each.pk, each.noticed_at, kind) for each in shown for kind in _STEPS]
    launches = [each.replacement_action_id for each in shown if each.replacement_action_id]
    wanted = Q(idempotency_key__in=keys) | Q(pk__in=launches)
    rows = Action.objects.filter(wanted, cluster_id=cluster_id)
    return {row.idempotency_key: row for row in rows} | {str(row.pk): row for row in rows}


def _row(
    notice: Interruption, actions: Mapping[str, Action], launched: Mapping[UUID | None, Instance]
) -> InterruptionRow:
    cordon, drain = (actions.get(action_key(notice.pk, notice.noticed_at, kind)) for kind in _STEPS)
    is_closed = cordon is not None and cordon.status == Action.Status.SUCCEEDED
    return InterruptionRow(
        notice=notice,
        node_name=notice.instance.node_name or notice.instance.instance_id,
        closed_after=cordon.finished_at - notice.noticed_at
        if is_closed and cordon is not None and cordon.finished_at
        else None,
        cordon=cordon,
        drain=drain,
        launch=actions.get(str(notice.replacement_action_id)),
        replacement=launched.get(notice.replacement_action_id),
    )


def pools_in_use(cluster_id: UUID) -> list[PoolHealth]:
    """Return the spot pools that carry nodes of the cluster, the most crowded first (five queries)."""
    now = utcnow()
    alive = Instance.objects.filter(cluster_id=cluster_id, state__in=ALIVE)
    total = alive.count()
    pools = (
        alive.filter(lifecycle=Instance.Lifecycle.SPOT)
        .values("region", "az", "az_id", "instance_type")
        .annotate(nodes=Count("pk"), usd=Avg("price"))
        .order_by("-nodes", "instance_type", "az")
    )
    found = list(pools)
    states = {
        (row.zone_id, row.instance_type): row
        for row in PoolState.objects.filter(
            capacity_type="spot", zone_id__in={pool["az_id"] for pool in found}
        )
    }
    taken = Interruption.objects.filter(
        cluster_id=cluster_id, kind=Interruption.Kind.INTERRUPTION, noticed_at__gt=now - FLAG_LASTS
    )
    lately = {
        (row["zone_id"], row["instance_type"]): row["count"]
        for row in taken.values("zone_id", "instance_type").annotate(count=Count("pk"))
    }
    rates = dict(
        InterruptionRate.objects.filter(
            region__in={pool["region"] for pool in found},
            instance_type__in={pool["instance_type"] for pool in found},
        ).values_list("instance_type", "bucket")
    )
    return [
        _pool(
            pool,
            total=total,
            state=states.get((pool["az_id"], pool["instance_type"])),
            lately=lately.get((pool["az_id"], pool["instance_type"]), 0),
            bucket=rates.get(pool["instance_type"]),
            now=now,
        )
        for pool in found
    ]


def _pool(
    pool: Mapping[str, Any],
    *,
    total: int,
    state: PoolState | None,
    lately: int,
    bucket: int | None,
    now: datetime,
) -> PoolHealth:
    def ahead(instant: datetime | None) -> datetime | None:
        return instant if instant is not None and instant > now else None

    return PoolHealth(
        instance_type=pool["instance_type"],
        az=pool["az"],
        nodes=pool["nodes"],
        share_percent=100 * pool["nodes"] / total,
        usd_per_hour=pool["usd"],
        taken_lately=lately,
        flagged_until=ahead(state.flagged_until) if state else None,
        rests_until=ahead(state.back_off_until) if state else None,
        monthly_rate="" if bucket is None else _BUCKETS[bucket],
    )
