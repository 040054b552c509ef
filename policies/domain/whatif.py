"""One cluster under other rules, prices or commitments: what the best plan found would cost in each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import cycle, islice
from typing import Any

from policies.domain.optimizer import propose
from policies.domain.plan import PlanProposal
from policies.domain.policy import Rules
from policies.domain.shapes import CapacityType, ClusterSnapshot, Node, Offer
from policies.domain.watch import Watch, unwatched
from spotopt.core.errors import Conflict

_STEP = Decimal("0.000001")
_SETTLED = timedelta(days=30)
"""Age of a spare committed node: old enough for every policy to let it be emptied again."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """On-demand nodes that are paid for whether or not anything runs on them."""

    instance_type: str
    nodes: int
    usd_per_hour: Decimal = Decimal(0)
    """What one of them costs while it is committed; 0 when it is paid already."""

    @property
    def fee(self) -> Decimal:
        """Return what the whole commitment costs, USD per hour."""
        return self.usd_per_hour * self.nodes


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is different from the cluster as it is; the parts may be combined."""

    name: str
    rules: Rules
    is_on_demand_only: bool = False
    """Nodes that run on spot are counted as on-demand ones, and no spot node is bought."""
    spot_price_percent: int = 0
    """By how much spot prices change."""
    on_demand_price_percent: int = 0
    commitments: tuple[Commitment, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The best plan found for a scenario, however small its saving; money in USD per hour."""

    name: str
    usd_per_hour_before: Decimal
    """Today's nodes at the scenario's prices."""
    usd_per_hour_after: Decimal
    lower_bound_usd_per_hour: Decimal
    fee_usd_per_hour: Decimal
    """What the commitments cost; part of the three amounts above."""
    nodes_before: int
    nodes_after: int
    nodes_launched: int
    nodes_removed: int
    spot_nodes_after: int
    pods_moved: int
    risk: float
    """Price-weighted mean interruption risk of the nodes after the plan within 24 hours, 0 to 1."""
    refusals: Mapping[str, int]
    """How much was left alone, by reason code."""


def outcome_of(
    *,
    snapshot: ClusterSnapshot,
    offers: Sequence[Offer],
    scenario: Scenario,
    now: datetime,
    watch: Watch = unwatched,
) -> Outcome:
    """Return what the optimizer makes of the cluster in the scenario.

    Raises Conflict when a committed instance type is not on offer; ``watch`` may raise to end the search.
    """
    priced = _priced(offers, scenario)
    there = _with_commitments(_as_running(snapshot, priced, scenario), priced, scenario.commitments)
    rules = scenario.rules.without_thresholds()
    if scenario.is_on_demand_only:
        rules = replace(rules, template=replace(rules.template, capacity_type="on_demand"))
    proposal = propose(snapshot=there, offers=priced, rules=rules, now=now, watch=watch)
    return _outcome(scenario, there, proposal)


def _outcome(scenario: Scenario, snapshot: ClusterSnapshot, proposal: PlanProposal) -> Outcome:
    fee = sum((commitment.fee for commitment in scenario.commitments), Decimal(0))
    removed = {removal.node_id for wave in proposal.waves for removal in wave.removals}
    launched = [launch for wave in proposal.waves for launch in wave.launches]
    after = [node.capacity_type for node in snapshot.nodes if node.id not in removed]
    after += [launch.capacity_type for launch in launched]
    return Outcome(
        name=scenario.name,
        usd_per_hour_before=proposal.usd_per_hour_before + fee,
        usd_per_hour_after=proposal.usd_per_hour_after + fee,
        lower_bound_usd_per_hour=proposal.lower_bound_usd_per_hour + fee,
        fee_usd_per_hour=fee,
        nodes_before=proposal.nodes_before,
        nodes_after=proposal.nodes_after,
        nodes_launched=len(launched),
        nodes_removed=len(removed),
        spot_nodes_after=after.count(CapacityType.SPOT),
        pods_moved=proposal.pods_moved,
        risk=proposal.risk,
        refusals=dict(sorted(Counter(refusal.code for refusal in proposal.refusals).items())),
    )


def _priced(offers: Sequence[Offer], scenario: Scenario) -> tuple[Offer, ...]:
    return tuple(
        replace(offer, usd_per_hour=_changed(offer.usd_per_hour, offer.capacity_type, scenario))
        for offer in offers
    )


def _changed(usd: Decimal, capacity_type: CapacityType, scenario: Scenario) -> Decimal:
    is_spot = capacity_type is CapacityType.SPOT
    percent = scenario.spot_price_percent if is_spot else scenario.on_demand_price_percent
    return (usd * (100 + percent) / 100).quantize(_STEP)


def _as_running(snapshot: ClusterSnapshot, offers: Sequence[Offer], scenario: Scenario) -> ClusterSnapshot:
    """Return the snapshot with its running nodes at the scenario's prices."""
    listed = {o.instance_type: o.usd_per_hour for o in offers if o.capacity_type is CapacityType.ON_DEMAND}

    def priced(node: Node) -> Node:
        if scenario.is_on_demand_only and node.capacity_type is CapacityType.SPOT:
            usd = listed.get(node.instance_type, node.usd_per_hour)
            return replace(node, capacity_type=CapacityType.ON_DEMAND, usd_per_hour=usd)
        return replace(node, usd_per_hour=_changed(node.usd_per_hour, node.capacity_type, scenario))

    return replace(snapshot, nodes=tuple(priced(node) for node in snapshot.nodes))


def _with_commitments(
    snapshot: ClusterSnapshot, offers: Sequence[Offer], commitments: Sequence[Commitment]
) -> ClusterSnapshot:
    """Return the snapshot in which committed nodes cost nothing more: those that run, and spare ones.

    A committed node that does not run yet stands ready and empty, in the zones in turn.
    """
    for commitment in commitments:
        nodes, left = [], commitment.nodes
        for node in snapshot.nodes:
            is_covered = (
                left > 0
                and node.instance_type == commitment.instance_type
                and node.capacity_type is CapacityType.ON_DEMAND
                and node.usd_per_hour > 0
            )
            nodes.append(replace(node, usd_per_hour=Decimal(0)) if is_covered else node)
            left -= is_covered
        nodes += _spare(snapshot, offers, commitment, left)
        snapshot = replace(snapshot, nodes=tuple(nodes))
    return snapshot


def _spare(
    snapshot: ClusterSnapshot, offers: Sequence[Offer], commitment: Commitment, count: int
) -> list[Node]:
    pools = sorted(
        (o for o in offers
         if o.instance_type == commitment.instance_type and o.capacity_type is CapacityType.ON_DEMAND),
        key=lambda offer: offer.zone,
    )  # fmt: skip
    if count and not pools:
        raise Conflict(f"{commitment.instance_type} has no on-demand price in {snapshot.region}.")
    return [
        Node(
            id=f"committed-{commitment.instance_type}-{number}",
            instance_id=f"committed-{commitment.instance_type}-{number}",
            instance_type=offer.instance_type,
            zone=offer.zone,
            zone_id=offer.zone_id,
            capacity_type=offer.capacity_type,
            usd_per_hour=Decimal(0),
            allocatable=offer.allocatable,
            daemon_overhead=offer.daemon_overhead,
            labels=offer.labels,
            taints=(),
            launched_at=snapshot.taken_at - _SETTLED,
            ready=True,
            cordoned=False,
            group="",
            group_kind="",
        )
        for number, offer in enumerate(islice(cycle(pools), count), start=1)
    ]


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome with money as strings, ready for a JSON column."""
    return {name: str(value) if name in _MONEY else value for name, value in asdict(outcome).items()}


def outcome_from_json(row: Mapping[str, Any]) -> Outcome:
    """Return the outcome that ``outcome_as_json`` wrote."""
    values: dict[str, Any] = {n: Decimal(value) if n in _MONEY else value for n, value in row.items()}
    return Outcome(**values)


_MONEY = frozenset(field.name for field in fields(Outcome) if "usd_per_hour" in field.name)
