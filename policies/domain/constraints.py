"""Which constraints may make a plan dearer, each with the way to take it away alone."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from policies.domain.consolidation import MIN_READY_NODES
from policies.domain.eligibility import pods_by_node, undisruptable
from policies.domain.model import DAEMON_KINDS, HOSTNAME_KEY, ZONE_KEY
from policies.domain.plan import PlanProposal
from policies.domain.policy import Rules
from policies.domain.refusals import Code
from policies.domain.shapes import ClusterSnapshot, Offer, Workload

World = tuple[ClusterSnapshot, Rules]
_Candidate = tuple[bool, str, str, float, dict[str, Any]]
"""Whether it binds, code, words, weight, and the rule fields without it."""

RELAXED_NAMESPACE = "spotopt-no-longer-protected"
"""Where workloads of a protected namespace stand when their protection is taken away; no such exists."""
_NO_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Constraint:
    """Something that binds the optimizer, and the world without it."""

    code: str
    subject: str
    """``namespace/name`` of a workload, a namespace, or empty for the policy and the template."""
    words: str
    """What it is, fit to be followed by "costs 41 USD a month"."""
    weight: float
    """A rough guess of what it costs, USD per hour: only the order in which they are tried."""
    relax: Callable[[World], World]


@dataclass(frozen=True, slots=True)
class Scene:
    """A plan and what it was made from."""

    snapshot: ClusterSnapshot
    offers: Sequence[Offer]
    rules: Rules
    proposal: PlanProposal

    @property
    def cost(self) -> float:
        """Return the plan's price, USD per hour."""
        return float(self.proposal.usd_per_hour_after)

    @property
    def codes(self) -> frozenset[str]:
        """Return the codes of what the plan left alone."""
        return frozenset(refusal.code for refusal in self.proposal.refusals)

    def kept_usd_per_hour(self, code: Code) -> float:
        """Return the price of the nodes that were left alone for a reason."""
        nodes = {r.subject for r in self.proposal.refusals if r.subject_kind == "node" and r.code == code}
        return float(sum((n.usd_per_hour for n in self.snapshot.nodes if n.id in nodes), Decimal(0)))


def binding(scene: Scene) -> list[Constraint]:
    """Return the constraints that may cost something here, the one that seems largest first."""
    found = [
        *_of_policy(scene),
        *_of_kept(scene),
        *_of_template(scene),
        *_of_standing(scene),
        *_of_placing(scene),
    ]
    return sorted(found, key=lambda constraint: (-constraint.weight, constraint.code, constraint.subject))


# --- the policy ----------------------------------------------------------------------------------------


def _rule(code: str, words: str, weight: float, **changes: Any) -> Constraint:
    def relax(world: World) -> World:
        snapshot, rules = world
        return snapshot, replace(rules, **changes)

    return Constraint(code, "", words, weight, relax)


def _of_policy(scene: Scene) -> Iterator[Constraint]:
    """Yield the limits of the policy on what a plan looks like."""
    rules, cost, kept = scene.rules, scene.cost, scene.kept_usd_per_hour
    headroom = max(rules.headroom_cpu_percent, rules.headroom_memory_percent)
    is_few = Code.NODE_FLOOR in scene.codes or scene.proposal.nodes_after <= rules.min_nodes
    floor_binds = is_few and rules.min_nodes > MIN_READY_NODES
    spot_binds = rules.spot_percentage < _NO_LIMIT and rules.template.capacity_type != "on_demand"
    candidates: tuple[_Candidate, ...] = (
        (rules.az_spread, "az_spread", "Nodes in every zone", cost * 0.03 + kept(Code.LAST_IN_ZONE),
         {"az_spread": False}),
        (headroom > 0, "headroom",
         f"Headroom of {rules.headroom_cpu_percent} % CPU and {rules.headroom_memory_percent} % memory",
         cost * headroom / 100, {"headroom_cpu_percent": 0, "headroom_memory_percent": 0}),
        (floor_binds, "min_nodes", f"At least {rules.min_nodes} nodes",
         cost * 0.05 + kept(Code.NODE_FLOOR), {"min_nodes": 0}),
        (scene.proposal.nodes_after == rules.max_nodes, "max_nodes", f"At most {rules.max_nodes} nodes",
         cost * 0.05, {"max_nodes": None}),
        (rules.on_demand_base > 0, "on_demand_base", f"Base of {rules.on_demand_base} on-demand nodes",
         cost * 0.2 + kept(Code.ON_DEMAND_BASE), {"on_demand_base": 0}),
        (spot_binds, "spot_percentage", f"At most {rules.spot_percentage} % of new nodes' price on spot",
         cost * (_NO_LIMIT - rules.spot_percentage) / 150, {"spot_percentage": _NO_LIMIT}),
        (rules.pool_share_percent < _NO_LIMIT, "pool_share",
         f"At most {rules.pool_share_percent} % of nodes in one pool", cost * 0.05,
         {"pool_share_percent": _NO_LIMIT}),
        (Code.POOL_PRICE in scene.codes and rules.max_price_per_hour is not None, "max_price",
         f"No node above ${rules.max_price_per_hour} an hour", cost * 0.05, {"max_price_per_hour": None}),
        (Code.POOL_RISK in scene.codes, "max_risk",
         f"No pool above {rules.max_risk:.0%} interruption risk", cost * 0.06, {"max_risk": 1.0}),
    )  # fmt: skip
    for holds, code, words, weight, changes in candidates:
        if holds:
            yield _rule(code, words, weight, **changes)


def _of_kept(scene: Scene) -> Iterator[Constraint]:
    """Yield the rules of the policy that keep single nodes."""
    rules, cost, kept = scene.rules, scene.cost, scene.kept_usd_per_hour
    age = int(rules.min_node_lifetime.total_seconds() // 60)
    standing = int(rules.spot_reversion.total_seconds() // 60)
    candidates: tuple[_Candidate, ...] = (
        (Code.EXCLUDED_TYPE in scene.codes, "excluded_types", "Excluded instance types",
         cost * 0.02 + kept(Code.EXCLUDED_TYPE), {"excluded_instance_types": frozenset()}),
        (Code.EXCLUDED_LABEL in scene.codes, "excluded_labels", "Nodes excluded by label",
         kept(Code.EXCLUDED_LABEL), {"excluded_labels": {}}),
        (Code.SPOT_TO_SPOT in scene.codes, "spot_to_spot",
         f"Spot for spot only when {rules.spot_to_spot_saving_percent} % cheaper",
         kept(Code.SPOT_TO_SPOT) * 0.1, {"spot_to_spot_saving_percent": 0, "spot_to_spot_pools": 1}),
        (Code.FALLBACK in scene.codes, "spot_reversion", f"On-demand stand-ins kept for {standing} minutes",
         kept(Code.FALLBACK) / 2, {"spot_reversion": rules.spot_reversion * 0}),
        (Code.TOO_YOUNG in scene.codes, "min_node_lifetime", f"Nodes left alone for {age} minutes",
         kept(Code.TOO_YOUNG), {"min_node_lifetime": rules.min_node_lifetime * 0}),
    )  # fmt: skip
    for holds, code, words, weight, changes in candidates:
        if holds:
            yield _rule(code, words, weight, **changes)


# --- the template --------------------------------------------------------------------------------------


def _of_template(scene: Scene) -> Iterator[Constraint]:
    """Yield what the template keeps from being bought."""
    template, cost = scene.rules.template, scene.cost
    families = frozenset(offer.family for offer in scene.offers)
    candidates: tuple[_Candidate, ...] = (
        (Code.POOL_FAMILY in scene.codes, "families",
         f"Only {_counted(len(template.families), 'instance family', 'instance families')}",
         cost * 0.15, {"families": families}),
        (Code.POOL_SIZE in scene.codes, "excluded_sizes", "Excluded sizes", cost * 0.04,
         {"excluded_sizes": frozenset()}),
        (template.capacity_type == "on_demand", "on_demand_template", "Only on-demand nodes", cost * 0.6,
         {"capacity_type": "spot"}),
        (template.capacity_type == "hybrid", "hybrid_template",
         f"At most {template.hybrid_spot_percentage} % spot by the template",
         cost * (_NO_LIMIT - template.hybrid_spot_percentage) / 150, {"capacity_type": "spot"}),
    )  # fmt: skip
    for holds, code, words, weight, changes in candidates:
        if holds:
            yield _rule(code, words, weight, template=replace(template, **changes))


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


# --- pods that must not move ---------------------------------------------------------------------------

_MOVABLE: Mapping[Code, tuple[str, Mapping[str, Any]]] = {
    Code.DO_NOT_DISRUPT: ("Do-not-disrupt mark of {}", {"do_not_disrupt": False}),
    Code.BARE_POD: ("Pod without a controller: {}", {"controlled": True}),
    Code.UNMODELLED_RULES: ("Placement rules of {} that are not planned with", {"unmodelled": ()}),
    Code.LOCAL_STORAGE: ("Local storage of {}", {"has_local_storage": False}),
    Code.SEVERAL_BUDGETS: ("Several disruption budgets of {}", {"budget_count": 1, "budget_allows": 1}),
    Code.BUDGET_NEVER_ALLOWS: ("Disruption budget of {}", {"budget_allows": 1, "minimum_healthy": 0}),
    Code.BUDGET_EXHAUSTED: ("Used-up disruption budget of {}", {"budget_allows": 1}),
}
"""Why pods stay where they are: in words, and the workload without it."""


def _of_standing(scene: Scene) -> Iterator[Constraint]:
    """Yield what keeps pods, and with them their nodes, where they are."""
    prices = _prices_under(scene)
    namespaces: dict[str, float] = defaultdict(float)
    for workload in scene.snapshot.workloads:
        reason = None if workload.kind in DAEMON_KINDS else undisruptable(workload, scene.rules)
        if reason is None or not prices.get(workload.id):
            continue
        code = reason[0]
        if code is Code.PROTECTED_NAMESPACE:
            namespaces[workload.namespace] += prices[workload.id]
        elif code in _MOVABLE:
            words, changes = _MOVABLE[code]
            yield _workload(code.value, words, workload, prices[workload.id] / 2, **changes)
    for namespace, usd in namespaces.items():
        members = [w for w in scene.snapshot.workloads if w.namespace == namespace]
        words = f"Protected namespace {namespace}"
        change = _changing(members, {"namespace": RELAXED_NAMESPACE})
        yield Constraint(Code.PROTECTED_NAMESPACE.value, namespace, words, usd / 2, change)


def _prices_under(scene: Scene) -> dict[str, float]:
    """Return, by workload, the price of the nodes that were left alone and carry its pods."""
    stuck = {refusal.subject for refusal in scene.proposal.refusals if refusal.subject_kind == "node"}
    prices: dict[str, float] = defaultdict(float)
    placed = pods_by_node(scene.snapshot)
    for node in scene.snapshot.nodes:
        if node.id in stuck:
            for workload_id in placed.get(node.id, {}):
                prices[workload_id] += float(node.usd_per_hour)
    return prices


# --- where pods may run --------------------------------------------------------------------------------


def _of_placing(scene: Scene) -> Iterator[Constraint]:
    """Yield what keeps pods from nodes that would hold them."""
    shares = _shares(scene)
    barred: dict[str, float] = defaultdict(float)
    for workload in scene.snapshot.workloads:
        usd = shares.get(workload.id, 0.0)
        if workload.kind in DAEMON_KINDS or not usd:
            continue
        if scene.rules.spot_affinity.get(workload.namespace) == "none":
            barred[workload.namespace] += usd
        yield from _rules_of(workload, usd)
    for namespace, usd in barred.items():
        affinity = {name: v for name, v in scene.rules.spot_affinity.items() if name != namespace}
        words = f"Namespace {namespace} kept off spot"
        constraint = _rule("namespace_off_spot", words, usd * 0.6, spot_affinity=affinity)
        yield replace(constraint, subject=namespace)


def _rules_of(workload: Workload, usd: float) -> Iterator[Constraint]:
    for key in sorted({rule.topology_key for rule in workload.spread}):
        left = tuple(rule for rule in workload.spread if rule.topology_key != key)
        words = f"{_TOPOLOGY.get(key, key)} spread of {{}}"
        yield _workload("spread", words, workload, usd * 0.1, spread=left)
    candidates: tuple[_Candidate, ...] = (
        (not workload.spot_tolerant, "on_demand_only", "On-demand nodes for {}", usd * 0.6,
         {"spot_tolerant": True}),
        (workload.on_demand_minimum > 0, "on_demand_minimum",
         f"{workload.on_demand_minimum} pods of {{}} on on-demand nodes", usd * 0.3,
         {"on_demand_minimum": 0}),
        (bool(workload.anti_affinity_keys or workload.pod_anti_affinity), "anti_affinity",
         "Anti-affinity of {}", usd * 0.1, {"anti_affinity_keys": (), "pod_anti_affinity": ()}),
        (bool(workload.pod_affinity), "pod_affinity", "Affinity of {} to other pods", usd * 0.1,
         {"pod_affinity": ()}),
        (bool(workload.pinned_zone), "pinned_zone", f"Disks of {{}} in {workload.pinned_zone}", usd * 0.05,
         {"pinned_zone": ""}),
        (bool(workload.node_selector or workload.requirements or workload.alternatives), "node_selector",
         "Node selector of {}", usd * 0.2, {"node_selector": {}, "requirements": (), "alternatives": ()}),
    )  # fmt: skip
    for holds, code, words, weight, changes in candidates:
        if holds:
            yield _workload(code, words, workload, weight, **changes)


_TOPOLOGY = {ZONE_KEY: "Zone", HOSTNAME_KEY: "Host", "karpenter.sh/capacity-type": "Capacity-type"}


def _shares(scene: Scene) -> dict[str, float]:
    """Return, by workload, its part of the plan's price: by CPU or memory asked, whichever is more."""
    pods: dict[str, int] = defaultdict(int)
    for placement in scene.snapshot.placements:
        pods[placement.workload_id] += placement.count
    for workload_id, count in scene.snapshot.pending.items():
        pods[workload_id] += count
    asked = {w.id: w.request.times(pods[w.id]) for w in scene.snapshot.workloads}
    cpu = max(1, sum(request.cpu_millis for request in asked.values()))
    memory = max(1, sum(request.memory_mib for request in asked.values()))
    return {
        name: scene.cost * max(request.cpu_millis / cpu, request.memory_mib / memory)
        for name, request in asked.items()
    }


def _workload(code: str, words: str, workload: Workload, weight: float, **changes: Any) -> Constraint:
    name = f"{workload.namespace}/{workload.name}"
    return Constraint(code, name, words.format(name), weight, _changing([workload], changes))


def _changing(members: Iterable[Workload], changes: Mapping[str, Any]) -> Callable[[World], World]:
    chosen = {workload.id for workload in members}

    def relax(world: World) -> World:
        snapshot, rules = world
        workloads = tuple(replace(w, **changes) if w.id in chosen else w for w in snapshot.workloads)
        return replace(snapshot, workloads=workloads), rules

    return relax
