"""What the optimizer answers: launches, removals in waves, money, risk and every refusal."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from policies.domain.shapes import CapacityType


@dataclass(frozen=True, slots=True)
class Launch:
    """One node to buy: the preferred pool first, then the pools to try when it is dry."""

    id: str
    """Stable name inside the plan, such as ``n3``."""
    instance_type: str
    zone: str
    zone_id: str
    capacity_type: CapacityType
    usd_per_hour: Decimal
    interruption_risk: float
    alternatives: tuple[str, ...] = ()
    """Pool names that hold the same pods, cheapest first."""
    pods: tuple[tuple[str, int], ...] = ()
    """(workload id, count) expected to land here."""


@dataclass(frozen=True, slots=True)
class Removal:
    """One node to drain and terminate."""

    node_id: str
    instance_id: str
    usd_per_hour: Decimal
    reason_code: str
    """``empty``, ``underused``, ``replaced_by_spot`` or ``replaced_by_cheaper``."""
    reason: str
    pods_moved: int


@dataclass(frozen=True, slots=True)
class Wave:
    """Launches that must be Ready before the removals of the same wave are drained."""

    launches: tuple[Launch, ...]
    removals: tuple[Removal, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something the optimizer declined, and why."""

    subject_kind: str
    """``node``, ``workload``, ``pool`` or ``cluster``."""
    subject: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The saving split so that its parts add up (spec README, derived numbers)."""

    spot_replacement: Decimal
    bin_packing: Decimal
    rightsizing: Decimal = Decimal(0)
    hibernation: Decimal = Decimal(0)

    @property
    def total(self) -> Decimal:
        """Return the sum of the parts, USD per hour."""
        return self.spot_replacement + self.bin_packing + self.rightsizing + self.hibernation


@dataclass(frozen=True, slots=True)
class PlanProposal:
    """A whole plan, or an empty one whose refusals say why nothing is proposed."""

    cluster_id: str
    quoted_at: datetime
    waves: tuple[Wave, ...]
    refusals: tuple[Refusal, ...]
    usd_per_hour_before: Decimal
    usd_per_hour_after: Decimal
    lower_bound_usd_per_hour: Decimal
    """Price below which no node set can hold these pods; shown beside the plan."""
    breakdown: Breakdown
    risk: float
    """Price-weighted mean interruption risk of the nodes after the plan, 0 to 1."""
    nodes_before: int
    nodes_after: int
    pods_moved: int

    @property
    def usd_per_hour_saved(self) -> Decimal:
        """Return before minus after."""
        return self.usd_per_hour_before - self.usd_per_hour_after
