"""Spoilt copies of valid plans, at least one for each constraint and each kind of step, and what is wrong."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from policies.domain.plan import Breakdown, Refusal, Wave
from policies.domain.shapes import Taint, Toleration
from policies.tests import scenes
from policies.tests.fleets import NOW, ZONES, node, rules
from policies.tests.mutants_of_placement import MISPLACED
from policies.tests.scenes import (
    LENIENT,
    Mutant,
    Scene,
    insider,
    launched,
    mutant,
    pool,
    staying,
    subject,
    tiny,
)

MONEY = "wrong_price breakdown node_count"
"""What is wrong as well when a removal is not counted once."""


def _taints() -> Iterator[Mutant]:
    """Yield plans that leave only a tainted node to the pods that move."""
    free = node("free", group="")
    tainted = node("tainted", group="", taints=(Taint("gpu", "", "NoExecute"),))
    scene = Scene(subject(), (), nodes=(*Scene(subject(), ()).nodes, free, tainted))
    good, bad = scene.buying(also_removing=(tainted,)), scene.buying(also_removing=(free,))
    yield mutant("tainted_refuge", "Node.taints", good, bad, "no_place taint")
    tolerant = replace(bad, subject=subject(tolerations=(Toleration("gpu", "Exists"),)))
    yield mutant("toleration_lost", "Workload.tolerations", tolerant, bad, "no_place taint")


def _protected() -> Iterator[Mutant]:
    """Yield plans that also remove a node which has to stay."""
    big, resident = pool("m5.4xlarge"), insider("resident")
    base = Scene(subject(), (big,), others=(resident,), on_others={("resident", "stay-0"): 1})
    first = base.nodes[0]
    used_up = {"budget_count": 1, "budget_allows": 0}
    of_pods: Mapping[str, tuple[dict[str, Any], str]] = {
        "do_not_disrupt": ({"do_not_disrupt": True}, "do_not_disrupt"),
        "controlled": ({"controlled": False}, "bare_pod"),
        "has_local_storage": ({"has_local_storage": True}, "local_storage"),
        "unmodelled": ({"unmodelled": ("resource_claims",)}, "unmodelled_rules"),
        "budget_count": ({"budget_count": 2}, "several_budgets"),
        "budget_allows": (used_up, "budget"),
        "minimum_healthy": ({**used_up, "minimum_healthy": 1}, "budget"),
        "namespace": ({"namespace": "kube-system"}, "protected_namespace"),
    }
    for name, (changes, code) in of_pods.items():
        scene = replace(base, others=(replace(resident, **changes),))
        spoilt = scene.buying(big, also_removing=(first,))
        yield mutant(f"removed_{name}", f"Workload.{name}", scene.buying(big), spoilt, code)
    of_node: Mapping[str, tuple[dict[str, Any], str]] = {
        "protected_reason": ({"protected_reason": "marked by hand"}, "protected_node"),
        "ready": ({"ready": False}, "not_ready"),
        "cordoned": ({"cordoned": True}, "not_ready"),
        "launched_at": ({"launched_at": NOW - timedelta(minutes=1)}, "too_young"),
    }
    for name, (changes, code) in of_node.items():
        odd = staying(3, **changes)
        scene = replace(base, nodes=(*base.nodes, staying(4), odd))
        spoilt = scene.buying(big, also_removing=(odd,))
        yield mutant(f"removed_{name}_node", f"Node.{name}", scene.buying(big), spoilt, code)
    stand_in = staying(3, group_kind="spotopt", launched_at=NOW - timedelta(minutes=30))
    scene = replace(base, nodes=(*base.nodes, staying(4), stand_in))
    spoilt = scene.buying(big, also_removing=(stand_in,))
    yield mutant("removed_stand_in", "Rules.spot_reversion", scene.buying(big), spoilt, "reverts_too_soon")
    odd = staying(3, taints=(Taint("licence", "", "PreferNoSchedule"),))
    scene = replace(base, nodes=(*base.nodes, staying(4), odd))
    spoilt = scene.buying(big, also_removing=(odd,))
    valid = replace(spoilt, rules=rules(**LENIENT, excluded_taints=frozenset({"other"})))
    spoilt = replace(spoilt, rules=rules(**LENIENT, excluded_taints=frozenset({"licence"})))
    yield mutant("removed_tainted", "Rules.excluded_taints", valid, spoilt, "excluded_taint")
    sick = (*(staying(number, group="g", ready=number < 2) for number in range(3)), staying(3), staying(4))
    scene = Scene(subject(), (big,), nodes=sick)
    spoilt = scene.buying(big, also_removing=(sick[0],))
    yield mutant("sick_group", "Node.group", scene.buying(big), spoilt, "group_unhealthy")
    scene = replace(base, others=())
    spoilt = scene.buying(big, also_removing=(first,))
    unseen = replace(spoilt.waves[0].removals[1], pods_moved=0, reason_code="empty")
    spoilt = replace(spoilt, waves=(replace(spoilt.waves[0], removals=(scene.removal(), unseen)),))
    yield mutant("undescribed_pods", "Placement.workload_id", scene.buying(big), spoilt, "unknown_pods")


def _against_rules() -> Iterator[Mutant]:
    """Yield valid plans under rules, pools or prices that then forbid them."""
    cheap = pool()
    plan = Scene(subject(), (cheap,)).buying(cheap)
    narrow: Mapping[str, tuple[dict[str, Any], str]] = {
        "families": ({"families": frozenset({"c5"})}, "template"),
        "excluded_sizes": ({"excluded_sizes": frozenset({"xlarge"})}, "template"),
        "architecture": ({"architecture": "arm64"}, "template"),
        "capacity_type": ({"capacity_type": "on_demand"}, "template"),
        "hybrid_spot_percentage": ({"capacity_type": "hybrid", "hybrid_spot_percentage": 10}, "spot_share"),
    }
    for name, (changes, code) in narrow.items():
        template = replace(plan.rules.template, **changes)
        spoilt = replace(plan, rules=replace(plan.rules, template=template))
        yield mutant(f"template_{name}", f"template.{name}", plan, spoilt, code)
    stricter: Mapping[str, tuple[Any, str]] = {
        "max_risk": (0.01, "max_risk"),
        "max_price_per_hour": (Decimal("0.01"), "max_price"),
        "excluded_instance_types": (frozenset({"m5.xlarge"}), "excluded_type"),
        "excluded_labels": ({"kubernetes.io/arch": "amd64"}, "excluded_label"),
        "excluded_namespaces": (frozenset({"shop"}), "protected_namespace"),
        "consolidation": ("none", "consolidation"),
        "default_spot_affinity": ("none", "no_place capacity_type"),
        "spot_percentage": (50, "spot_share"),
        "on_demand_base": (4, "on_demand_base"),
        "min_node_lifetime": (timedelta(days=90), "too_young"),
        "min_nodes": (5, "node_floor"),
        "max_nodes": (4, "max_nodes"),
        "headroom_cpu_percent": (97, "headroom"),
        "headroom_memory_percent": (99, "headroom"),
    }
    for name, (value, code) in stricter.items():
        spoilt = replace(plan, rules=replace(plan.rules, **{name: value}))
        yield mutant(f"against_{name}", f"Rules.{name}", plan, spoilt, code)
    changed: Mapping[str, tuple[Any, str]] = {
        "back_off_until": (NOW + timedelta(minutes=9), "back_off"),
        "usd_per_hour": (cheap.usd_per_hour * 2, "stale_offer"),
        "interruption_risk": (0.2, "stale_offer wrong_risk"),
    }
    for name, (value, codes) in changed.items():
        spoilt = replace(plan, offers=(replace(cheap, **{name: value}),), spoilt={"risk": plan.proposal.risk})
        yield mutant(f"changed_{name}", f"Offer.{name}", plan, spoilt, codes)


def _against_shares() -> Iterator[Mutant]:
    """Yield plans that buy too much of one thing, or leave a zone empty."""
    cheap, demand, other = pool(), pool(capacity_type="on_demand"), pool("c5.xlarge")
    throttled = pool(burstable=True)
    plan = Scene(subject(), (throttled,)).buying(throttled)
    banned = replace(plan, rules=rules(**LENIENT, block_burstable=True))
    yield mutant("burstable", "Rules.block_burstable", plan, banned, "excluded_type")
    capped = Scene(subject(), (cheap, other), rules=rules(**{**LENIENT, "pool_share_percent": 25}))
    good, bad = capped.buying(cheap, other), capped.buying(cheap, cheap)
    yield mutant("crowded_pool", "Rules.pool_share_percent", good, bad, "pool_share")
    far = pool(zone=2)
    last = node(scenes.LEAVING, "m5.8xlarge", ZONES[2], group="")
    spread = replace(capped, offers=(cheap, far), leaving=last, rules=rules(**{**LENIENT, "az_spread": True}))
    yield mutant("last_of_a_zone", "Rules.az_spread", spread.buying(far), spread.buying(cheap), "zones")
    dear = Scene(subject(), (cheap, pool("r5.8xlarge", capacity_type="on_demand"), demand))
    good, bad = dear.buying(cheap), dear.buying(dear.offers[1])
    yield mutant("dearer", "PlanProposal.waves", good, bad, "dearer breakdown")


def _orders() -> Iterator[Mutant]:
    """Yield plans whose steps come too late or too many at once."""
    small = pool()
    plan = Scene(subject(), (small,)).buying(small)
    wave = plan.waves[0]
    late = replace(plan, waves=(replace(wave, launches=()), replace(wave, removals=())))
    yield mutant("launch_too_late", "launch", plan, late, "no_place")
    yield mutant("launch_missing", "launch", plan, plan.buying(), "no_place")
    empty = staying(3)
    slow = rules(**{**LENIENT, "max_disrupted_percent": 20})
    at_once = replace(plan, nodes=(*plan.nodes, empty), rules=slow).buying(small, also_removing=(empty,))
    launches, removals = at_once.waves[0].launches, at_once.waves[0].removals
    paced = replace(at_once, waves=(Wave(launches, removals[:1]), Wave((), removals[1:])))
    yield mutant("wave_too_large", "Rules.max_disrupted_percent", paced, at_once, "wave_size")
    again = replace(plan, waves=(wave, replace(wave, launches=())))
    yield mutant("removed_twice", "removal", plan, again, f"removed_twice bound {MONEY}")
    twice = replace(plan, waves=(replace(wave, launches=(*wave.launches, *launched(small))),))
    yield mutant("launched_twice", "launch", plan, twice, "launched_twice")
    waiting = replace(plan, others=(insider("late", request=tiny(gpu=9)),), pending={"late": 1})
    told = Refusal("workload", "shop/late", "unplaceable", "")
    explained = replace(waiting, spoilt={"refusals": (*waiting.proposal.refusals, told)})
    yield mutant("pending_unexplained", "ClusterSnapshot.pending", explained, waiting, "pending")


def _steps() -> Iterator[Mutant]:
    """Yield plans that name what is not there."""
    small = pool()
    plan = Scene(subject(), (small, pool("m5.large"))).buying(small)
    wave = plan.waves[0]
    larger = "use1-az1:m5.large:spot"
    launches: Mapping[str, tuple[dict[str, Any], str]] = {
        "unknown_type": ({"instance_type": "m9.huge"}, "unknown_pool no_place wrong_risk"),
        "unknown_zone": ({"zone": ZONES[1]}, "unknown_pool wrong_risk"),
        "unknown_alternative": ({"alternatives": ("z:m5.large:spot",)}, "unknown_pool"),
        "small_alternative": ({"alternatives": (larger,), "pods": (("subject", 2),)}, "launch_pods"),
        "overfull": ({"pods": (("subject", 9),)}, "launch_pods"),
        "pods_of_nobody": ({"pods": (("nobody", 1),)}, "launch_pods"),
    }
    for name, (changes, codes) in launches.items():
        changed = replace(wave, launches=(replace(wave.launches[0], **changes),))
        spoilt = replace(plan, waves=(changed,), spoilt={"risk": plan.proposal.risk})
        yield mutant(f"launch_{name}", "launch", plan, spoilt, codes)
    removals: Mapping[str, tuple[dict[str, Any], str]] = {
        "unknown_node": ({"node_id": "ghost"}, f"unknown_node pods_moved wrong_reason dearer {MONEY}"),
        "other_instance": ({"instance_id": "i-9"}, "wrong_instance"),
        "other_price": ({"usd_per_hour": Decimal(9)}, "wrong_price"),
        "pods_overlooked": ({"pods_moved": 0}, "pods_moved"),
        "wrong_reason": ({"reason_code": "empty"}, "wrong_reason"),
    }
    for name, (changes, codes) in removals.items():
        changed = replace(wave, removals=(replace(wave.removals[0], **changes),))
        yield mutant(f"removal_{name}", "removal", plan, replace(plan, waves=(changed,)), codes)


def _figures() -> Iterator[Mutant]:
    """Yield plans with a wrong total or without a reason."""
    plan = Scene(subject(), (pool(),)).buying(pool())
    right = plan.proposal
    leaves = Refusal("node", scenes.LEAVING, "worth_keeping", "")
    wrong: Mapping[str, tuple[Any, str]] = {
        "cluster_id": ("another", "wrong_cluster"),
        "usd_per_hour_before": (right.usd_per_hour_before + 1, "wrong_price"),
        "usd_per_hour_after": (right.usd_per_hour_after + 1, "wrong_price"),
        "breakdown": (Breakdown(Decimal(1), Decimal(1)), "breakdown"),
        "lower_bound_usd_per_hour": (right.usd_per_hour_after + 1, "bound"),
        "risk": (0.5, "wrong_risk"),
        "nodes_before": (9, "node_count"),
        "nodes_after": (9, "node_count"),
        "pods_moved": (9, "pods_moved"),
        "refusals": ((*right.refusals, leaves), "contradiction"),
    }
    for name, (value, codes) in wrong.items():
        spoilt = replace(plan, spoilt={name: value})
        yield mutant(f"wrong_{name}", f"PlanProposal.{name}", plan, spoilt, codes)
    silent = replace(plan, spoilt={"refusals": ()})
    yield mutant("no_reason", "PlanProposal.refusals", plan, silent, "no_reason")


CATALOGUE: tuple[Mutant, ...] = (
    *MISPLACED,
    *_taints(),
    *_protected(),
    *_against_rules(),
    *_against_shares(),
    *_orders(),
    *_steps(),
    *_figures(),
)
