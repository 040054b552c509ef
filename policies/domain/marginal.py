"""What each binding constraint costs: the best plan found without it, against the best with all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from policies.domain.checker import check
from policies.domain.constraints import Constraint, Scene, binding
from policies.domain.optimizer import propose
from policies.domain.plan import PlanProposal
from policies.domain.policy import Rules
from policies.domain.shapes import ClusterSnapshot
from policies.domain.watch import Watch, part_of, unwatched

MAX_TRIED = 12
"""Constraints taken away at most, each in one run of the optimizer."""
MIN_GUESS_SHARE = 0.001
"""Constraints that are guessed to cost less than this share of the plan's price are not tried."""
MIN_PRICE_SHARE = Decimal("0.005")
"""What costs less than this share of the whole price cannot be told from the search's own error."""


@dataclass(frozen=True, slots=True)
class ConstraintPrice:
    """What the cluster would cost without one constraint, all others in force; USD per hour."""

    code: str
    subject: str
    words: str
    usd_per_hour_with: Decimal
    usd_per_hour_without: Decimal

    @property
    def usd_per_hour(self) -> Decimal:
        """Return what the constraint costs; at most 0 when nothing cheaper was found without it."""
        return self.usd_per_hour_with - self.usd_per_hour_without

    @property
    def matters(self) -> bool:
        """Tell whether the price is more than the search's own error."""
        return self.usd_per_hour > self.usd_per_hour_with * MIN_PRICE_SHARE


@dataclass(frozen=True, slots=True)
class Pricing:
    """How far the pricing has come."""

    candidates: int
    """Constraints that are tried in all."""
    latest: ConstraintPrice


def constraint_prices(*, scene: Scene, now: datetime, watch: Watch = unwatched) -> Iterator[Pricing]:
    """Yield the price of each constraint as it is found, the one that seems largest first.

    Thresholds of the policy are set aside on both sides, so that only the constraint differs. A cheaper plan
    that was found without a constraint and keeps it all the same is the best with every constraint from then
    on. A price is what the search found, not a proof: the least cost with or without may be lower.
    """
    floor = scene.cost * MIN_GUESS_SHARE
    chosen = [constraint for constraint in binding(scene) if constraint.weight > floor][:MAX_TRIED]
    if not chosen:
        return
    rules = scene.rules.without_thresholds()
    step = 1 / (len(chosen) + 1)
    watch_base = part_of(watch, 0, step, "With every constraint: ")
    least = _best(scene, scene.snapshot, rules, now, watch_base).usd_per_hour_after
    for number, constraint in enumerate(chosen, start=1):
        part = part_of(watch, number * step, (number + 1) * step, f"Without one, {number} of {len(chosen)}: ")
        plan = _best(scene, *constraint.relax((scene.snapshot, rules)), now, part)
        if plan.usd_per_hour_after < least and _keeps_everything(scene, plan, rules):
            least = plan.usd_per_hour_after
        yield Pricing(len(chosen), _price(constraint, least, plan.usd_per_hour_after))


def worst_first(prices: Sequence[ConstraintPrice]) -> list[ConstraintPrice]:
    """Return the prices that matter against the best plan found with every constraint, the highest first."""
    least = min((price.usd_per_hour_with for price in prices), default=Decimal(0))
    same = [replace(price, usd_per_hour_with=least) for price in prices]
    return sorted((p for p in same if p.matters), key=lambda p: (-p.usd_per_hour, p.code, p.subject))


def _best(scene: Scene, snapshot: ClusterSnapshot, rules: Rules, now: datetime, watch: Watch) -> PlanProposal:
    return propose(snapshot=snapshot, offers=scene.offers, rules=rules, now=now, watch=watch)


def _keeps_everything(scene: Scene, plan: PlanProposal, rules: Rules) -> bool:
    return not check(snapshot=scene.snapshot, proposal=plan, offers=scene.offers, rules=rules)


def _price(constraint: Constraint, least: Decimal, without: Decimal) -> ConstraintPrice:
    return ConstraintPrice(constraint.code, constraint.subject, constraint.words, least, without)
