"""The policy document: every knob an operator may turn, with its range and default."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal

PROTECTED_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease", "spot-optimizer")
"""Namespaces that no policy can open to disruption (threats.md, Z23)."""


@dataclass(frozen=True, slots=True)
class TemplateRules:
    """The boundary that a node template draws around what may be launched."""

    families: frozenset[str]
    excluded_sizes: frozenset[str] = frozenset({"nano", "micro", "small", "medium", "metal"})
    architecture: str = "x86_64"
    strategy: str = "balanced"
    """``cheapest``, ``balanced`` or ``performance``."""
    capacity_type: str = "spot"
    """``spot``, ``on_demand`` or ``hybrid``."""
    hybrid_spot_percentage: int = 50


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy and its template, resolved to what the optimizer needs."""

    template: TemplateRules
    strategy: str = "capacity_optimized"
    """``lowest_price``, ``balanced`` or ``capacity_optimized``: how much an expected interruption costs."""
    spot_percentage: int = 80
    """Upper share of the new nodes' price that may be spot, in percent."""
    on_demand_base: int = 0
    fallback_on_demand: bool = True
    max_price_per_hour: Decimal | None = None
    block_burstable: bool = False
    az_spread: bool = True
    min_nodes: int = 3
    max_nodes: int | None = None
    min_node_lifetime: timedelta = timedelta(minutes=10)
    headroom_cpu_percent: int = 10
    headroom_memory_percent: int = 10
    pool_share_percent: int = 25
    """Largest share of a cluster's nodes in one instance-type-and-zone pool."""
    spread_over_pools: bool = True
    """Whether workloads are spread so that losing any one pool leaves their minimum, where that is cheap."""
    max_disrupted_percent: int = 10
    """Largest share of a cluster's nodes disrupted at once (at least one node)."""
    max_risk: float = 0.5
    """Pools whose interruption risk is above this are refused."""
    consolidation: str = "all"
    """Which nodes may be emptied: ``all``, ``empty`` (only those without pods) or ``none``."""
    min_saving_percent: int = 15
    """Smallest share of the bill that a plan saves when it moves pods, in percent; or else …"""
    min_saving_usd_per_month: Decimal | None = Decimal(100)
    """… so much, whatever its share; None when only the share counts."""
    min_saving_usd_per_hour: Decimal = Decimal("0.01")
    """Smallest saving of any plan."""
    min_saving_per_disruption: float = 0.5
    """Smallest share of the bill saved for each share of the pods moved."""
    spot_to_spot_pools: int = 5
    """Spot nodes give way to new spot nodes only when each could come from so many pools …"""
    spot_to_spot_saving_percent: int = 10
    """… and they would still be so much cheaper, in percent."""
    spot_reversion: timedelta = timedelta(minutes=60)
    """How long an on-demand node that Spotopt launched stays before spot may take its place again."""
    excluded_namespaces: frozenset[str] = field(default_factory=frozenset)
    excluded_labels: Mapping[str, str] = field(default_factory=dict)
    excluded_instance_types: frozenset[str] = field(default_factory=frozenset)
    excluded_taints: frozenset[str] = field(default_factory=frozenset)
    """Keys; nodes with a taint of one of them stay."""
    default_spot_affinity: str = "prefer"
    """What holds for namespaces that ``spot_affinity`` does not name."""
    spot_affinity: Mapping[str, str] = field(default_factory=dict)
    """``prefer``, ``force`` or ``none`` by namespace."""

    def without_thresholds(self) -> "Rules":
        """Return the rules with every saving welcome, however small: only what is safe and allowed counts."""
        return replace(
            self,
            min_saving_percent=0,
            min_saving_usd_per_hour=Decimal(0),
            min_saving_per_disruption=0.0,
        )
