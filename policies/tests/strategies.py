"""Random small clusters, catalogues and rules of every constraint kind, for the property tests."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from policies.domain.policy import Rules, TemplateRules
from policies.domain.shapes import (
    CapacityType,
    ClusterSnapshot,
    Node,
    Offer,
    PodTerm,
    Requirement,
    SpreadRule,
    Taint,
    Toleration,
    Workload,
)
from policies.tests import fleets

ZONE_KEY = "topology.kubernetes.io/zone"
HOST_KEY = "kubernetes.io/hostname"
TYPES = ("m5.xlarge", "m5.2xlarge", "c5.2xlarge", "r5.xlarge", "m5.4xlarge")
DEDICATED = Taint("dedicated", "batch", "NoSchedule")


def nodes() -> st.SearchStrategy[list[Node]]:
    return st.lists(_traits_of_node(), min_size=1, max_size=20).map(
        lambda traits: [fleets.node(f"node-{index}", **values) for index, values in enumerate(traits)]
    )


def _traits_of_node() -> st.SearchStrategy[dict[str, Any]]:
    plain = st.fixed_dictionaries(
        {
            "instance_type": st.sampled_from(TYPES),
            "zone": st.sampled_from(fleets.ZONES),
            "capacity_type": st.sampled_from(
                [CapacityType.ON_DEMAND, CapacityType.ON_DEMAND, CapacityType.SPOT]
            ),
        }
    )
    odd: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
        [
            *[{}] * 20,
            {"ready": False},
            {"cordoned": True},
            {"protected_reason": "somebody asked"},
            {"launched_at": fleets.NOW - timedelta(minutes=2)},
            {"group": "other"},
            {"taints": (DEDICATED,)},
        ]
    )
    return st.builds(lambda one, other: {**one, **other}, plain, odd)


def workloads() -> st.SearchStrategy[list[Workload]]:
    shape = st.tuples(
        st.integers(1, 30), st.sampled_from([50, 100, 250, 500, 1000, 2500]), st.integers(64, 6000)
    )
    return st.lists(st.tuples(shape, _traits_of_workload()), min_size=0, max_size=12).map(
        lambda drawn: [
            fleets.workload(f"w{index}", replicas, cpu, memory, **traits)
            for index, ((replicas, cpu, memory), traits) in enumerate(drawn)
        ]
    )


def _traits_of_workload() -> st.SearchStrategy[dict[str, Any]]:
    return st.sampled_from(
        [
            *[{}] * 12,
            {"namespace": "kube-system"},
            {"do_not_disrupt": True},
            {"has_local_storage": True},
            {"controlled": False},
            {"budget_allows": 1, "budget_count": 1, "minimum_healthy": 1},
            {"budget_allows": 0, "budget_count": 1, "minimum_healthy": 9},
            {"budget_allows": 1, "budget_count": 2},
            {"spot_tolerant": False},
            {"pinned_zone": fleets.ZONES[1]},
            {"anti_affinity_keys": (HOST_KEY,)},
            {"spread": (SpreadRule(ZONE_KEY, 1),)},
            {"spread": (SpreadRule(HOST_KEY, 2),)},
            {"tolerations": (Toleration("dedicated", "Exists"),)},
            {"requirements": (Requirement(ZONE_KEY, "NotIn", (fleets.ZONES[2],)),)},
            {"node_selector": {"kubernetes.io/arch": "amd64"}},
            {
                "alternatives": (
                    (Requirement(ZONE_KEY, "In", fleets.ZONES[:1]),),
                    (Requirement("x", "Exists"),),
                )
            },
            {"spread": (SpreadRule(ZONE_KEY, 1, min_domains=3, also_counts=("w0",)),)},
            {"pod_affinity": (PodTerm(ZONE_KEY, ("w0",)),)},
            {"pod_anti_affinity": (PodTerm(HOST_KEY, ("w0", "w1")),)},
            {"on_demand_minimum": 1},
        ]
    )


def pools() -> st.SearchStrategy[list[int]]:
    """Indexes into the catalogue; see ``chosen``."""
    size = len(fleets.catalogue())
    some = st.lists(st.integers(0, size - 1), unique=True, max_size=40)
    return st.one_of(st.just(list(range(size))), some)


def chosen(indexes: list[int]) -> list[Offer]:
    """The offers at these indexes; every seventh spot pool is a risky one."""
    full = fleets.catalogue()
    return [
        replace(full[i], interruption_risk=0.9) if i % 7 == 3 and full[i].capacity_type == "spot" else full[i]
        for i in indexes
    ]


def rules() -> st.SearchStrategy[Rules]:
    template = st.builds(
        TemplateRules,
        families=st.sampled_from([frozenset(fleets.FAMILIES), frozenset({"m5", "c5"})]),
        strategy=st.sampled_from(["cheapest", "balanced", "performance"]),
        capacity_type=st.sampled_from(["spot", "spot", "hybrid", "on_demand"]),
    )
    return st.builds(
        Rules,
        template=template,
        spot_percentage=st.sampled_from([0, 50, 80, 100, 100, 100]),
        on_demand_base=st.sampled_from([0, 0, 1, 3]),
        az_spread=st.booleans(),
        min_nodes=st.sampled_from([1, 3, 5]),
        max_nodes=st.sampled_from([None, None, 10, 16]),
        headroom_cpu_percent=st.sampled_from([0, 10, 30]),
        headroom_memory_percent=st.sampled_from([0, 10, 30]),
        pool_share_percent=st.sampled_from([10, 25, 50, 100]),
        max_disrupted_percent=st.sampled_from([5, 10, 30]),
        min_saving_percent=st.sampled_from([0, 5]),
        excluded_instance_types=st.sampled_from([frozenset(), frozenset({"m5.xlarge"})]),
        spot_affinity=st.sampled_from([{}, {"shop": "none"}]),
    )


def snapshots() -> st.SearchStrategy[ClusterSnapshot]:
    return st.builds(fleets.spread_out, nodes(), workloads(), st.integers(0, 3))
