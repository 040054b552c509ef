"""After a plan is proposed: what each binding constraint costs, kept with the plan as it is found."""

from dataclasses import asdict
from datetime import timedelta
from time import monotonic

from policies.domain.constraints import Scene
from policies.domain.marginal import ConstraintPrice, constraint_prices, worst_first
from policies.models import UNFINISHED, OptimizationJob, Plan
from policies.services.jobs import Cancelled
from spotopt.core.clock import utcnow
from spotopt.core.live import announce

BUDGET = timedelta(seconds=60)
"""How long the pricing of one plan may keep a worker, by the wall."""
GIVES_WAY_AFTER = timedelta(seconds=10)
"""A run that somebody's cluster has waited for this long goes before the prices of another's constraints."""
_WITHDRAWN = (Plan.Status.SUPERSEDED, Plan.Status.REJECTED, Plan.Status.EXPIRED)


def explain_plan(*, plan: Plan, scene: Scene) -> None:
    """Store what the cluster would cost without each constraint, from what the plan itself was made from.

    It ends early when time is up, when nobody wants the plan any more, and when the cluster's next run or,
    for a while, anybody else's waits.
    """
    ends_at = monotonic() + BUDGET.total_seconds()

    def watch(_step: str, _share: float) -> None:
        if monotonic() > ends_at or not _is_wanted(plan):
            raise Cancelled

    prices: list[ConstraintPrice] = []
    candidates, status = 0, "done"
    try:
        for pricing in constraint_prices(scene=scene, now=plan.quoted_at, watch=watch):
            prices.append(pricing.latest)
            candidates = pricing.candidates
            _keep(plan, "running", prices, candidates)
    except Cancelled:
        status = "ended"
    _keep(plan, status, prices, candidates)


def _is_wanted(plan: Plan) -> bool:
    stands = Plan.objects.filter(pk=plan.pk, quoted_at=plan.quoted_at).exclude(status__in=_WITHDRAWN)
    waits = OptimizationJob.objects.filter(cluster_id=plan.cluster_id, status__in=UNFINISHED)
    return stands.exists() and not waits.exists() and not _holds_up_others()


def _holds_up_others() -> bool:
    queued = OptimizationJob.unscoped.filter(status=OptimizationJob.Status.QUEUED)
    return queued.filter(created_at__lt=utcnow() - GIVES_WAY_AFTER).exists()


def _keep(plan: Plan, status: str, prices: list[ConstraintPrice], candidates: int) -> None:
    """Store what is known so far, unless the plan was computed again meanwhile."""
    Plan.objects.filter(pk=plan.pk, quoted_at=plan.quoted_at).update(
        constraint_prices={
            "status": status,
            "at": utcnow().isoformat(),
            "tried": len(prices),
            "candidates": candidates,
            "prices": [_as_json(price) for price in worst_first(prices)],
        }
    )
    announce(
        organization_id=plan.organization_id,
        topic="plan",
        plan_id=str(plan.pk),
        cluster_id=str(plan.cluster_id),
    )


def _as_json(price: ConstraintPrice) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(price).items()}
