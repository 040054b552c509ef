"""Every kind of constraint that a generated cluster may have, each as changes to one of its parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

from policies.domain.shapes import (
    Node,
    Offer,
    PodTerm,
    Requirement,
    Resources,
    SpreadRule,
    Taint,
    Toleration,
    Workload,
)
from spotopt.bench.cases.world import FAMILIES, NOW, ZONES, template

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
CAPACITY = "karpenter.sh/capacity-type"
ARCH = "kubernetes.io/arch"
DEDICATED = Taint("dedicated", "batch", "NoSchedule")
Changes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of constraint: what it changes of a workload, a node, a pool or the rules."""

    name: str
    change: Callable[[Random, Any, Sequence[Workload]], Changes]
    """(chance, the part to change, all workloads) → new values of its fields."""
    codes: frozenset[str] = frozenset()
    """Refusal codes that name it when it is what keeps a node or a pending pod."""


def _fixed(**values: Any) -> Callable[[Random, Any, Sequence[Workload]], Changes]:
    return lambda _chance, _part, _workloads: values


def _one_of(field: str, *values: Any) -> Callable[[Random, Any, Sequence[Workload]], Changes]:
    return lambda chance, _part, _workloads: {field: chance.choice(values)}


def _asks(**amounts: tuple[int, int]) -> Callable[[Random, Any, Sequence[Workload]], Changes]:
    def change(chance: Random, part: Workload, _workloads: Sequence[Workload]) -> Changes:
        more = Resources(**{name: chance.randint(*span) for name, span in amounts.items()})
        return {"request": part.request + more}

    return change


def _term(field: str, *keys: str) -> Callable[[Random, Any, Sequence[Workload]], Changes]:
    def change(chance: Random, part: Workload, workloads: Sequence[Workload]) -> Changes:
        others = [each.id for each in workloads if each.id != part.id]
        return {field: (PodTerm(chance.choice(keys), (chance.choice(others),)),)} if others else {}

    return change


def _of_a_family(chance: Random, _part: Workload, _workloads: Sequence[Workload]) -> Changes:
    return {"node_selector": {"example.com/family": chance.choice(FAMILIES)}}


def _expression(chance: Random, _part: Workload, _workloads: Sequence[Workload]) -> Changes:
    return {"requirements": (_any_requirement(chance),)}


def _any_requirement(chance: Random) -> Requirement:
    return chance.choice(
        (
            Requirement(ZONE, "In", (ZONES[0], ZONES[1])),
            Requirement(ZONE, "NotIn", (chance.choice(ZONES),)),
            Requirement("example.com/cpu", "Gt", ("3",)),
            Requirement("example.com/cpu", "Lt", ("9",)),
            Requirement("example.com/family", "Exists"),
            Requirement("example.com/retired", "DoesNotExist"),
        )
    )


def _several_terms(chance: Random, _part: Workload, _workloads: Sequence[Workload]) -> Changes:
    near = (Requirement(ZONE, "In", (chance.choice(ZONES),)), _any_requirement(chance))
    return {"alternatives": (near, (Requirement("example.com/family", "In", (chance.choice(FAMILIES),)),))}


def _counting_others(chance: Random, part: Workload, workloads: Sequence[Workload]) -> Changes:
    others = tuple(each.id for each in workloads if each.id != part.id)[:1]
    return {"spread": (SpreadRule(ZONE, chance.choice((1, 2)), also_counts=others),)}


def _on_demand_part(chance: Random, part: Workload, _workloads: Sequence[Workload]) -> Changes:
    return {"on_demand_minimum": chance.randint(1, part.replicas)}


def _narrower(**values: Any) -> Callable[[Random, Any, Sequence[Workload]], Changes]:
    return _fixed(template=template(**values))


def _small_families(chance: Random, _part: Any, _workloads: Sequence[Workload]) -> Changes:
    return {"template": template(families=frozenset(chance.sample(FAMILIES, 2)))}


def _hybrid(chance: Random, _part: Any, _workloads: Sequence[Workload]) -> Changes:
    percent = chance.choice((20, 50, 70))
    return {"template": template(capacity_type="hybrid", hybrid_spot_percentage=percent)}


def _kinds(*kinds: tuple[str, Callable[[Random, Any, Sequence[Workload]], Changes], str]) -> tuple[Kind, ...]:
    return tuple(Kind(name, change, frozenset(codes.split())) for name, change, codes in kinds)


_PINNING_WORKLOADS = _kinds(
    ("budget_exhausted", _fixed(budget_count=1, budget_allows=0), "budget_exhausted"),
    ("budget_never", _fixed(budget_count=1, budget_allows=0, minimum_healthy=99), "budget_never_allows"),
    ("several_budgets", _fixed(budget_count=2, budget_allows=1), "several_budgets"),
    ("do_not_disrupt", _fixed(do_not_disrupt=True), "do_not_disrupt"),
    ("bare_pod", _fixed(controlled=False), "bare_pod"),
    ("local_storage", _fixed(has_local_storage=True), "local_storage"),
    ("unmodelled", _fixed(unmodelled=("namespace_selector",)), "unmodelled_rules"),
    ("protected_namespace", _fixed(namespace="kube-system"), "protected_namespace"),
)
OF_WORKLOADS = _PINNING_WORKLOADS + _kinds(
    ("large_cpu", _asks(cpu_millis=(1500, 6000)), "no_room_elsewhere"),
    ("large_memory", _asks(memory_mib=(6_000, 30_000)), "no_room_elsewhere"),
    ("ephemeral_storage", _asks(ephemeral_mib=(4_000, 9_000)), "no_room_elsewhere"),
    ("gpu", _asks(gpu=(1, 1)), "no_room_elsewhere"),
    ("node_selector", _of_a_family, "node_selection"),
    ("architecture", _one_of("node_selector", {ARCH: "amd64"}, {ARCH: "arm64"}), "node_selection"),
    ("node_affinity", _expression, "node_selection"),
    ("alternative_terms", _several_terms, "node_selection"),
    ("toleration", _fixed(tolerations=(Toleration("dedicated", "Exists"),)), ""),
    ("zone_spread", _one_of("spread", (SpreadRule(ZONE, 1),), (SpreadRule(ZONE, 2),)), "spread"),
    ("host_spread", _one_of("spread", (SpreadRule(HOST, 1),), (SpreadRule(HOST, 2),)), "spread"),
    ("capacity_spread", _one_of("spread", (SpreadRule(CAPACITY, 1),), (SpreadRule(CAPACITY, 3),)), "spread"),
    ("minimum_domains", _fixed(spread=(SpreadRule(ZONE, 1, min_domains=3),)), "spread"),
    ("spread_with_others", _counting_others, "spread"),
    ("own_anti_affinity", _one_of("anti_affinity_keys", (HOST,), (HOST,), (ZONE,)), "anti_affinity"),
    ("pod_anti_affinity", _term("pod_anti_affinity", HOST, HOST, ZONE), "anti_affinity"),
    ("pod_affinity", _term("pod_affinity", ZONE, ZONE, HOST), "pod_affinity neighbour_needed"),
    ("volume_zone", _one_of("pinned_zone", *ZONES), "volume_zone"),
    ("on_demand_only", _fixed(spot_tolerant=False), "capacity_type"),
    ("on_demand_minimum", _on_demand_part, "on_demand_minimum"),
    ("budget", _fixed(budget_count=1, budget_allows=1, minimum_healthy=1), ""),
)


def _ten_slots(_chance: Random, node: Node, _workloads: Sequence[Workload]) -> Changes:
    return {"allocatable": replace(node.allocatable, pods=10)}


def _threefold_daemons(_chance: Random, node: Node, _workloads: Sequence[Workload]) -> Changes:
    return {"daemon_overhead": node.daemon_overhead.times(3)}


_PINNING_NODES = _kinds(
    ("not_ready", _fixed(ready=False), "not_ready group_unhealthy"),
    ("cordoned", _fixed(cordoned=True), "cordoned"),
    ("protected_node", _fixed(protected_reason="marked by hand"), "protected"),
    ("young_node", _fixed(launched_at=NOW - timedelta(minutes=1)), "too_young"),
)
OF_NODES = _PINNING_NODES + _kinds(
    ("taint", _fixed(taints=(DEDICATED,)), "taints"),
    ("few_pod_slots", _ten_slots, "no_room_elsewhere"),
    ("daemon_overhead", _threefold_daemons, "no_room_elsewhere"),
)


def _dearer(_chance: Random, offer: Offer, _workloads: Sequence[Workload]) -> Changes:
    return {"usd_per_hour": offer.usd_per_hour * 3}


OF_POOLS = _kinds(
    ("pool_back_off", _fixed(back_off_until=NOW + timedelta(minutes=20)), "pool_back_off"),
    ("dear_pool", _dearer, ""),
)

_PINNING_RULES = _kinds(
    ("excluded_label", _fixed(excluded_labels={"example.com/family": "m5"}), "excluded_label"),
    ("excluded_type", _fixed(excluded_instance_types=frozenset({"m5.xlarge"})), "excluded_instance_type"),
    ("excluded_namespace", _fixed(excluded_namespaces=frozenset({"shop"})), "protected_namespace"),
)
OF_RULES = _PINNING_RULES + _kinds(
    ("families", _small_families, "pool_family"),
    ("sizes", _narrower(excluded_sizes=frozenset({"4xlarge", "2xlarge"})), "pool_size"),
    ("template_arm64", _narrower(architecture="arm64"), "pool_architecture"),
    ("template_on_demand", _narrower(capacity_type="on_demand"), "pool_capacity_type"),
    ("template_hybrid", _hybrid, ""),
    ("capacity_optimized", _narrower(strategy="balanced"), ""),
    ("spot_share", _one_of("spot_percentage", 0, 30, 60), ""),
    ("on_demand_base", _one_of("on_demand_base", 1, 2, 4), "on_demand_base"),
    ("max_price", _fixed(max_price_per_hour=Decimal("0.12")), "pool_price"),
    ("block_burstable", _fixed(block_burstable=True), "pool_burstable"),
    ("zone_cover", _fixed(az_spread=True), "last_in_zone"),
    ("min_nodes", _one_of("min_nodes", 4, 6, 9), "node_floor"),
    ("max_nodes", _one_of("max_nodes", 6, 9, 12), ""),
    ("headroom", _one_of("headroom_cpu_percent", 10, 30), "headroom"),
    ("memory_headroom", _one_of("headroom_memory_percent", 10, 40), "headroom"),
    ("pool_share", _one_of("pool_share_percent", 10, 25, 40), ""),
    ("pace", _one_of("max_disrupted_percent", 5, 10), ""),
    ("max_risk", _fixed(max_risk=0.07), "pool_risk"),
    ("min_saving", _one_of("min_saving_percent", 10, 30), "saving_too_small"),
    ("disruption_gate", _one_of("min_saving_per_disruption", 0.5, 1.0), "disrupts_too_much"),
    ("spot_to_spot", _one_of("spot_to_spot_saving_percent", 20, 60), "spot_to_spot"),
    ("namespace_off_spot", _fixed(spot_affinity={"shop": "none"}), "capacity_type"),
)

UNPLACEABLE = _kinds(
    ("pending_too_large", _asks(cpu_millis=(500_000, 500_000)), "unplaceable"),
    ("pending_no_label", _fixed(node_selector={"disk": "none"}), "node_selection"),
    ("pending_no_zone", _fixed(pinned_zone="us-east-1z"), "volume_zone"),
)
"""What makes a pending pod fit nowhere at all."""

ALL: tuple[Kind, ...] = (*OF_WORKLOADS, *OF_NODES, *OF_POOLS, *OF_RULES, *UNPLACEABLE)
PINNING = (*_PINNING_WORKLOADS, *_PINNING_NODES, *_PINNING_RULES)
"""Kinds for which nodes must stay, whatever that costs."""
