"""Verifies a plan step by step; shares no code with what makes plans."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from policies.domain.plan import Launch, PlanProposal, Removal
from policies.domain.policy import PROTECTED_NAMESPACES, Rules
from policies.domain.replay import Replay
from policies.domain.replay_rules import Host, amounts, barriers, needs
from policies.domain.shapes import CapacityType, ClusterSnapshot, Node, Offer, Workload

ABSOLUTE_FLOOR = 3
DAEMON_KINDS = ("DaemonSet", "Node")
RISK_TOLERANCE = 1e-9


def check(
    *, snapshot: ClusterSnapshot, proposal: PlanProposal, offers: Sequence[Offer], rules: Rules
) -> tuple[str, ...]:
    """Return every violation as ``code: sentence``; an empty tuple means that the plan is valid."""
    return tuple(_violations(snapshot, proposal, offers, rules))


def _violations(
    snapshot: ClusterSnapshot, proposal: PlanProposal, offers: Sequence[Offer], rules: Rules
) -> Iterator[str]:
    if snapshot.cluster_id != proposal.cluster_id:
        yield "wrong_cluster: the plan is for another cluster"
        return
    unknown = list(_identity(snapshot, proposal))
    yield from unknown
    yield from _money(snapshot, proposal)
    yield from _figures(snapshot, proposal, offers)
    yield from _purchases(proposal, offers, rules)
    yield from _shares(snapshot, proposal, rules)
    yield from _pods(snapshot, proposal, offers, rules)
    yield from _reasons(snapshot, proposal)
    yield from _disruptions(snapshot, proposal, rules)
    if not unknown:
        yield from _steps(snapshot, proposal, offers, rules)


def _launches(proposal: PlanProposal) -> list[Launch]:
    return [launch for wave in proposal.waves for launch in wave.launches]


def _removals(proposal: PlanProposal) -> list[Removal]:
    return [removal for wave in proposal.waves for removal in wave.removals]


def _identity(snapshot: ClusterSnapshot, proposal: PlanProposal) -> Iterator[str]:
    nodes = {node.id: node for node in snapshot.nodes}
    for node_id, times in Counter(removal.node_id for removal in _removals(proposal)).items():
        if node_id not in nodes:
            yield f"unknown_node: {node_id} is not in the cluster"
        if times > 1:
            yield f"removed_twice: {node_id} is removed {times} times"
    for removal in _removals(proposal):
        node = nodes.get(removal.node_id)
        if node is not None and node.instance_id != removal.instance_id:
            yield f"wrong_instance: {removal.node_id} is not {removal.instance_id}"
    for launch_id, times in Counter(launch.id for launch in _launches(proposal)).items():
        if times > 1:
            yield f"launched_twice: {launch_id} is launched {times} times"


def _money(snapshot: ClusterSnapshot, proposal: PlanProposal) -> Iterator[str]:
    zero = Decimal(0)
    prices = {node.id: node.usd_per_hour for node in snapshot.nodes}
    before = sum(prices.values(), zero)
    gone = sum((prices.get(removal.node_id, zero) for removal in _removals(proposal)), zero)
    after = before - gone + sum((launch.usd_per_hour for launch in _launches(proposal)), zero)
    if proposal.usd_per_hour_before != before:
        yield f"wrong_price: before is {before}, not {proposal.usd_per_hour_before}"
    if proposal.usd_per_hour_after != after:
        yield f"wrong_price: after is {after}, not {proposal.usd_per_hour_after}"
    if any(removal.usd_per_hour != prices.get(removal.node_id) for removal in _removals(proposal)):
        yield "wrong_price: a removed node has another price"
    if after > before:
        yield "dearer: the plan costs more than doing nothing"
    if proposal.breakdown.total != before - after:
        yield "breakdown: the parts do not add up to the saving"
    parts = proposal.breakdown
    if min(parts.spot_replacement, parts.bin_packing, parts.rightsizing, parts.hibernation) < 0:
        yield "breakdown: a part is negative"
    if proposal.lower_bound_usd_per_hour > after:
        yield "bound: the lower bound is above the price after"


def _figures(snapshot: ClusterSnapshot, proposal: PlanProposal, offers: Sequence[Offer]) -> Iterator[str]:
    if abs(proposal.risk - _mean_risk(snapshot, proposal, offers)) > RISK_TOLERANCE:
        yield "wrong_risk: the mean interruption risk is not that of the nodes after the plan"
    if proposal.nodes_before != len(snapshot.nodes):
        yield "node_count: the number of nodes before is wrong"
    if proposal.nodes_after != len(snapshot.nodes) - len(_removals(proposal)) + len(_launches(proposal)):
        yield "node_count: the number of nodes after is wrong"


def _mean_risk(snapshot: ClusterSnapshot, proposal: PlanProposal, offers: Sequence[Offer]) -> float:
    """Return the interruption risk of the nodes after the plan, weighted by their prices."""
    risks = {(o.instance_type, o.zone, o.capacity_type): o.interruption_risk for o in offers}
    removed = {removal.node_id for removal in _removals(proposal)}
    stay: list[Node | Launch] = [node for node in snapshot.nodes if node.id not in removed]
    priced = [
        (float(n.usd_per_hour), risks.get((n.instance_type, n.zone, n.capacity_type), 0.0))
        for n in (*stay, *_launches(proposal))
    ]
    total = sum(price for price, _ in priced)
    return sum(price * risk for price, risk in priced) / total if total else 0.0


def _purchases(proposal: PlanProposal, offers: Sequence[Offer], rules: Rules) -> Iterator[str]:
    pools = {offer.pool: offer for offer in offers}
    for launch in _launches(proposal):
        name = _pool(launch)
        offer = pools.get(name)
        if offer is None or offer.zone != launch.zone:
            yield f"unknown_pool: {launch.id} comes from {name} in {launch.zone}, which is not offered"
        elif (offer.usd_per_hour, offer.interruption_risk) != (launch.usd_per_hour, launch.interruption_risk):
            yield f"stale_offer: {launch.id} has another price or risk than {name}"
        for pool in (name, *launch.alternatives):
            if pool not in pools:
                yield f"unknown_pool: {launch.id} names {pool}, which is not offered"
            else:
                yield from (f"{why} ({launch.id})" for why in _forbidden(pools[pool], proposal, rules))


def _forbidden(offer: Offer, proposal: PlanProposal, rules: Rules) -> Iterator[str]:
    template = rules.template
    _, _, size = offer.instance_type.partition(".")
    x86 = ("x86_64", "amd64")
    same_arch = offer.arch == template.architecture or (offer.arch in x86 and template.architecture in x86)
    if offer.family not in template.families or not same_arch:
        yield f"template: {offer.pool} is outside the template"
    if any(size == banned or size.startswith(banned + "-") for banned in template.excluded_sizes):
        yield f"template: {offer.pool} has an excluded size"
    if offer.capacity_type is CapacityType.SPOT and template.capacity_type == "on_demand":
        yield f"template: {offer.pool} is spot"
    if offer.instance_type in rules.excluded_instance_types or (offer.burstable and rules.block_burstable):
        yield f"excluded_type: {offer.pool} is excluded by the policy"
    if rules.max_price_per_hour is not None and offer.usd_per_hour > rules.max_price_per_hour:
        yield f"max_price: {offer.pool} is above the price limit"
    if offer.interruption_risk > rules.max_risk:
        yield f"max_risk: {offer.pool} is above the risk limit"
    if offer.back_off_until is not None and offer.back_off_until > proposal.quoted_at:
        yield f"back_off: {offer.pool} is out of capacity"


def _shares(snapshot: ClusterSnapshot, proposal: PlanProposal, rules: Rules) -> Iterator[str]:
    launches = _launches(proposal)
    if not launches:
        return
    removed = {removal.node_id for removal in _removals(proposal)}
    stay = [node for node in snapshot.nodes if node.id not in removed]
    pools = Counter((node.instance_type, node.zone) for node in stay)
    pools.update((launch.instance_type, launch.zone) for launch in launches)
    most = max(1, (len(stay) + len(launches)) * rules.pool_share_percent // 100)
    for pool in sorted({(launch.instance_type, launch.zone) for launch in launches}):
        if pools[pool] > most:
            yield f"pool_share: {pools[pool]} nodes in {pool[0]} {pool[1]}; the rules allow {most}"
    spot = [launch for launch in launches if launch.capacity_type is CapacityType.SPOT]
    total_usd = sum((launch.usd_per_hour for launch in launches), Decimal(0))
    spot_usd = sum((launch.usd_per_hour for launch in spot), Decimal(0))
    hybrid = rules.template.capacity_type == "hybrid"
    percent = min(rules.spot_percentage, rules.template.hybrid_spot_percentage if hybrid else 100)
    if spot_usd * 100 > total_usd * percent:
        yield f"spot_share: more than {percent} % of the new nodes' price is spot"


def _pods(
    snapshot: ClusterSnapshot, proposal: PlanProposal, offers: Sequence[Offer], rules: Rules
) -> Iterator[str]:
    """Compare what the plan says about pods with the cluster, and with what each new node holds."""
    workloads = {w.id: w for w in snapshot.workloads if w.kind not in DAEMON_KINDS}
    carried: Counter[str] = Counter()
    for placement in snapshot.placements:
        if placement.workload_id in workloads:
            carried[placement.node_id] += max(0, placement.count)
    for removal in _removals(proposal):
        pods = carried[removal.node_id]
        if removal.pods_moved != pods:
            yield f"pods_moved: {removal.node_id} carries {pods} pods, not {removal.pods_moved}"
        if (removal.reason_code == "empty") is not (pods == 0):
            yield f"wrong_reason: {removal.node_id} carries {pods} pods and goes as {removal.reason_code}"
    if proposal.pods_moved != sum(carried[removal.node_id] for removal in _removals(proposal)):
        yield "pods_moved: the total is wrong"
    pools = {offer.pool: offer for offer in offers}
    for launch in _launches(proposal):
        for pool in (_pool(launch), *launch.alternatives):
            if pool in pools and not _holds(pools[pool], launch, workloads, rules):
                yield f"launch_pods: {pool} cannot hold the pods that {launch.id} is bought for"


def _holds(offer: Offer, launch: Launch, workloads: Mapping[str, Workload], rules: Rules) -> bool:
    """Tell whether a node of the offer accepts and holds the pods expected on the launch."""
    host = Host(launch.id, offer, ready=True, taints=())
    free = list(amounts(offer.allocatable - offer.daemon_overhead))
    for workload_id, count in launch.pods:
        workload = workloads.get(workload_id)
        if workload is None:
            return False
        tolerant = workload.spot_tolerant and _wish(workload, rules) != "none"
        if any(barriers(workload, host, tolerant=tolerant)):
            return False
        free = [left - count * need for left, need in zip(free, needs(workload), strict=True)]
    return min(free) >= 0


def _pool(launch: Launch) -> str:
    return f"{launch.zone_id}:{launch.instance_type}:{launch.capacity_type}"


def _reasons(snapshot: ClusterSnapshot, proposal: PlanProposal) -> Iterator[str]:
    removed = {removal.node_id for removal in _removals(proposal)}
    explained = {refusal.subject for refusal in proposal.refusals if refusal.subject_kind == "node"}
    for node in snapshot.nodes:
        if node.id not in removed and node.id not in explained:
            yield f"no_reason: {node.id} stays without a reason"
        if node.id in removed and node.id in explained:
            yield f"contradiction: {node.id} is removed and refused"


def _disruptions(snapshot: ClusterSnapshot, proposal: PlanProposal, rules: Rules) -> Iterator[str]:
    nodes = {node.id: node for node in snapshot.nodes}
    workloads = {workload.id: workload for workload in snapshot.workloads}
    removed = {removal.node_id for removal in _removals(proposal)} & set(nodes)
    for node_id in sorted(removed):
        yield from _node_faults(nodes[node_id], snapshot, proposal, rules)
    for placement in snapshot.placements:
        if placement.node_id not in removed or placement.count <= 0:
            continue
        workload = workloads.get(placement.workload_id)
        if workload is None:
            yield f"unknown_pods: {placement.node_id} carries pods that nothing describes"
        else:
            yield from (f"{why} ({placement.node_id})" for why in _pod_faults(workload, rules))


def _node_faults(
    node: Node, snapshot: ClusterSnapshot, proposal: PlanProposal, rules: Rules
) -> Iterator[str]:
    if node.protected_reason:
        yield f"protected_node: {node.id} is protected"
    if not node.ready or node.cordoned:
        yield f"not_ready: {node.id} is not ready or cordoned"
    if proposal.quoted_at - node.launched_at < rules.min_node_lifetime:
        yield f"too_young: {node.id} is too young"
    own = node.group_kind == "spotopt" and node.capacity_type is CapacityType.ON_DEMAND
    if own and proposal.quoted_at - node.launched_at < rules.spot_reversion:
        yield f"reverts_too_soon: {node.id} was launched on demand a short while ago"
    yield from _exclusions(node, rules)
    if node.group:
        group = [other.ready for other in snapshot.nodes if other.group == node.group]
        if group.count(False) * 5 > len(group):
            yield f"group_unhealthy: over a fifth of {node.group} is not ready"


def _exclusions(node: Node, rules: Rules) -> Iterator[str]:
    if any(node.labels.get(key) == value for key, value in rules.excluded_labels.items()):
        yield f"excluded_label: {node.id} has an excluded label"
    if any(taint.key in rules.excluded_taints for taint in node.taints):
        yield f"excluded_taint: {node.id} has an excluded taint"
    if rules.consolidation == "none":
        yield f"consolidation: {node.id} is emptied, which the policy does not allow"
    if node.instance_type in rules.excluded_instance_types:
        yield f"excluded_type: {node.id} has an excluded type"


def _wish(workload: Workload, rules: Rules) -> str:
    return rules.spot_affinity.get(workload.namespace, rules.default_spot_affinity)


def _pod_faults(workload: Workload, rules: Rules) -> Iterator[str]:
    if workload.kind in DAEMON_KINDS:
        return
    name = f"{workload.namespace}/{workload.name}"
    if rules.consolidation != "all":
        yield f"consolidation: {name} would be evicted, which the policy does not allow"
    if workload.namespace in PROTECTED_NAMESPACES or workload.namespace in rules.excluded_namespaces:
        yield f"protected_namespace: {name} would be evicted"
    if workload.do_not_disrupt:
        yield f"do_not_disrupt: {name} would be evicted"
    if not workload.controlled:
        yield f"bare_pod: {name} would be lost"
    if workload.unmodelled:
        yield f"unmodelled_rules: {name} may find no place that its rules allow"
    if workload.has_local_storage:
        yield f"local_storage: {name} would lose its data"
    if workload.budget_count > 1:
        yield f"several_budgets: {name} cannot be evicted"
    if workload.budget_allows is not None and workload.budget_allows <= 0:
        yield f"budget: the budget of {name} lets no pod go"


def _steps(
    snapshot: ClusterSnapshot, proposal: PlanProposal, offers: Sequence[Offer], rules: Rules
) -> Iterator[str]:
    """Play the waves; report every state that breaks a rule."""
    pools = {offer.pool: offer for offer in offers}
    replay = Replay(snapshot, [removal.node_id for removal in _removals(proposal)], rules)
    for number, wave in enumerate(proposal.waves, start=1):
        for launch in wave.launches:
            offer = pools.get(_pool(launch))
            if offer is not None:
                replay.add(launch, offer)
        limits = list(_wave_limits(replay, len(wave.launches), len(wave.removals), rules))
        replay.admit_pending()
        stranded = [fault for removal in wave.removals for fault in replay.drain(removal.node_id)]
        replay.forget([removal.node_id for removal in wave.removals])
        faults = [*limits, *replay.faults(), *dict.fromkeys(stranded)]
        yield from (f"{fault} (wave {number})" for fault in faults)
    explained = {refusal.subject for refusal in proposal.refusals if refusal.subject_kind == "workload"}
    if proposal.waves:
        for name in replay.still_pending():
            if name not in explained:
                yield f"pending: {name} has pending pods that the plan neither places nor explains"


def _wave_limits(replay: Replay, launches: int, removals: int, rules: Rules) -> Iterator[str]:
    nodes = replay.node_count()
    most = max(1, nodes * rules.max_disrupted_percent // 100)
    if removals > most:
        yield f"wave_size: {removals} of {nodes} nodes are removed at once; the rules allow {most}"
    if rules.max_nodes is not None and launches and nodes > rules.max_nodes:
        yield f"max_nodes: {nodes} nodes run at once; the rules allow {rules.max_nodes}"
    floor = max(ABSOLUTE_FLOOR, rules.min_nodes)
    if removals and replay.ready_count() - removals < floor:
        left = replay.ready_count() - removals
        yield f"node_floor: {left} ready nodes would be left; at least {floor} must stay"
