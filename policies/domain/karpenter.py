"""What Karpenter is to be told: a node pool of ours beside each of the customer's, never looser than it.

The customer's own objects are never changed, for somebody else (Helm, GitOps) holds them. Ours has a higher
weight, so that Karpenter tries it first, and falls back to the customer's when ours may or can launch nothing
(karpenter.sh, "NodePools": weight, limits, disruption; "Scheduling": weighted NodePools). Drift is always on
since v1; a budget of no nodes for the reason ``Drifted`` holds it back (karpenter.sh, "Disruption").
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from policies.domain import document
from policies.domain.mix import spot_limit_percent
from policies.domain.policy import Rules
from policies.domain.pool_types import CAPACITY_TYPE, INSTANCE_TYPE, admits_value, types_worth_launching
from policies.domain.quantities import NEVER, amount, rounded_down, seconds
from policies.domain.shapes import Offer

Json = Mapping[str, Any]
API_VERSION, KIND = "karpenter.sh/v1", "NodePool"
FIELDS = ("disruption", "limits", "template", "weight")
"""The fields of a NodePool's spec that ours sets; all of them, always."""
PREFIX = "spotopt-"
MANAGED = "spotopt.io/managed"
STEERS = "spotopt.io/steers"
"""Label by which ours are known, and the annotation with the customer's pool that one stands beside."""
STEERED = "steered"
"""Code of a wish for a pool of ours that launches nodes."""
LONGEST_NAME = 63
HEAVIEST = 100
FEWEST_TYPES = 5
"""Spot capacity of fewer instance types than these is no capacity to rely on."""
LARGE_VCPUS = 16
"""A node may always be this large; a larger one is at most the policy's share of one pool."""
_DEFAULT_BUDGETS = ({"nodes": "10%"},)
_DEFAULT_EXPIRY = "720h"
_POLICIES = ("WhenEmpty", "Balanced", "WhenEmptyOrUnderutilized")
"""Karpenter's consolidation policies, the most careful first."""


@dataclass(frozen=True, slots=True)
class NodePool:
    """A NodePool as the agent reported it."""

    name: str
    spec: Json
    is_ours: bool = False
    steers: str = ""
    """For one of ours, the customer's pool that it stands beside."""
    used: Mapping[str, str] = field(default_factory=dict)
    """Capacity of its nodes by resource, ``nodes`` among them (its ``status.resources``)."""
    managers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Who else set which of ``FIELDS``."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a cluster's policy wants its Karpenter steered."""

    knobs: document.Karpenter
    rules: Rules


@dataclass(frozen=True, slots=True)
class Market:
    """What may be bought, and when."""

    offers: Sequence[Offer]
    now: datetime


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to become of our pool beside one of the customer's; no manifest where nothing is to be done."""

    pool: str
    name: str
    manifest: Json | None
    code: str
    """``STEERED``, or why the pool is left alone or handed back."""
    sentence: str

    def is_met_by(self, reported: NodePool | None) -> bool:
        """Tell whether the cluster has what is wanted already."""
        if self.manifest is None:
            return True
        return reported is not None and reported.spec == self.manifest["spec"]


class _LeftAlone(Exception):
    """The customer's pool gets none of ours beside it."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


def wishes(pools: Sequence[NodePool], wanted: Wanted | None, market: Market) -> tuple[Wish, ...]:
    """Return one wish for each of the customer's pools, and for each of ours that outlived its own.

    Without ``wanted`` Karpenter is not steered, and what there is of ours is handed back.
    """
    ours = {pool.steers: pool for pool in pools if pool.is_ours}
    customers = sorted((pool for pool in pools if not pool.is_ours), key=lambda pool: pool.name)
    made = []
    for pool in customers:
        mine = ours.pop(pool.name, None)
        try:
            made.append(_steered(pool, mine, customers, wanted, market))
        except _LeftAlone as reason:
            made.append(_without(pool.name, mine, reason.code, reason.sentence))
        except ValueError as error:
            made.append(_without(pool.name, mine, "unreadable", f"It cannot be read: {error}"))
    gone = "There is no such node pool any more."
    made += [_without(name, mine, "pool_gone", gone) for name, mine in sorted(ours.items())]
    return tuple(made)


def _steered(
    pool: NodePool,
    mine: NodePool | None,
    customers: Sequence[NodePool],
    wanted: Wanted | None,
    market: Market,
) -> Wish:
    """Return the wish for a pool that may be steered; raise _LeftAlone for any other."""
    if wanted is None:
        raise _LeftAlone("off", "The policy does not steer Karpenter.")
    _require_steerable(pool, mine, customers, wanted.rules)
    share = _of_both(pool, mine, "cpu") * wanted.rules.pool_share_percent / 100
    types = types_worth_launching(
        _requirements(pool),
        _listed_types(mine),
        market.offers,
        wanted.rules,
        market.now,
        largest_vcpus=max(LARGE_VCPUS, int(share)),
    )
    if len(types) < FEWEST_TYPES:
        left = f"{len(types)} safe spot types; {FEWEST_TYPES} are the fewest to rely on."
        raise _LeftAlone("few_types", f"Template, policy and this pool leave {left}")
    spec = {
        "weight": _weight(pool) + 1,
        "limits": _limits(pool, mine, wanted.rules),
        "template": _template(pool, types, wanted.knobs),
        "disruption": _disruption(pool, wanted),
    }
    sentence = f"Spot nodes of {len(types)} types are tried first; {pool.name} stays as it is behind them."
    return Wish(pool.name, PREFIX + pool.name, _manifest(pool.name, spec), STEERED, sentence)


def _require_steerable(
    pool: NodePool, mine: NodePool | None, customers: Sequence[NodePool], rules: Rules
) -> None:
    """Raise _LeftAlone with the first reason to put nothing beside the pool."""
    name, weight = PREFIX + pool.name, _weight(pool)
    rival = next((other.name for other in customers if _weight(other) == weight + 1), "")
    held = _foreign_hands(mine)
    has_spot = admits_value(_requirements(pool), CAPACITY_TYPE, "spot")
    reasons = (
        ("replicas" in pool.spec, "static", "It keeps a fixed number of nodes, for which no weight counts."),
        (len(name) > LONGEST_NAME, "name_too_long", f"{name} is longer than {LONGEST_NAME} letters."),
        (
            any(other.name == name for other in customers),
            "name_taken",
            f"There is a node pool {name} that is not ours.",
        ),
        (bool(held), "managed_elsewhere", f"Somebody else set fields of {name}: {held}."),
        (weight >= HEAVIEST, "weight_full", "No node pool can have a higher weight than its 100; lower it."),
        (bool(rival), "weight_taken", f"{rival} has the next higher weight: ours has no place between them."),
        (spot_limit_percent(rules) == 0, "no_spot_wanted", "Policy and template allow no spot nodes."),
        (
            not has_spot,
            "no_spot_allowed",
            "It allows no spot nodes; with spot among its capacity types it can be steered.",
        ),
    )
    for fails, code, sentence in reasons:
        if fails:
            raise _LeftAlone(code, sentence)


def _requirements(pool: NodePool) -> Sequence[Json]:
    """Return the requirements of a pool's nodes; raise ValueError where there is no template."""
    try:
        return list(pool.spec["template"]["spec"].get("requirements") or ())
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it has no template") from error


def _foreign_hands(mine: NodePool | None) -> str:
    return "; ".join(f"{' and '.join(who)} set {what}" for what, who in mine.managers.items()) if mine else ""


def _without(pool: str, mine: NodePool | None, code: str, sentence: str) -> Wish:
    """Return the wish that Karpenter launches nothing from ours: limits of no CPU, all else as it is.

    The template is not touched, so that Karpenter finds no drift; its nodes stay until Karpenter's own rules
    (consolidation, expiry) end them.
    """
    name = mine.name if mine else PREFIX + pool
    if mine is None or code == "managed_elsewhere":
        return Wish(pool, name, None, code, sentence)
    spec = {key: value for key, value in mine.spec.items() if key in FIELDS} | {"limits": {"cpu": "0"}}
    return Wish(pool, name, _manifest(pool, spec), code, sentence)


def _manifest(pool: str, spec: Json) -> Json:
    metadata = {"name": PREFIX + pool, "labels": {MANAGED: "true"}, "annotations": {STEERS: pool}}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def _weight(pool: NodePool) -> int:
    return int(pool.spec.get("weight") or 0)


def _listed_types(mine: NodePool | None) -> Sequence[str]:
    """Return the types that ours names now, in the last of its requirements."""
    last = _requirements(mine)[-1:] if mine else ()
    return [name for each in last if each["key"] == INSTANCE_TYPE for name in each.get("values") or ()]


def _template(pool: NodePool, types: Sequence[str], knobs: document.Karpenter) -> Json:
    """Return the customer's template with two requirements more, and nodes that grow no older."""
    template = deepcopy(dict(pool.spec["template"]))
    spec = template["spec"]
    expiry = spec.get("expireAfter") or _DEFAULT_EXPIRY
    oldest = NEVER if knobs.max_node_age_minutes is None else f"{knobs.max_node_age_minutes}m"
    template["spec"] = spec | {
        "requirements": [
            *_requirements(pool),
            {"key": CAPACITY_TYPE, "operator": "In", "values": ["spot"]},
            {"key": INSTANCE_TYPE, "operator": "In", "values": list(types)},
        ],
        "expireAfter": min(expiry, oldest, key=seconds),
    }
    return template


def _limits(pool: NodePool, mine: NodePool | None, rules: Rules) -> dict[str, str]:
    """Return what is left of the customer's limits, and of CPU no more than the policy's share of spot."""
    left = {
        name: amount(limit) - amount(pool.used.get(name, 0))
        for name, limit in (pool.spec.get("limits") or {}).items()
    }
    share, base = spot_limit_percent(rules), rules.on_demand_base
    if share < 100 or base:  # noqa: PLR2004  # percent
        cpu, nodes = (_of_both(pool, mine, resource) for resource in ("cpu", "nodes"))
        spot = min(cpu * share / 100, cpu * (1 - base / max(nodes, Decimal(1))))
        left["cpu"] = min(left.get("cpu", spot), spot)
    return {name: rounded_down(value, name) for name, value in sorted(left.items())}


def _of_both(pool: NodePool, mine: NodePool | None, resource: str) -> Decimal:
    return sum((amount(each.used.get(resource, 0)) for each in (pool, mine) if each), Decimal(0))


def _disruption(pool: NodePool, wanted: Wanted) -> Json:
    """Return the more careful of the customer's rules and the policy's, field by field."""
    theirs, knobs = pool.spec.get("disruption") or {}, wanted.knobs
    policy = theirs.get("consolidationPolicy") or _POLICIES[-1]
    if policy not in _POLICIES or not knobs.consolidation:
        policy = _POLICIES[0]
    after = theirs.get("consolidateAfter") or "0s"
    budgets = [deepcopy(dict(each)) for each in theirs.get("budgets") or _DEFAULT_BUDGETS]
    budgets.append({"nodes": f"{wanted.rules.max_disrupted_percent}%"})
    if not knobs.drift:
        budgets.append({"nodes": "0", "reasons": ["Drifted"]})
    return {
        "consolidationPolicy": policy,
        "consolidateAfter": max(after, f"{knobs.ttl_seconds_after_empty}s", key=seconds),
        "budgets": budgets,
    }
