"""Spoilt plans whose new nodes are not what the pods that move need, or break rules about other pods."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from policies.domain.shapes import Offer, PodTerm, Requirement, SpreadRule, Workload
from policies.tests.fleets import ZONES, node, rules
from policies.tests.scenes import (
    LEAVING,
    LENIENT,
    Mutant,
    Scene,
    insider,
    mutant,
    pool,
    roomy,
    subject,
    tiny,
)

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
CAPACITY = "karpenter.sh/capacity-type"
A, B, C = pool(), pool(zone=1), pool(zone=2)
R5 = pool("r5.xlarge")
ON_DEMAND = pool(capacity_type="on_demand")
FRIEND = insider("friend")
DISK = 20_000


def _bought(name: str, covers: str, moving: Workload, good: Offer, bad: Offer, codes: str) -> Mutant:
    """Buy the wrong pool for the workload that moves."""
    scene = Scene(moving, (good, bad))
    return mutant(name, covers, scene.buying(good), scene.buying(bad), f"no_place {codes}")


def _of_nodes() -> Iterator[Mutant]:
    big = subject(cpu=3000)
    yield _bought("few_cpus", "Resources.cpu_millis", big, A, pool("m5.large"), "cpu")
    heavy = subject(memory=9_000)
    yield _bought("little_memory", "Resources.memory_mib", heavy, A, pool("c5.xlarge"), "memory")
    drawing = subject(request=tiny(gpu=1))
    yield _bought("no_gpu", "Resources.gpu", drawing, pool(allocatable=roomy(gpu=1)), B, "gpu")
    hoarding = subject(request=tiny(ephemeral_mib=DISK))
    small = pool(zone=1, allocatable=roomy(disk_mib=DISK - 1))
    yield _bought("small_disk", "Resources.ephemeral_mib", hoarding, A, small, "ephemeral_storage")
    full = pool(zone=1, allocatable=roomy(slots=5))
    one_free = pool(allocatable=roomy(slots=6))
    yield _bought("no_pod_slot", "Resources.pods", subject(), one_free, full, "max_pods")
    busy = pool(zone=1, daemon_overhead=tiny(cpu_millis=1000))
    yield _bought("overlooked_daemons", "Offer.daemon_overhead", big, A, busy, "cpu")
    picky = subject(node_selector={"family": "m5"})
    yield _bought("wrong_label", "Workload.node_selector", picky, A, R5, "selector")
    built_for_intel, arm = subject(node_selector={"kubernetes.io/arch": "amd64"}), pool(zone=1, arch="arm64")
    yield _bought("wrong_architecture", "Offer.arch", built_for_intel, A, arm, "selector template")
    averse = subject(requirements=(Requirement("family", "NotIn", ("r5",)),))
    yield _bought("wrong_affinity", "Workload.requirements", averse, A, R5, "affinity")
    terms = ((Requirement("family", "In", ("m5",)),), (Requirement("gpu", "Exists"),))
    yield _bought("no_alternative", "Workload.alternatives", subject(alternatives=terms), A, R5, "affinity")
    yield _bought(
        "wrong_volume_zone", "Workload.pinned_zone", subject(pinned_zone=ZONES[0]), A, B, "volume_zone"
    )
    steady = subject(spot_tolerant=False)
    yield _bought("spot_for_intolerant", "Workload.spot_tolerant", steady, ON_DEMAND, A, "capacity_type")
    partly = subject(on_demand_minimum=1)
    yield _bought("few_on_demand", "Workload.on_demand_minimum", partly, ON_DEMAND, A, "on_demand_minimum")
    off_spot = Scene(subject(), (ON_DEMAND, A), rules=rules(**LENIENT, spot_affinity={"shop": "none"}))
    good, bad = off_spot.buying(ON_DEMAND), off_spot.buying(A)
    yield mutant("namespace_on_spot", "Rules.spot_affinity", good, bad, "no_place capacity_type")


def _beside(
    name: str, covers: str, moving: Workload, good: Sequence[Offer], bad: Sequence[Offer], code: str
) -> Mutant:
    """Buy the wrong pools for pods of which a friend runs in zone a."""
    scene = Scene(
        moving,
        (*good, *bad),
        others=(FRIEND,),
        on_others={("friend", "stay-0"): 1},
        pods_leaving=moving.replicas,
    )
    return mutant(name, covers, scene.buying(*good), scene.buying(*bad), f"no_place {code}")


def _about_other_pods() -> Iterator[Mutant]:
    two = subject(2, 500)
    shared = subject(spread=(SpreadRule(ZONE, 1, also_counts=("friend",)),))
    yield _beside("crowded_by_others", "SpreadRule.also_counts", shared, (B,), (A,), "spread")
    one_a_node = replace(two, spread=(SpreadRule(HOST, 1),))
    yield _beside("crowded_node", "SpreadRule.topology_key", one_a_node, (A, B), (A,), "spread")
    mixed = replace(two, spread=(SpreadRule(CAPACITY, 1),))
    yield _beside("all_on_spot", "SpreadRule.max_skew", mixed, (A, ON_DEMAND), (A, B), "spread")
    loner = replace(two, anti_affinity_keys=(HOST,))
    yield _beside("own_kind", "Workload.anti_affinity_keys", loner, (A, B), (A,), "anti_affinity")
    foe = subject(pod_anti_affinity=(PodTerm(ZONE, ("friend",)),))
    yield _beside("foe_in_the_zone", "Workload.pod_anti_affinity", foe, (B,), (A,), "anti_affinity")
    fond = subject(pod_affinity=(PodTerm(ZONE, ("friend",)),))
    yield _beside("far_from_its_friend", "Workload.pod_affinity", fond, (A,), (B,), "pod_affinity")
    repelled = replace(FRIEND, pod_anti_affinity=(PodTerm(ZONE, ("subject",)),))
    scene = Scene(subject(), (A, B), others=(repelled,), on_others={("friend", "stay-0"): 1})
    good, bad = scene.buying(B), scene.buying(A)
    yield mutant("unwelcome_in_the_zone", "PodTerm.workload_ids", good, bad, "no_place anti_affinity")
    follower = insider("follower", pod_affinity=(PodTerm(ZONE, ("subject",)),))
    scene = Scene(subject(), (A, B), others=(follower,), on_others={("follower", "stay-0"): 1})
    yield mutant(
        "friend_moved_away", "PodTerm.topology_key", scene.buying(A), scene.buying(B), "pod_affinity"
    )


def _spread_in_detail() -> Iterator[Mutant]:
    rule = SpreadRule(ZONE, 1)
    here = {("subject", "stay-0"): 1}
    one_there = Scene(subject(2, spread=(rule,)), (A, B), on_others=here)
    good, bad = one_there.buying(B), one_there.buying(A)
    yield mutant("crowded_zone", "Workload.spread", good, bad, "no_place spread")
    three = subject(3, spread=(replace(rule, min_domains=3),))
    two_there = Scene(three, (A, C), on_others={**here, ("subject", "stay-1"): 1})
    good, bad = two_there.buying(C), two_there.buying(A)
    yield mutant("few_zones", "SpreadRule.min_domains", good, bad, "no_place spread")
    blind = replace(rule, counts_own=False, also_counts=("friend",))
    with_friend = Scene(subject(spread=(blind,)), (A,), others=(FRIEND,), on_others={("friend", "stay-0"): 1})
    yield _stricter("own_pods_count", "counts_own", with_friend, replace(blind, counts_own=True))
    lenient = replace(rule, honors_taints=True)
    two = Scene(subject(2, spread=(lenient,)), (A,), pods_leaving=2)
    yield _stricter("tainted_zones_count", "honors_taints", two, rule)
    labels = {"family": "m5"}
    picky = subject(2, node_selector=labels, spread=(rule,))
    two = Scene(picky, (A,), pods_leaving=2, leaving=node(LEAVING, "m5.8xlarge", group="", labels=labels))
    yield _stricter("unreachable_zones_count", "honors_affinity", two, replace(rule, honors_affinity=False))


def _stricter(name: str, field: str, scene: Scene, rule: SpreadRule) -> Mutant:
    """Keep the plan, and make the spread rule of the workload stricter."""
    changed = replace(scene, subject=replace(scene.subject, spread=(rule,)))
    return mutant(name, f"SpreadRule.{field}", scene.buying(A), changed.buying(A), "no_place spread")


MISPLACED: tuple[Mutant, ...] = (*_of_nodes(), *_about_other_pods(), *_spread_in_detail())
