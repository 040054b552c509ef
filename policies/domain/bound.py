"""A price that no allowed node set which holds the running pods can go below."""

from collections import Counter
from collections.abc import Collection, Sequence
from decimal import ROUND_FLOOR, Decimal

import numpy as np

from policies.domain.eligibility import pods_by_node
from policies.domain.matching import accepted_places
from policies.domain.mix import spot_limit_percent
from policies.domain.model import FloatArray, Place, place_of_node, place_of_offer, pod_vector, vector
from policies.domain.policy import Rules
from policies.domain.relaxation import Columns, Infeasible, relax
from policies.domain.selection import worthwhile
from policies.domain.shapes import CapacityType, ClusterSnapshot, Offer, Workload

_TOLERANCE = 1e-6
"""Relative accuracy granted to the solver."""
_STEP = Decimal("0.000001")


def lower_bound(
    snapshot: ClusterSnapshot, allowed: Sequence[Offer], refused: Collection[str], rules: Rules
) -> Decimal:
    """Return a lower bound in USD per hour on any plan's price after, doing nothing included.

    Nodes in ``refused`` are paid for whatever happens; the pods of the others may go anywhere that
    accepts them, split at will; the spot share of new nodes' price is kept.
    """
    fixed = [node for node in snapshot.nodes if node.id in refused]
    movable = [node for node in snapshot.nodes if node.id not in refused]
    paid = sum((node.usd_per_hour for node in fixed), Decimal(0))
    workloads = {workload.id: workload for workload in snapshot.workloads}
    pods = pods_by_node(snapshot)
    moving: Counter[str] = Counter()
    for node in movable:
        moving.update(pods.get(node.id, {}))
    subjects = [workloads[workload_id] for workload_id in sorted(moving)]
    if not subjects:
        return paid
    offers = worthwhile(allowed, [float(offer.usd_per_hour) for offer in allowed], subjects, enough=1)
    places = [
        *(place_of_offer(offer, f"offer-{index}") for index, offer in enumerate(offers)),
        *(place_of_node(node) for node in [*fixed, *movable]),
    ]
    rooms = np.array([vector(place.room) for place in places], np.int64)
    for index, node in enumerate(fixed, start=len(offers)):
        for workload_id, count in pods.get(node.id, {}).items():
            if workload_id in workloads:
                rooms[index] -= np.array(pod_vector(workloads[workload_id])) * count
    columns = Columns(
        prices=np.array(
            [float(o.usd_per_hour) for o in offers]
            + [0.0] * len(fixed)
            + [float(n.usd_per_hour) for n in movable]
        ),
        rooms=np.maximum(rooms, 0),
        upper=np.array([np.inf] * len(offers) + [1.0] * (len(fixed) + len(movable))),
        balance=_spot_balance(offers, rules, len(places)),
    )
    return paid + _relaxed_price(subjects, moving, places, columns)


def _relaxed_price(
    subjects: Sequence[Workload], moving: Counter[str], places: Sequence[Place], columns: Columns
) -> Decimal:
    accepted = accepted_places(subjects, places)
    classes: dict[tuple[tuple[int, int, int, int], int], int] = {}
    for workload, mask in zip(subjects, accepted, strict=True):
        key = (pod_vector(workload), id(mask))
        classes[key] = classes.get(key, 0) + moving[workload.id]
    mask_of = {id(mask): mask for mask in accepted}
    try:
        relaxed = relax(
            np.array([key[0] for key in classes], np.int64),
            np.array(list(classes.values()), np.int64),
            [mask_of[key[1]] for key in classes],
            columns,
        )
    except Infeasible:  # the nodes are overcommitted, so only what is certainly paid remains
        return Decimal(0)
    return Decimal(max(0.0, relaxed.cost * (1 - _TOLERANCE))).quantize(_STEP, ROUND_FLOOR)


def _spot_balance(offers: Sequence[Offer], rules: Rules, size: int) -> FloatArray:
    """Return each column's part in (spot share of the new price − its limit), which must not exceed 0."""
    limit = spot_limit_percent(rules) / 100
    row = np.zeros(size)
    for index, offer in enumerate(offers):
        is_spot = offer.capacity_type is CapacityType.SPOT
        row[index] = float(offer.usd_per_hour) * ((1 - limit) if is_spot else -limit)
    return row
