"""The policy document: every knob an operator may turn, with one home, one range and one default each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, Protocol

from policies.domain.knobs import (
    BadValue,
    choice_by_namespace,
    labels,
    money,
    namespaces,
    number,
    one_of,
    switch,
    whole,
    words,
)
from policies.domain.policy import PROTECTED_NAMESPACES, Rules, TemplateRules
from spotopt.core.errors import Conflict, InvalidInput

BURSTABLE_FAMILIES = frozenset({"t1", "t2", "t3", "t3a", "t4g"})
UNSPREAD_POOL_SHARE_PERCENT = 50
"""The safety floor caps every pool; without diversification the cap is this loose, never absent."""
MUCH_SPOT_PERCENT = 90
WITHOUT_EFFECT = (
    "binpack.aggressiveness",
    "binpack.weights.cpu",
    "binpack.weights.memory",
    "binpack.weights.pod_density",
    "rightsizing.mode",
    "rightsizing.buffer_percent",
    "rightsizing.min_monthly_savings",
)
"""Knobs that are kept for what is to read them; nothing does yet."""
Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Karpenter:
    """How Karpenter is steered where it runs."""

    enabled: bool = switch(default=False)
    consolidation: bool = switch(default=True)
    ttl_seconds_after_empty: int = whole(30, least=0, most=86_400)
    drift: bool = switch(default=True)
    max_node_age_minutes: int | None = whole(None, least=60, most=525_600)


@dataclass(frozen=True, slots=True)
class Provisioning:
    """What may be bought, and for how much."""

    strategy: str = one_of("capacity_optimized", "lowest_price", "balanced")
    spot_percentage: int = whole(80, least=0, most=100)
    on_demand_base: int = whole(0, least=0, most=1_000)
    fallback_on_demand: bool = switch(default=True)
    spot_reversion_minutes: int = whole(60, least=30, most=1_440)
    spot_to_spot_pools: int = whole(5, least=1, most=50)
    spot_to_spot_saving_percent: int = whole(10, least=0, most=90)
    on_rebalance: str = one_of("watch", "replace")
    diversification: bool = switch(default=True)
    max_price_per_hour: Decimal | None = money(None)  # noqa: RUF009  # it is a dataclasses.field
    max_pool_risk: float = number(0.5, least=0, most=1)


@dataclass(frozen=True, slots=True)
class Weights:
    """What counts how much when pods are packed."""

    cpu: float = number(1.0, least=0, most=10)
    memory: float = number(1.0, least=0, most=10)
    pod_density: float = number(0.5, least=0, most=10)


@dataclass(frozen=True, slots=True)
class Binpack:
    """When nodes are emptied."""

    enabled: bool = switch(default=True)
    aggressiveness: int = whole(40, least=20, most=80)
    method: str = one_of("replace_and_move", "delete_empty")
    stabilization_minutes: int = whole(10, least=1, most=120)
    min_saving_percent: int = whole(15, least=0, most=100)
    min_saving_usd_per_month: Decimal | None = money("100", optional=True)  # noqa: RUF009  # it is a dataclasses.field
    min_saving_per_disruption: float = number(0.5, least=0, most=10)
    min_saving_usd_per_hour: Decimal = money("0.01")  # noqa: RUF009  # it is a dataclasses.field
    surge_single_replicas: bool = switch(default=False)
    weights: Weights = field(default_factory=Weights)


@dataclass(frozen=True, slots=True)
class Rightsizing:
    """What is done about requests that do not match use."""

    mode: str = one_of("recommend", "off", "auto")
    buffer_percent: int = whole(20, least=10, most=50)
    min_monthly_savings: Decimal = money("10")  # noqa: RUF009  # it is a dataclasses.field


@dataclass(frozen=True, slots=True)
class SpotAffinity:
    """Which namespaces want spot nodes."""

    default: str = one_of("prefer", "force", "none")
    namespaces: Mapping[str, str] = choice_by_namespace("prefer", "force", "none")


@dataclass(frozen=True, slots=True)
class Constraints:
    """Borders that no saving crosses."""

    block_burstable: bool = switch(default=False)
    az_spread: bool = switch(default=True)
    min_nodes: int = whole(3, least=3, most=5_000)
    max_nodes: int | None = whole(None, least=3, most=5_000)
    min_node_lifetime_minutes: int = whole(5, least=5, most=10_080)
    headroom_cpu_percent: int = whole(10, least=0, most=100)
    headroom_memory_percent: int = whole(10, least=0, most=100)
    pool_share_percent: int = whole(25, least=5, most=UNSPREAD_POOL_SHARE_PERCENT)
    max_disrupted_percent: int = whole(10, least=1, most=10)
    allowed_families: tuple[str, ...] = words("instance families")


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What Spotopt never touches."""

    namespaces: tuple[str, ...] = namespaces(*PROTECTED_NAMESPACES)
    labels: Mapping[str, str] = labels()
    taints: tuple[str, ...] = words("taint keys")
    instance_types: tuple[str, ...] = words("instance types")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When Spotopt may act."""

    type: str = one_of("always_on")


@dataclass(frozen=True, slots=True)
class Approval:
    """When a person decides even though the policy is automatic."""

    required: bool = switch(default=False)
    max_risk: float = number(0.5, least=0, most=1)


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """A whole, valid policy document; ``parse`` is the only way to make one from outside."""

    karpenter: Karpenter = field(default_factory=Karpenter)
    provisioning: Provisioning = field(default_factory=Provisioning)
    binpack: Binpack = field(default_factory=Binpack)
    rightsizing: Rightsizing = field(default_factory=Rightsizing)
    spot_affinity: SpotAffinity = field(default_factory=SpotAffinity)
    constraints: Constraints = field(default_factory=Constraints)
    exclusions: Exclusions = field(default_factory=Exclusions)
    schedule: Schedule = field(default_factory=Schedule)
    approval: Approval = field(default_factory=Approval)


def parse(config: Json) -> PolicyDocument:
    """Return the document with defaults for what is missing; raise InvalidInput naming each bad knob."""
    errors: dict[str, list[str]] = {}
    document: PolicyDocument = _section(PolicyDocument(), config, "", errors)
    constraints, affinity = document.constraints, document.spot_affinity.namespaces
    if constraints.max_nodes is not None and constraints.max_nodes < constraints.min_nodes:
        errors["constraints.max_nodes"] = [f"must be at least min_nodes, {constraints.min_nodes}."]
    if closed := sorted(affinity.keys() & set(document.exclusions.namespaces)):
        errors["spot_affinity.namespaces"] = [f"must not name excluded namespaces: {', '.join(closed)}."]
    if errors:
        knob, messages = next(iter(errors.items()))
        raise InvalidInput(f"The policy is not valid: {knob} {messages[0]}", errors=errors)
    return document


def with_changes(document: PolicyDocument, changes: Json) -> PolicyDocument:
    """Return the document with some knobs turned; lists and label maps are replaced whole."""
    return parse(_merged(as_json(document), changes, document))


def as_json(document: object) -> dict[str, Any]:
    """Return the document as JSON holds it: money as strings, lists as lists."""
    return {item.name: _plain(getattr(document, item.name)) for item in fields(document)}  # type: ignore[arg-type]


class Boundary(Protocol):
    """A node template, as its table or its author has it."""

    @property
    def families(self) -> Iterable[str]: ...
    @property
    def excluded_sizes(self) -> Iterable[str]: ...
    @property
    def architecture(self) -> str: ...
    @property
    def strategy(self) -> str: ...
    @property
    def capacity_type(self) -> str: ...
    @property
    def hybrid_spot_percentage(self) -> int: ...


def resolve(config: Json, template: Boundary) -> Rules:
    """Return what the optimizer needs.

    Raises InvalidInput for a bad document, Conflict when policy and template leave nothing to launch.
    """
    document = parse(config)
    limits, buying, packing = document.constraints, document.provisioning, document.binpack
    return Rules(
        template=_narrowed(template, limits),
        strategy=buying.strategy,
        spot_percentage=buying.spot_percentage,
        on_demand_base=buying.on_demand_base,
        fallback_on_demand=buying.fallback_on_demand,
        max_price_per_hour=buying.max_price_per_hour,
        block_burstable=limits.block_burstable,
        az_spread=limits.az_spread,
        min_nodes=limits.min_nodes,
        max_nodes=limits.max_nodes,
        min_node_lifetime=timedelta(
            minutes=max(limits.min_node_lifetime_minutes, packing.stabilization_minutes)
        ),
        headroom_cpu_percent=limits.headroom_cpu_percent,
        headroom_memory_percent=limits.headroom_memory_percent,
        pool_share_percent=limits.pool_share_percent
        if buying.diversification
        else UNSPREAD_POOL_SHARE_PERCENT,
        spread_over_pools=buying.diversification,
        max_disrupted_percent=limits.max_disrupted_percent,
        max_risk=buying.max_pool_risk,
        consolidation=_consolidation(packing),
        min_saving_percent=packing.min_saving_percent,
        min_saving_usd_per_month=packing.min_saving_usd_per_month,
        min_saving_per_disruption=packing.min_saving_per_disruption,
        spot_to_spot_pools=buying.spot_to_spot_pools,
        spot_to_spot_saving_percent=buying.spot_to_spot_saving_percent,
        spot_reversion=timedelta(minutes=buying.spot_reversion_minutes),
        min_saving_usd_per_hour=packing.min_saving_usd_per_hour,
        excluded_namespaces=frozenset(document.exclusions.namespaces),
        excluded_labels=document.exclusions.labels,
        excluded_instance_types=frozenset(document.exclusions.instance_types),
        excluded_taints=frozenset(document.exclusions.taints),
        default_spot_affinity=document.spot_affinity.default,
        spot_affinity=document.spot_affinity.namespaces,
    )


def _consolidation(packing: Binpack) -> str:
    if not packing.enabled:
        return "none"
    return "empty" if packing.method == "delete_empty" else "all"


def warnings(document: PolicyDocument, template: Boundary) -> list[str]:
    """Return what an operator should know before saving, as sentences."""
    buying, affinity = document.provisioning, document.spot_affinity
    forced = affinity.default == "force" or "force" in affinity.namespaces.values()
    on_demand_only = template.capacity_type == "on_demand"
    candidates = [
        (
            buying.spot_percentage > MUCH_SPOT_PERCENT,
            f"More than {MUCH_SPOT_PERCENT} % spot leaves little room when a pool runs dry.",
        ),
        (
            not buying.fallback_on_demand and forced,
            "Without fallback, pods may stay pending when spot runs dry.",
        ),
        (forced, "Pods are not forced onto spot yet: force does as much as prefer."),
        (not document.binpack.enabled, "Without packing, no node is emptied and nothing is saved."),
        (document.binpack.method == "delete_empty", "Only nodes without pods are deleted."),
        (not document.constraints.az_spread, "Without zone spread, one zone's outage can stop a workload."),
        (not buying.diversification, "Without diversification, one pool may hold half of the nodes."),
        (
            document.binpack.surge_single_replicas,
            "Moving single replicas without a gap needs an agent that may change workloads.",
        ),
        (on_demand_only and buying.spot_percentage > 0, "The template allows no spot nodes."),
    ]
    return [sentence for holds, sentence in candidates if holds] + [
        f"{knob} has no effect yet." for knob in WITHOUT_EFFECT if _is_turned(document, knob)
    ]


def _is_turned(document: PolicyDocument, knob: str) -> bool:
    read = attrgetter(knob)
    return bool(read(document) != read(PolicyDocument()))


def _narrowed(template: Boundary, limits: Constraints) -> TemplateRules:
    families = frozenset(template.families)
    if limits.allowed_families:
        families &= frozenset(limits.allowed_families)
    if limits.block_burstable:
        families -= BURSTABLE_FAMILIES
    if not families:
        raise Conflict(
            "The template and the policy's constraints leave no instance family to launch.",
            code="contradiction",
            template_families=sorted(template.families),
            allowed_families=list(limits.allowed_families),
        )
    return TemplateRules(
        families=families,
        excluded_sizes=frozenset(template.excluded_sizes),
        architecture=template.architecture,
        strategy=template.strategy,
        capacity_type=template.capacity_type,
        hybrid_spot_percentage=template.hybrid_spot_percentage,
    )


def _section(defaults: Any, given: object, path: str, errors: dict[str, list[str]]) -> Any:
    """Return the dataclass of ``defaults`` with what was given, collecting what cannot be taken."""
    if not isinstance(given, Mapping):
        errors[path.rstrip(".")] = ["must be an object."]
        return defaults
    known = {item.name: item for item in fields(defaults)}
    for name in given.keys() - known.keys():
        errors[f"{path}{name}"] = ["is not a knob of the policy."]
    values: dict[str, Any] = {}
    for name in known.keys() & given.keys():
        default, knob = getattr(defaults, name), f"{path}{name}"
        if is_dataclass(default):
            values[name] = _section(default, given[name], f"{knob}.", errors)
            continue
        try:
            values[name] = known[name].metadata["check"](given[name])
        except BadValue as refusal:
            errors[knob] = [str(refusal)]
    return type(defaults)(**values)


def _merged(base: dict[str, Any], changes: Json, shape: object) -> dict[str, Any]:
    result = dict(base)
    for name, value in changes.items():
        inner = getattr(shape, name, None)
        nested = is_dataclass(inner) and isinstance(value, Mapping)
        result[name] = _merged(base[name], value, inner) if nested and isinstance(value, Mapping) else value
    return result


def _plain(value: object) -> object:
    if is_dataclass(value):
        return as_json(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
