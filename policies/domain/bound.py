"""A price that no allowed node set which holds the running pods can go below."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal

import numpy as np

from policies.domain.eligibility import pods_by_node
from policies.domain.matching import accepted_places
from policies.domain.mix import spot_limit_percent
from policies.domain.model import (
    RESOURCE_COUNT,
    BoolArray,
    FloatArray,
    Vector,
    place_of_node,
    place_of_offer,
    pod_vector,
    vector,
)
from policies.domain.policy import Rules
from policies.domain.relaxation import Columns, Infeasible, relax
from policies.domain.selection import worthwhile
from policies.domain.shapes import CapacityType, ClusterSnapshot, Node, Offer, Workload

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
    workloads = {workload.id: workload for workload in snapshot.workloads}
    pods = pods_by_node(snapshot)
    moving: Counter[str] = Counter()
    for node in movable:
        moving.update(pods.get(node.id, {}))
    subjects = [workloads[workload_id] for workload_id in sorted(moving)]
    paid = sum((node.usd_per_hour for node in fixed), Decimal(0))
    if not subjects:
        return paid
    offers = worthwhile(allowed, [float(offer.usd_per_hour) for offer in allowed], subjects, enough=1)
    nodes = [*fixed, *movable]
    rooms = [vector(offer.allocatable - offer.daemon_overhead) for offer in offers]
    rooms += [_room(node, pods.get(node.id, {}), workloads, taken=node.id in refused) for node in nodes]
    columns = Columns(
        prices=np.array(
            [float(offer.usd_per_hour) for offer in offers]
            + [0.0 if node.id in refused else float(node.usd_per_hour) for node in nodes]
        ),
        rooms=np.maximum(np.array(rooms, np.int64), 0),
        upper=np.array([np.inf] * len(offers) + [1.0] * len(nodes)),
        balance=_spot_balance(offers, rules, len(offers) + len(nodes)),
    )
    return paid + _relaxed_price(subjects, moving, _accepted(subjects, offers, nodes, pods), columns)


def _room(
    node: Node, carried: Mapping[str, int], workloads: Mapping[str, Workload], *, taken: bool
) -> Vector:
    """Return what the node offers: beside its pods when they are taken as given, else at least to them."""
    room = np.array(vector(node.allocatable - node.daemon_overhead))
    load = np.zeros(RESOURCE_COUNT, np.int64)
    for workload_id, count in carried.items():
        if workload_id in workloads:
            load += np.array(pod_vector(workloads[workload_id])) * count
    cpu, memory, slots, gpu, ephemeral = (room - load if taken else np.maximum(room, load)).tolist()
    return cpu, memory, slots, gpu, ephemeral


def _accepted(
    subjects: Sequence[Workload],
    offers: Sequence[Offer],
    nodes: Sequence[Node],
    pods: Mapping[str, Mapping[str, int]],
) -> list[BoolArray]:
    """Return the columns that each workload accepts; where its pods run now, they may stay."""
    places = [place_of_offer(offer, f"offer-{index}") for index, offer in enumerate(offers)]
    places += [place_of_node(node) for node in nodes]
    answer = []
    for subject, mask in zip(subjects, accepted_places(subjects, places), strict=True):
        here = [i for i, node in enumerate(nodes, start=len(offers)) if subject.id in pods.get(node.id, {})]
        if not mask[here].all():
            widened = mask.copy()
            widened[here] = True
            answer.append(widened)
        else:
            answer.append(mask)
    return answer


def _relaxed_price(
    subjects: Sequence[Workload], moving: Counter[str], accepted: Sequence[BoolArray], columns: Columns
) -> Decimal:
    classes: dict[tuple[Vector, bytes], int] = {}
    mask_of: dict[bytes, BoolArray] = {}
    for workload, mask in zip(subjects, accepted, strict=True):
        key = (pod_vector(workload), mask.tobytes())
        mask_of[key[1]] = mask
        classes[key] = classes.get(key, 0) + moving[workload.id]
    try:
        relaxed = relax(
            np.array([key[0] for key in classes], np.int64),
            np.array(list(classes.values()), np.int64),
            [mask_of[key[1]] for key in classes],
            columns,
        )
    except Infeasible:  # only what is certainly paid remains
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
