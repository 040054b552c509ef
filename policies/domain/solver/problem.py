"""The packing problem in numbers, and its answer: shapes of pods onto kinds of nodes.

A *shape* stands for all pods that are equal to the packer; a *kind* for all nodes that are: an offer, of
which any number may be bought, or one running node, of which there is one. Arrays are never changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from policies.domain.model import BoolArray, FloatArray, IntArray

RESOURCES = ("cpu_millis", "memory_mib", "pods", "gpu", "ephemeral_mib")
"""The order of the resource columns; a problem may leave out trailing ones."""
UNLIMITED = 1_000_000
"""Stands for "as many as you like" in counts."""


@dataclass(frozen=True, slots=True)
class NodeRule:
    """A linear rule on the nodes used: the coefficients of all nodes must not sum to more than ``upper``."""

    name: str
    coefficients: FloatArray
    """For each kind, what one node of it adds."""
    upper: float


@dataclass(frozen=True, slots=True)
class Problem:
    """Pods to place and nodes to place them on; ``S`` shapes, ``K`` kinds, ``R`` resources, ``Z`` zones."""

    requests: IntArray
    """S × R: what one pod takes, in the order of ``RESOURCES``; a pod takes one of the pod slots."""
    counts: IntArray
    """S: pods to place."""
    accepted: BoolArray
    """S × K: which kinds a pod may run on, whatever their room."""
    rooms: IntArray
    """K × R: what a node has left for these pods (daemon sets, headroom and pods that stay taken off)."""
    prices: FloatArray
    """K: what using a node costs an hour, as the objective counts it; 0 for a node that is paid anyway."""
    zones: IntArray
    """K: zone number, from 0."""
    pools: IntArray
    """K: number of the pool (instance type and zone), from 0."""
    families: IntArray
    """K: number of the instance family, from 0."""
    limits: IntArray
    """K: most nodes of the kind: 1 for a running node, UNLIMITED for an offer."""
    skews: IntArray
    """S: largest difference between the pods of the shape in two zones; 0 when zones do not matter.

    The zones that count are those of the kinds that accept and could hold a pod, and those of ``settled``.
    """
    per_node: IntArray
    """S: most pods of the shape on one node; UNLIMITED when its hostname does not matter."""
    settled: IntArray | None = None
    """S × Z: pods of the shape that stay where they are, counted into the zone spread; None for none."""
    conflicts: tuple[tuple[int, int], ...] = ()
    """Pairs of shapes that may not share a node."""
    rules: tuple[NodeRule, ...] = ()
    parts: IntArray | None = None
    """S: number of the part that a shape belongs to, such as on-demand-only; None for one part.

    The answer is never dearer than the answers to the parts, each packed on nodes of its own.
    """

    def __post_init__(self) -> None:
        """Refuse arrays whose sizes do not belong together."""
        shapes, kinds = self.accepted.shape
        by_shape = (self.requests, self.counts, self.skews, self.per_node)
        by_kind = (self.rooms, self.prices, self.zones, self.pools, self.families, self.limits)
        fits = all(len(array) == shapes for array in by_shape) and all(len(a) == kinds for a in by_kind)
        if not fits or self.requests.shape[1] != self.rooms.shape[1]:
            raise ValueError("The arrays of a packing problem disagree in size.")
        if any(len(rule.coefficients) != kinds for rule in self.rules):
            raise ValueError("A rule on nodes needs one coefficient for each kind.")

    def part(self, number: int) -> tuple["Problem", IntArray]:
        """Return the problem of the shapes of one part alone, and their numbers here."""
        shapes = np.flatnonzero(self.parts == number)
        place = {shape: index for index, shape in enumerate(shapes.tolist())}
        pairs = [pair for pair in self.conflicts if pair[0] in place and pair[1] in place]
        alone = replace(
            self,
            requests=self.requests[shapes],
            counts=self.counts[shapes],
            accepted=self.accepted[shapes],
            skews=self.skews[shapes],
            per_node=self.per_node[shapes],
            settled=None if self.settled is None else self.settled[shapes],
            conflicts=tuple((place[one], place[other]) for one, other in pairs),
            parts=None,
        )
        return alone, shapes

    def fits(self) -> BoolArray:
        """Return S × K: which empty nodes accept and hold at least one pod."""
        holds = (self.requests[:, None, :] <= self.rooms[None, :, :]).all(axis=2)
        answer: BoolArray = self.accepted & holds & (self.limits > 0)
        return answer


def share_cap(
    name: str,
    members: BoolArray,
    share: float,
    weights: FloatArray,
    *,
    standing: float = 0.0,
    total: float = 0.0,
) -> NodeRule:
    """Return the rule that the members' part of all weight is at most ``share`` (0 to 1).

    ``weights`` is the price of each kind (share of the cost) or 1 (share of the nodes); ``standing`` and
    ``total`` are the weight that members and all nodes have beside the nodes of this problem.
    """
    return NodeRule(name, weights * (members.astype(float) - share), share * total - standing)


def share_caps(
    name: str, groups: IntArray, share: float, weights: FloatArray, *, standing: Sequence[float] = ()
) -> tuple[NodeRule, ...]:
    """Return one ``share_cap`` for each group number (pool, family, …); ``standing`` is weight by group."""
    size = int(groups.max(initial=-1)) + 1
    known = np.zeros(max(size, len(standing)))
    known[: len(standing)] = standing
    return tuple(
        share_cap(
            f"{name}:{g}", groups == g, share, weights, standing=float(known[g]), total=float(known.sum())
        )
        for g in range(size)
    )


@dataclass(frozen=True, slots=True)
class Column:
    """Equal nodes: ``copies`` nodes of one kind that carry ``pods`` each."""

    kind: int
    pods: IntArray
    """S: pods by shape on one node."""
    copies: int


class Binding(StrEnum):
    """Why pods found no place."""

    NOT_ACCEPTED = "not_accepted"
    """No kind accepts the shape."""
    TOO_LARGE = "too_large"
    """No kind that accepts the shape is large enough for one pod."""
    LIMITS = "limits"
    """The kinds that hold it are used up."""
    ZONE_SPREAD = "zone_spread"
    """The room is in zones where one more pod would break the spread."""
    RULES = "rules"
    """The rules on nodes forbid more of the nodes that hold it."""


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Pods of one shape that no allowed node set holds, and what is in the way."""

    shape: int
    count: int
    binding: Binding
    detail: str
    """Names the resource, the zone or the rule."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The best node set found, and how far from the optimum it can be at most."""

    columns: tuple[Column, ...]
    cost: float
    """Sum of the prices, USD per hour; rules hold and all pods but ``unplaced`` are on the columns."""
    bound: float
    """No node set that keeps the constraints and holds the same pods costs less (USD per hour)."""
    unplaced: tuple[Unplaced, ...] = ()
    first_seconds: float = 0.0
    """From the start until this answer was found."""
    certified_seconds: float = 0.0
    """From the start until ``bound`` was proven."""
    trail: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    """(seconds, cost) of each better answer on the way."""

    @property
    def gap(self) -> float:
        """Return by which share of the bound the cost may exceed the optimum."""
        return self.cost / self.bound - 1 if self.bound > 0 else 0.0

    @property
    def nodes(self) -> int:
        """Return how many nodes are used."""
        return sum(column.copies for column in self.columns)


class Infeasible(ValueError):
    """No node set keeps a rule; ``binding`` and ``detail`` name what is in the way."""

    def __init__(self, binding: Binding, detail: str) -> None:
        """Say which rule cannot be kept."""
        super().__init__(f"No set of nodes keeps the rule {detail}.")
        self.binding, self.detail = binding, detail
